"""cut_off: answers that ended because their tokens were used up, and not because all was said."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import whole


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: no answer left, or nobody told why it ended. A cut answer that the guard refused counts as well."""
    if "cut" in exchange.faults:
        return 1.0
    return float(exchange.finish == "length") if whole(exchange) and exchange.finish else None


SIGNAL = Signal(
    name="cut_off",
    about="answers that ended in mid-sentence, at the limit of their tokens",
    kind="event",
    read=read,
    weight=1.0,
)
