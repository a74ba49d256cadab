"""validation_failure: structured answers that the guard refused at first, also where it mended them.

What the client got does not count here: an answer that was repaired, asked for again or taken from the baseline is one
that the variant got wrong, and the repairs would hide just the damage that this looks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import refused


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: nothing but free text was asked for, or no guard saw an answer."""
    return None if not exchange.structured else refused(exchange)


SIGNAL = Signal(
    name="validation_failure",
    about="answers that broke their schema or their tools, also those that were mended",
    kind="event",
    read=read,
    weight=40.0,
)
