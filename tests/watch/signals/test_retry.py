"""retry: the same again at once, by a library or by hand; fan-outs, agents' steps and other sessions are none."""

from __future__ import annotations

from typing import Any

import pytest
from tests.watch.signals.made import exchange, read

BEFORE = exchange(id="req_1", at=1000.0, total_s=2.0, prompt_hash=77, prompt_tokens=100)


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ({"at": 1005.0, "prompt_hash": 77}, 1.0),
        ({"at": 1061.9, "prompt_hash": 77}, 1.0),
        ({"at": 1062.1, "prompt_hash": 77}, 0.0),  # more than a minute after the answer had ended
        ({"at": 1000.1, "prompt_hash": 77}, 0.0),  # while the other was being answered: two drafts at once
        ({"at": 5.0, "prompt_hash": 77}, 0.0),  # a clock that jumped
        ({"at": 1005.0, "prompt_hash": 78}, 0.0),
        ({"at": 1005.0, "prompt_hash": None}, 0.0),
        ({"at": 1005.0, "prompt_hash": 77, "prompt_tokens": 130}, 0.0),  # the talk went on between them
        ({"at": 1005.0, "prompt_hash": 77, "prompt_tokens": None}, 1.0),
        ({"at": 1005.0, "retry": 1}, 1.0),
        ({"at": 1005.0, "prompt_hash": 77, "told_session": False}, None),
    ],
)
def test_what_counts_as_the_same_again(changed: dict[str, Any], value: float | None) -> None:
    assert read("retry", BEFORE, **changed) == value


def test_nothing_before_is_no_retry_and_two_unknown_prompts_are_not_the_same() -> None:
    assert read("retry", prompt_hash=77) == 0.0
    assert read("retry", exchange(id="req_1", at=999.0, total_s=0.5), at=1000.0) == 0.0
    copy = BEFORE.model_copy(update={"shadow": True})
    assert read("retry", copy, at=1005.0, prompt_hash=77) == 0.0
