"""per_token: seconds from one token of an answer to the next, while the variant wrote it; by both lengths.

It is the time of the stage ``decode``, which holds no waiting for a slow client, over the tokens behind the first.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import both_bands, own, seconds

LEAST = 8  # tokens: of fewer, the time is that of the network


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: the stage or the tokens are not known, or more than one answer was asked for."""
    took_s, tokens = seconds(exchange.stages.get("decode")), exchange.answer_tokens
    if took_s is None or tokens is None or tokens < LEAST or not own(exchange):
        return None
    return took_s / (tokens - 1)


SIGNAL = Signal(
    name="per_token",
    about="time from one token to the next",
    kind="quantity",
    read=read,
    unit="s",
    weight=6.0,
    promotes=False,
    stratum=both_bands,
)
