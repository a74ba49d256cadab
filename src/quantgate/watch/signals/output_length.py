"""output_length: tokens of an answer. Either way: a damaged variant rambles, or it gives up early."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import form, own, prompt_band

MOST = 2**31  # tokens; more are none


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: nobody counted, or the count is not of one answer of the variant's own."""
    tokens = exchange.answer_tokens
    return float(tokens) if own(exchange) and tokens is not None and 0 <= tokens < MOST else None


SIGNAL = Signal(
    name="output_length",
    about="tokens of an answer",
    kind="quantity",
    read=read,
    worse="either",
    unit="tokens",
    weight=1.0,
    promotes=False,
    stratum=lambda exchange: f"{form(exchange)} {prompt_band(exchange)}",
)
