"""What the pages know of a gateway and its watch, asked for once however many look, and without failing a page.

A database that is away costs a page one sentence, not the page.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from quantgate.errors import QuantgateError
from quantgate.release import Live
from quantgate.release.history import Move
from quantgate.serve import Exchange
from quantgate.serve.exchanges import Reader
from quantgate.watch import Alarm, Point, Standings, Verdict
from quantgate.watch.dashboard.latency import Latency, latency_of, newest

if TYPE_CHECKING:
    from quantgate.serve.open import Parts

T = TypeVar("T")
N = TypeVar("N")
FRESH_S = 0.5  # that an answer of a database serves all who look
SLOW_S = 5.0  # of what is dear to read
KEPT = 200  # answers
MOVES = 100
ALARMS = 50


@dataclass(frozen=True, slots=True)
class Now:
    """Everything that the first screen is made of."""

    live: Live | None
    verdict: Verdict | None
    alarms: tuple[Alarm, ...]
    moves: tuple[Move, ...]
    behind_s: float | None
    troubles: tuple[str, ...]


class Known:
    def __init__(
        self, parts: Parts, standings: Standings, reader: Reader, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.parts, self.standings, self.reader = parts, standings, reader
        self._clock = clock
        self._memo: dict[Any, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    @property
    def target(self) -> str:
        return self.parts.config.target

    @property
    def live(self) -> Live | None:
        return self.parts.live

    def now(self) -> Now:
        return self.memo("now", FRESH_S, self._now)

    def _now(self) -> Now:
        troubles: list[str] = []
        target, told = self.target, self.standings
        verdict = tried(troubles, "the verdict", lambda: told.verdict(target), None)
        alarms = tried(troubles, "alarms", lambda: told.alarms(target, limit=ALARMS), ())
        behind_s = tried(troubles, "the evidence", lambda: told.behind_s(target), None)
        moves = tried(troubles, "the history", self.moves, ())
        warnings = [*troubles, *self.parts.warnings()]
        return Now(self.live, verdict, tuple(alarms), tuple(moves), behind_s, tuple(dict.fromkeys(warnings)))

    def moves(self) -> Sequence[Move]:
        """The latest first; none where serve.yaml says what is live. Raises ReleaseError."""
        registry = self.parts.registry
        return () if registry is None else registry.get().history(self.target, limit=MOVES)

    def points(self, verdict: Verdict, signal: str, direction: str) -> list[Point]:
        """Of one process. Raises QuantgateError."""
        found: Sequence[Point] = self.memo(
            ("points", verdict.trial.digest, signal),
            FRESH_S,
            lambda: self.standings.points(verdict.trial.digest, signal=signal),
        )
        return [one for one in found if one.direction == direction]

    def exchanges(self, ids: Sequence[str]) -> list[Exchange]:
        """Raises QuantgateError."""
        return self.reader.get(ids)

    def latency(self) -> Latency:
        """Raises QuantgateError."""
        return self.memo("latency", SLOW_S, lambda: latency_of(newest(self.reader, self.target)))

    def memo(self, key: Any, fresh_s: float, make: Callable[[], T]) -> T:
        """One answer for all that ask within ``fresh_s``; two that ask at once may both make it."""
        with self._lock:
            found = self._memo.get(key)
        if found is not None and self._clock() - found[0] < fresh_s:
            value: T = found[1]
            return value
        made = make()
        with self._lock:
            if len(self._memo) >= KEPT:
                self._memo.clear()
            self._memo[key] = (self._clock(), made)
        return made

    def forget(self) -> None:
        """After a move: what is shown next is asked for anew."""
        with self._lock:
            self._memo.clear()


def tried(troubles: list[str], what: str, ask: Callable[[], T], nothing: N) -> T | N:
    """``nothing``, and a sentence more among the troubles, where it cannot be asked."""
    try:
        return ask()
    except QuantgateError as problem:
        troubles.append(f"{what} cannot be read now: {problem}")
        return nothing
