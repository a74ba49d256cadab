"""output_length: tokens of an answer. Either way: a damaged variant rambles, or it gives up early."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import form, own, prompt_band


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: nobody counted, or the count is not of one answer of the variant's own."""
    if not own(exchange) or exchange.answer_tokens is None:
        return None
    return float(exchange.answer_tokens)


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
