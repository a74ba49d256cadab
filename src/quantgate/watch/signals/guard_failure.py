"""guard_failure: free text that the guard refused: a validator of the route, or an answer that is no message."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import refused


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: more than free text was asked for, or no guard saw an answer."""
    return None if exchange.structured else refused(exchange)


SIGNAL = Signal(
    name="guard_failure",
    about="answers in free text that a validator refused, also those that were mended",
    kind="event",
    read=read,
    weight=4.0,
)
