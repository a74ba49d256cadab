"""Signals: numbers read from an exchange, one file each; the file's last line is ``SIGNAL = Signal(...)``.

``mark`` reads a text, at the gateway, off the path of the request; its number goes into ``Exchange.marks`` under the
signal's name, and the text goes nowhere. ``read`` reads an exchange, and what its session did before, at the watch.

An *event* is 1.0 (bad), 0.0 (not bad) or None (does not apply here: it is then counted on neither side). A *quantity*
is a number in ``unit``; it is held against the quantiles of what it is compared with, within its stratum. A *graded*
signal lies in [0, 1], and 1 is bad. Nothing may depend on the side that an exchange is on: a signal never sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from quantgate import plugins
from quantgate.serve import Exchange
from quantgate.watch import Talk

Read = Callable[[Exchange, Sequence[Exchange]], float | None]
"""An exchange, and those of its session before it (at most 8, of the last ten minutes, the oldest first)."""
ALL = ""


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    about: str  # what it counts, for people: "answers that broke their schema"
    kind: Literal["event", "quantity", "graded", "pair"]  # pair: of a prompt that both sides answered (shadow)
    read: Read
    worse: Literal["more", "less", "either"] = "more"
    unit: str = ""  # of a quantity: s, tokens, nats
    each: Literal["session", "request"] = "session"  # what is counted once
    weight: float = 1.0  # of the error rate, beside the other signals; all that ship add up to about 100
    margin: float = 1.25  # ratio of risks that a promotion must exclude
    floor: float = 0.005  # a rate of the trial so low that a promotion asks no more
    promotes: bool = True  # whether a promotion waits for it
    stratum: Callable[[Exchange], str] = lambda _exchange: ALL
    mark: Callable[[Talk], float | None] | None = None


def of_mark(name: str) -> Read:
    """``read`` of a signal that is all in its mark."""
    return lambda exchange, _before: exchange.marks.get(name)


def names() -> tuple[str, ...]:
    return plugins.names("signals")


def get(name: str) -> Signal:
    """Raises UnknownName with the nearest one."""
    found: Signal = plugins.get("signals", name)
    return found
