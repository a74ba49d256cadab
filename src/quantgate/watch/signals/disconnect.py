"""disconnect: the client left before its answer was whole. Weak: people leave for many reasons, slowness is one."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    return float(exchange.disconnected)


SIGNAL = Signal(
    name="disconnect",
    about="answers whose client left before they were whole",
    kind="event",
    read=read,
    weight=0.5,
    promotes=False,
)
