"""repair: answers that left only because a repair that costs no token mended them: a fence, a comma, a bracket.

They count as ``validation_failure`` as well; apart, they tell a variant that forgets its form from one that loses its
sense.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: no guard saw an answer, or there was nothing to keep."""
    if not exchange.structured or not (exchange.step or exchange.faults):
        return None
    return float(bool(exchange.repairs))


SIGNAL = Signal(
    name="repair",
    about="answers whose JSON had to be repaired",
    kind="event",
    read=read,
    weight=0.5,
    promotes=False,
)
