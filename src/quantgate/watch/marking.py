"""At the gateway, beside the path of requests: texts are read once, leave numbers in their Exchange, and are forgotten.

A ``Marker`` stands before the journal. ``put`` appends to a bounded queue; one thread reads the marks of all signals
and the hash of the prompt, takes the text off, and hands the exchange on. So that requests do not wait for it, the
thread rests after each exchange as long as it takes to use at most ``busy`` of a core (a quarter reads about 400 to 600
exchanges a second, with answers of 1,000 characters), reads the two ends of a long text only, and what comes beyond the
queue's room goes on at once without marks. Room is refused to all alike until half of the queue is free again: what is
left out depends on the moment, never on what a variant wrote. What waits here, or for its shadow, is lost with a
process that is killed, as what waits in the journal is.

No word of a text goes anywhere else: what a signal raises is told by its type.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from quantgate.errors import MissingExtra
from quantgate.serve import Exchange, Sink
from quantgate.watch import Talk, signals
from quantgate.watch._pairs import Pairs
from quantgate.watch._talks import cost_of, talk_of
from quantgate.watch.signals import Signal
from quantgate.watch.signals._simhash import prompt_hash

log = logging.getLogger("quantgate.watch")
WAIT_S = 0.02  # that an exchange may wait for others: a thread that wakes for each would disturb the loop
RECENT_S = 600.0  # for which a failure is a warning
SLICE_S = 0.0003  # of reading, after which others get their turn


class Marker:
    """A ``serve.Sink`` before another. Counts: ``marked``, ``unmarked`` for want of room, ``failed`` by signal."""

    def __init__(
        self,
        inner: Sink,
        key: bytes,
        *,
        signals: Sequence[Signal] | None = None,
        keep_text: bool = False,
        queue_items: int = 2048,
        queue_bytes: int = 64 << 20,
        busy: float = 0.25,
        pair_s: float = 120.0,
    ) -> None:
        """``key``: of the hashes of prompts, the same in all replicas; ``signals``: None for all; ``busy``: of a core;
        ``pair_s``: how long an answer and its shadow wait for each other, 0: no pairs are made."""
        found = every() if signals is None else tuple(signals)
        self._inner, self._key, self._keep_text = inner, key, keep_text
        self._marks = [(one.name, one.mark) for one in found if one.mark is not None and one.kind != "pair"]
        pairs = [(one.name, one.mark) for one in found if one.mark is not None and one.kind == "pair"]
        self._pairs = Pairs(pairs, self._read, pair_s) if pairs and pair_s > 0 else None
        self._items, self._bytes, self._busy = queue_items, queue_bytes, busy
        self._queue: deque[tuple[Exchange, int]] = deque()
        self._came = self._went = 0  # bytes; each is written by one thread only
        self._shedding = self._ended = False
        self._held: Exchange | None = None  # that marks are being read from
        self._some, self._end = threading.Event(), threading.Event()
        self.marked = self.unmarked = 0
        self.failed: Counter[str] = Counter()
        self._failed_s = 0.0
        self._owed_s = self._settled_s = 0.0  # rest that is due; work and rest that are accounted for
        self._thread = threading.Thread(target=self._run, name="marks", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> tuple[int, int]:
        """Exchanges and bytes of text in the queue."""
        return len(self._queue), self._came - self._went

    @property
    def trouble(self) -> str | None:
        """Why marks are missing now, in one sentence."""
        if self._shedding:
            return f"more answers come than signals can be read from; {self.unmarked} exchanges went on without marks"
        if self.failed and time.monotonic() - self._failed_s < RECENT_S:
            names = ", ".join(sorted(self.failed))
            return f"signals could not be read from {self.failed.total()} exchanges: {names}; the log tells why"
        return None

    def put(self, exchange: Exchange) -> None:
        """Never waits, never raises. Called by one thread at a time."""
        cost = cost_of(exchange.text) if exchange.text is not None else 0
        if self._ended or not self._room(cost):
            self._without(exchange)
            return
        self._came += cost
        self._queue.append((exchange, cost))
        if not self._some.is_set():
            self._some.set()

    def _room(self, cost: int) -> bool:
        items, held = self.waiting
        if self._shedding:
            self._shedding = items > self._items // 2 or held > self._bytes // 2
        elif items >= self._items or held + cost > self._bytes:
            self._shedding = True
        return not self._shedding

    def _without(self, exchange: Exchange) -> None:
        if exchange.text is not None:
            self.unmarked += 1
        self._hand_on(exchange, {})

    def _hand_on(self, exchange: Exchange, found: Mapping[str, Any]) -> None:
        """To the inner sink, with what was found and without its text."""
        more = dict(found) if self._keep_text or exchange.text is None else {**found, "text": None}
        # a sink never raises; one that does anyway must not end this thread, and loses the exchange by itself
        try:
            self._inner.put(exchange.model_copy(update=more) if more else exchange)
        except Exception as problem:
            self._fails("sink", problem)

    def close(self, *, wait_s: float = 5.0) -> None:
        """What cannot be read within ``wait_s`` is handed on without marks. The inner sink stays open."""
        if self._ended:
            return
        self._ended = True
        self._last_s = time.monotonic() + wait_s
        self._end.set()
        self._some.set()
        self._thread.join(wait_s + 1.0)
        held, self._held = self._held, None
        if held is not None:  # the thread hangs in a signal of somebody else's
            self._without(held)
        while self._queue:
            self._without(self._taken())
        if self._pairs is not None:
            for exchange, found in self._pairs.alone():
                self._hand_on(exchange, found)

    def _taken(self) -> Exchange:
        exchange, cost = self._queue.popleft()
        self._went += cost
        self._held = exchange
        return exchange

    def _run(self) -> None:
        while not self._end.is_set() or self._queue:
            if not self._queue:
                self._some.wait(1.0)
                self._end.wait(WAIT_S)
            self._some.clear()
            while self._queue:
                if self._end.is_set() and time.monotonic() > self._last_s:
                    return
                self._one(self._taken())
            if self._pairs is not None:
                for exchange, found in self._pairs.alone(time.monotonic()):
                    self._hand_on(exchange, found)

    def _one(self, exchange: Exchange) -> None:
        began, settled_s = time.perf_counter(), self._settled_s
        # a text that nobody foresaw costs its marks, and nothing else
        try:
            talk = talk_of(exchange) if exchange.text is not None else None
            found = self._found(exchange, talk) if talk is not None else {}
        except Exception as problem:
            self._fails("text", problem)
            talk, found = None, {}
        if self._held is not exchange:  # ``close`` did not wait for it any longer
            return
        self._held = None
        if talk is not None:
            self.marked += 1
        if talk is None or self._pairs is None:
            self._hand_on(exchange, found)
        else:
            for one, more in self._pairs.add(exchange, talk, found, time.monotonic()):
                self._hand_on(one, more)
        self._rest(time.perf_counter() - began - (self._settled_s - settled_s))

    def _found(self, exchange: Exchange, talk: Talk) -> dict[str, Any]:
        marks, unread = {}, list[str]()
        began = time.perf_counter()
        for name, mark in self._marks:
            value = self._read(name, mark, talk, unread)
            if value is not None:
                marks[name] = value
            if (took_s := time.perf_counter() - began) > SLICE_S:
                self._rest(took_s)
                began = time.perf_counter()
        found: dict[str, Any] = {"marks": {**exchange.marks, **marks}, "unread": (*exchange.unread, *unread)}
        if exchange.told_session and not exchange.shadow:  # others are never held against an earlier prompt
            found["prompt_hash"] = self._hash(talk)
        return found

    def _hash(self, talk: Talk) -> int | None:
        try:
            return prompt_hash(talk, self._key)
        except Exception as problem:
            self._fails("prompt_hash", problem)
            return None

    def _read(self, name: str, mark: Any, talk: Talk, unread: list[str]) -> float | None:
        """A finite number, or None; ``unread`` gets the name of a mark that failed."""
        try:
            value = mark(talk)
            if value is None:
                return None
            if not math.isfinite(value):
                raise ValueError
            return float(value)
        except Exception as problem:
            self._fails(name, problem)
            unread.append(name)
            return None

    def _fails(self, name: str, problem: Exception) -> None:
        """Counted each time, told once; by the type alone: its words may hold words of the text."""
        self.failed[name] += 1
        self._failed_s = time.monotonic()
        if self.failed[name] == 1:
            told = type(problem).__name__
            log.warning("%s could not be read from an exchange (%s); it goes on without, and is counted", name, told)

    def _rest(self, took_s: float) -> None:
        """For so much work; what it rested too long, waking late, is taken off the next rest."""
        self._owed_s = min(self._owed_s + took_s * (1 / self._busy - 1), 0.25)
        began = time.perf_counter()
        if self._owed_s > 0 and not self._end.is_set():
            self._end.wait(self._owed_s)
        waited_s = time.perf_counter() - began
        self._owed_s = max(self._owed_s - waited_s, -SLICE_S)
        self._settled_s += took_s + waited_s


def every() -> tuple[Signal, ...]:
    """All that this machine can read; one whose package is not installed is left out."""
    found = []
    for name in signals.names():
        try:
            found.append(signals.get(name))
        except MissingExtra as missing:
            log.warning("%s", missing)
    return tuple(found)
