"""tool_calls: of the requests that offer tools, those whose answer calls one. Either way: too eager, or too shy."""

from __future__ import annotations

from quantgate.watch import Talk
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch.signals._reading import calls_of

NAME = "tool_calls"


def mark(talk: Talk) -> float | None:
    """None: no tool was offered, or there is no answer."""
    if not talk.tools or not talk.answers:
        return None
    return float(any(calls_of(one) for one in talk.answers))


SIGNAL = Signal(
    name=NAME,
    about="answers that call a tool, where tools are offered",
    kind="event",
    read=of_mark(NAME),
    worse="either",
    weight=1.0,
    promotes=False,
    mark=mark,
)
