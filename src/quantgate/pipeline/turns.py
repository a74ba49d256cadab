"""Several variants ask one baseline at a time, and get what they would get one after the other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantgate.engines import Completion, Engine, Failure
from quantgate.errors import Stopped
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side

if TYPE_CHECKING:
    from quantgate.evaluate.suites import Case


@dataclass
class Turns:
    """The baseline's journal, asked by several variants as it would be by one after the other.

    What is on record anybody may read. Only the first variant that is not finished may ask: which cases stand in a
    batch together is then what it is in a local run, and so are the answers, to the bit.
    """

    base: Side
    parts: int
    finished: set[int] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)
    cause: BaseException | None = None  # what stopped them: the first error, by time

    @contextmanager
    def part(self, place: int) -> Any:
        """The baseline's side for one variant, which is finished when the block ends well."""
        try:
            yield Side(self.base.engine, _AtTurn(self, place))  # type: ignore[arg-type]
        except BaseException as problem:
            self.stop(problem)
            raise
        with self.changed:
            self.finished.add(place)
            self.changed.notify_all()

    def stop(self, cause: BaseException) -> None:
        """Nobody is answered any more."""
        with self.changed:
            self.cause = self.cause or cause
            self.changed.notify_all()

    def may_ask(self, place: int) -> bool:
        return all(before in self.finished for before in range(place))


@dataclass
class _AtTurn:
    """The journal as one variant sees it. See ``answers.Answers``."""

    turns: Turns
    place: int

    @property
    def _answers(self) -> Answers:
        return self.turns.base.answers

    @property
    def held(self) -> dict[str, Completion]:
        return self._answers.held

    def missing(self, cases: Sequence[Case]) -> list[Case]:
        """What this variant may ask for now."""
        with self.turns.changed:
            return self._answers.missing(cases) if self.turns.may_ask(self.place) else []

    def of(self, engine: Engine, cases: Sequence[Case]) -> list[Completion | Failure]:
        turns = self.turns
        with turns.changed:
            turns.changed.wait_for(
                lambda: turns.cause is not None or not self._answers.missing(cases) or turns.may_ask(self.place)
            )
            if turns.cause is not None:
                raise Stopped("stopped, because another variant could not be evaluated")
            if not self._answers.missing(cases):
                return self._answers.known(cases)
        found = self._answers.of(engine, cases)  # nobody else may ask now
        with turns.changed:
            turns.changed.notify_all()
        return found
