"""empty: nothing was said and nothing was called."""

from __future__ import annotations

import pytest
from tests.watch.signals.made import calling, marked, read, said

MESSAGE = {"role": "assistant", "content": None}


@pytest.mark.parametrize("answer", ["", " \n\t ", "\u200b\ufeff", MESSAGE, {**MESSAGE, "reasoning_content": "Hm."}])
def test_an_answer_without_a_word_is_empty(answer: object) -> None:
    assert marked("empty", said(answer)) == 1.0
    assert marked("empty", said("a word", answer)) == 1.0


@pytest.mark.parametrize("answer", ["0", {**MESSAGE, "refusal": "I cannot."}, calling(), {**MESSAGE, "audio": True}])
def test_a_word_a_call_or_a_refusal_is_something(answer: object) -> None:
    assert marked("empty", said(answer)) == 0.0


def test_of_an_answer_that_a_filter_took_or_that_was_broken_off_nothing_is_known() -> None:
    assert marked("empty", said("", finish="content_filter")) is None
    assert read("empty", marks={"empty": 1.0}) == 1.0
    for broken in ({"disconnected": True}, {"error": "upstream_cut"}, {"status": 502}):
        assert read("empty", marks={"empty": 1.0}, **broken) is None
