"""An answer that left and the shadow's to the same prompt: they come in either order, and one of them may never come.

Each waits for the other, for a time and within bounds; the marks of a pair go onto the shadow's exchange. Who waits is
no more than the texts of an answer and of the last turns before it; an exchange that left is handed on at once, a
shadow's when its pair is made or its time is over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from quantgate.serve import Exchange
from quantgate.watch import Talk
from quantgate.watch._talks import HEAD, size_of
from quantgate.watch.signals._reading import whole

Read = Callable[[str, Any, Talk, list[str]], float | None]
"""A mark by its name, of a talk; the list gets the name where it failed."""
Found = dict[str, Any]
MOST = 2048  # of each that wait
MOST_CHARS = 16 << 20  # of answers that wait for their shadows


class Pairs:
    """In one thread."""

    def __init__(self, marks: Sequence[tuple[str, Any]], read: Read, wait_s: float) -> None:
        self._marks, self._read, self._wait_s = marks, read, wait_s
        self._left: OrderedDict[str, tuple[float, Talk, int]] = OrderedDict()
        self._shadows: OrderedDict[str, tuple[float, Talk, Exchange, Found]] = OrderedDict()
        self._chars = 0
        self.made = 0

    def add(self, exchange: Exchange, talk: Talk, found: Found, now: float) -> Iterator[tuple[Exchange, Found]]:
        """What may be handed on now."""
        if exchange.shadow:
            yield from self._shadow(exchange, talk, found, now)
            return
        yield exchange, found
        if not (whole(exchange) or talk.faulty):
            talk = replace(talk, answers=())  # of an answer that was broken off nobody knows what it would have been
        waiting = self._shadows.pop(exchange.id, None)
        if waiting is not None:
            _, shadow, held, before = waiting
            yield held, self._paired(talk, shadow, before)
            return
        self._keep(exchange.id, talk, now)

    def _shadow(self, exchange: Exchange, talk: Talk, found: Found, now: float) -> Iterator[tuple[Exchange, Found]]:
        left = self._left.pop(exchange.id, None)
        if left is not None:
            self._chars -= left[2]
            yield exchange, self._paired(left[1], talk, found)
            return
        if exchange.id in self._shadows:  # told twice
            yield self._shadows.pop(exchange.id)[2:]
        if len(self._shadows) >= MOST:
            yield self._shadows.popitem(last=False)[1][2:]
        self._shadows[exchange.id] = (now, talk, exchange, found)

    def alone(self, now: float | None = None) -> Iterator[tuple[Exchange, Found]]:
        """Shadows whose time is over; all of them where ``now`` is None."""
        while self._shadows and (now is None or next(iter(self._shadows.values()))[0] + self._wait_s <= now):
            yield self._shadows.popitem(last=False)[1][2:]
        while self._left and (now is None or next(iter(self._left.values()))[0] + self._wait_s <= now):
            self._drop()

    def _paired(self, talk: Talk, shadow: Talk, found: Found) -> Found:
        together = replace(talk, shadow=replace(shadow, tools=talk.tools))  # one prompt, one offer
        unread = list[str]()
        read = {name: self._read(name, mark, together, unread) for name, mark in self._marks}
        self.made += 1
        marks: Mapping[str, float] = found.get("marks", {})
        told = {name: value for name, value in read.items() if value is not None}
        return {**found, "marks": {**marks, **told}, "unread": (*found.get("unread", ()), *unread)}

    def _keep(self, id: str, talk: Talk, now: float) -> None:
        """Of a prompt, the last two turns: what was asked, and what it answered to."""
        talk = replace(talk, prompt=talk.prompt[-2:])
        chars = HEAD + sum(size_of(one) for one in (*talk.prompt, *talk.answers))
        if id in self._left:
            self._chars -= self._left.pop(id)[2]
        self._left[id] = (now, talk, chars)
        self._chars += chars
        while len(self._left) > MOST or (self._chars > MOST_CHARS and self._left):
            self._drop()

    def _drop(self) -> None:
        _, (_, _, chars) = self._left.popitem(last=False)
        self._chars -= chars
