"""ttft: seconds until the first piece of a streamed answer left, as the client saw it; by the length of its prompt."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import prompt_band, seconds


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: it was no stream, or nothing of it left."""
    return seconds(exchange.ttft_s) if exchange.stream else None


SIGNAL = Signal(
    name="ttft",
    about="time until the first token of a stream",
    kind="quantity",
    read=read,
    unit="s",
    weight=6.0,
    promotes=False,
    stratum=prompt_band,
)
