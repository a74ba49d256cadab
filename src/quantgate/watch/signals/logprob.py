"""logprob: how sure the variant was of its tokens: the mean of their log probabilities, where a client asked for them.

Either way: quantization makes a model less sure, and a model that loops is very sure of itself.
"""

from __future__ import annotations

import math

from quantgate.watch import Talk
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch.signals._reading import form

NAME = "logprob"


def mark(talk: Talk) -> float | None:
    """Nats a token, at most 0. None: nobody told, or what was told is no such number."""
    told = talk.logprob
    return told if told is not None and math.isfinite(told) and told <= 0 else None


SIGNAL = Signal(
    name=NAME,
    about="mean log probability of an answer's tokens",
    kind="quantity",
    read=of_mark(NAME),
    worse="either",
    unit="nats",
    weight=1.0,
    promotes=False,
    stratum=form,
    mark=mark,
)
