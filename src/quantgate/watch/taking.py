"""What is taken from an exchange: each signal's value, once a session, for the processes of that signal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantgate.serve import Exchange
from quantgate.stats.attribution import Counts
from quantgate.watch.processes import Process, Rule
from quantgate.watch.signals import Signal
from quantgate.watch.standing import Uncounted
from quantgate.watch.units import Filter, Seen, key_of, mixed

BAD_BITS = 1 << 17


@dataclass(frozen=True, slots=True)
class Reading:
    """A signal, its bit among those counted of a session, and its one or two processes."""

    signal: Signal
    bit: int
    salt: int
    processes: tuple[Process, ...]


class Taking:
    """The processes of one trial, and the sessions that were counted in them. It begins with nothing."""

    def __init__(self, rules: Sequence[Rule], order: Sequence[str], uncounted: Uncounted) -> None:
        """``order``: names of signals, by the bit of each; ``uncounted`` is counted up."""
        self.uncounted = uncounted
        self.processes = tuple(Process(one) for one in rules)
        by_name: dict[str, list[Process]] = {}
        for one in self.processes:
            by_name.setdefault(one.rule.signal.name, []).append(one)
        self._readings = [
            Reading(own[0].rule.signal, 1 << order.index(name), key_of(name), tuple(own))
            for name, own in by_name.items()
        ]
        self.again()

    def again(self) -> None:
        """Sessions may count once more: evidence of before is kept apart, or gone."""
        self.seen, self.bad = Seen(), Filter(BAD_BITS)
        self.drawn: Counts = {}

    def exchange(self, exchange: Exchange, before: Sequence[Exchange], ours: bool) -> bool:
        """Whether its session is new."""
        key = key_of(exchange.session) if exchange.told_session else None
        new, mask = (True, 0) if key is None else self.seen.meet(key)
        if new:
            row = self.drawn.setdefault(exchange.odds, [0, 0])
            row[0] += 1
            row[1] += ours
        counted = mask
        for one in self._readings:
            if one.signal.kind == "pair":
                continue
            value = self.read(one.signal, exchange, before)
            if value is None:
                continue
            first = key is None or one.signal.each == "request" or not mask & one.bit
            counted |= one.bit
            self._take(one, exchange, value, ours, first, key)
        if key is not None and counted != mask:
            self.seen.counted(key, counted)
        return new

    def _take(self, one: Reading, exchange: Exchange, value: float, ours: bool, first: bool, key: int | None) -> None:
        if one.signal.kind == "event":
            if first:
                for process in one.processes:
                    process.unit(ours)
            if value and self._first_bad(one, key):
                for process in one.processes:
                    process.bad(ours, exchange.odds, exchange.id)
        elif first:
            stratum = one.signal.stratum(exchange) if one.signal.kind == "quantity" else ""
            for process in one.processes:
                process.value(ours, exchange.odds, value, stratum, exchange.id)

    def copy(self, exchange: Exchange) -> None:
        """A copy (shadow) of a prompt: for signals that hold two answers to one prompt against each other."""
        key = key_of(exchange.session) if exchange.told_session else None
        for one in self._readings:
            if one.signal.kind != "pair":
                continue
            value = self.read(one.signal, exchange, ())
            if value is not None and self._first_bad(one, key):
                for process in one.processes:
                    process.pair(value == 1.0, exchange.id)

    def _first_bad(self, one: Reading, key: int | None) -> bool:
        return key is None or one.signal.each == "request" or self.bad.add(mixed(key, one.salt))

    def read(self, signal: Signal, exchange: Exchange, before: Sequence[Exchange]) -> float | None:
        """What a signal reads; None too for what it may not be. A signal that fails is counted, and stops nothing."""
        if signal.name in exchange.unread:
            self._broken(signal)
            return None
        try:
            value = signal.read(exchange, before)
        except (
            Exception
        ):  # a plug-in's own mistake: that one signal is silent here, and no promotion goes on without it
            self._broken(signal)
            return None
        if value is None:
            return None
        sound = math.isfinite(value) if signal.kind == "quantity" else 0.0 <= value <= 1.0
        if not sound or (signal.kind in ("event", "pair") and value not in (0.0, 1.0)):
            self.uncounted.odd += 1
            self._broken(signal)
            return None
        return value

    def _broken(self, signal: Signal) -> None:
        self.uncounted.broken[signal.name] = self.uncounted.broken.get(signal.name, 0) + 1
