"""empty: an answer that ended by itself and holds nothing: no word, no tool call, no refusal."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch import Talk
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import silent, whole

NAME = "empty"


def mark(talk: Talk) -> float | None:
    """None: there is no answer, or a filter took its words."""
    if not talk.answers or talk.finish == "content_filter":
        return None
    return float(any(silent(one) for one in talk.answers))


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None also for an answer that was broken off: nobody knows what would have come."""
    return exchange.marks.get(NAME) if whole(exchange) else None


SIGNAL = Signal(
    name=NAME,
    about="answers without a word",
    kind="event",
    read=read,
    weight=1.5,
    mark=mark,
)
