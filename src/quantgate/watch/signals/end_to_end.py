"""end_to_end: seconds from the request to the end of its answer, as the client saw it; by both lengths.

Answers that were asked for again, or taken from the baseline, have their whole time: it is what the variant cost.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import both_bands, seconds, whole


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: no answer left whole."""
    return seconds(exchange.total_s) if whole(exchange) else None


SIGNAL = Signal(
    name="end_to_end",
    about="time until an answer was whole",
    kind="quantity",
    read=read,
    unit="s",
    weight=8.0,
    stratum=both_bands,
)
