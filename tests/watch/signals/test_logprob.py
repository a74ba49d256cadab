"""logprob: nats a token, where the client asked for them."""

from __future__ import annotations

import pytest
from tests.watch.signals.made import marked, said

from quantgate.guard.known import mean_logprob


def test_a_mean_that_was_told() -> None:
    assert marked("logprob", said("a", logprob=-0.25)) == -0.25
    assert marked("logprob", said("a")) is None


@pytest.mark.parametrize("told", [float("nan"), float("inf"), float("-inf"), 0.5])
def test_what_is_no_log_probability_is_not_read(told: float) -> None:
    assert marked("logprob", said("a", logprob=told)) is None


def test_the_mean_is_of_the_first_tokens_and_never_is_a_number() -> None:
    def rows(*told: float) -> dict[str, object]:
        return {"content": [{"token": "a", "logprob": one} for one in told]}

    assert mean_logprob(rows(-1.0, -2.0)) == -1.5
    assert mean_logprob(rows(-9999.0)) == -100.0
    assert mean_logprob(rows(*[-1.0] * 512, *[-50.0] * 100)) == -1.0
    assert mean_logprob(None) is mean_logprob({"content": []}) is mean_logprob({"content": "a"}) is None
