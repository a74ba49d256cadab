"""tool_calls: only where a call was possible."""

from __future__ import annotations

from tests.watch.signals.made import calling, marked, said, signal


def test_calls_of_offered_tools() -> None:
    assert marked("tool_calls", said(calling(), tools=True)) == 1.0
    assert marked("tool_calls", said("The train leaves at noon.", tools=True)) == 0.0
    assert marked("tool_calls", said("At noon.", calling(), tools=True)) == 1.0
    assert marked("tool_calls", said(calling())) is None
    assert marked("tool_calls", said(tools=True)) is None
    assert marked("tool_calls", said({"content": "a", "tool_calls": "none"}, tools=True)) == 0.0
    assert signal("tool_calls").worse == "either"
