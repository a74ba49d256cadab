"""guard_failure: free text that the guard refused: a validator of the route, or an answer that is no message."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: more than free text was asked for, or no guard saw an answer."""
    if exchange.structured or not (exchange.step or exchange.faults):
        return None
    return float(bool(exchange.faults) or exchange.step in ("repaired", "corrected", "escalated", "failed"))


SIGNAL = Signal(
    name="guard_failure",
    about="answers in free text that a validator refused, also those that were mended",
    kind="event",
    read=read,
    weight=4.0,
)
