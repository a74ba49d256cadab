"""cut_off: the tokens were used up; an answer that was broken off in another way is none of its business."""

from __future__ import annotations

from tests.watch.signals.made import read


def test_cut_at_the_limit_of_tokens() -> None:
    assert [read("cut_off", finish=one) for one in ("length", "stop", "tool_calls", "")] == [1.0, 0.0, 0.0, None]
    assert read("cut_off", finish="", status=422, error="invalid_answer", step="failed", faults=("cut",)) == 1.0
    assert read("cut_off", finish="stop", step="corrected", faults=("cut",)) == 1.0
    assert read("cut_off", finish="length", disconnected=True) is None
