"""Where progress goes: bars on a terminal, a line now and then in a pipe or a log, nothing where none is wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import TaskID

EVERY_S = 30.0  # between two lines of a stage that goes on


class Rows(Protocol):
    def show(self, key: str, title: str, done: int, total: int, note: str = "") -> None:
        """One stage, by its ``key``: how much of how much is done."""
        ...

    def say(self, sentence: str) -> None:
        """A sentence that stays."""
        ...


@contextmanager
def rows(console: Console, columns: Sequence[ProgressColumn], *, quiet: bool, a_second: float) -> Iterator[Rows]:
    """``columns`` are drawn ``a_second`` times a second; ``note`` is a field of their tasks."""
    if quiet or console.is_terminal:
        with Progress(*columns, console=console, disable=quiet, refresh_per_second=a_second) as progress:
            yield Drawn(progress)
        return
    printed = Printed(lambda line: console.print(Text(line), soft_wrap=True))
    try:
        yield printed
    finally:
        printed.close()


class Drawn:
    """Bars, one for each stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks = dict[str, "TaskID"]()

    def show(self, key: str, title: str, done: int, total: int, note: str = "") -> None:
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(title, total=total, note="")
        self._progress.update(self._tasks[key], completed=done, total=total, note=note)

    def say(self, sentence: str) -> None:
        if not self._progress.disable:
            self._progress.console.print(Text(sentence), soft_wrap=True)


@dataclass
class _Stage:
    title: str
    began: float
    first: int  # what was done already when it began: another run's work
    done: int = 0
    total: int = 0
    note: str = ""
    told: tuple[int, int] | None = None  # what its last line said


class Printed:
    """Lines: one when a stage ends, every ``EVERY_S`` seconds while it goes on, and where it stood at the end."""

    def __init__(self, out: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._stages = dict[str, _Stage]()
        self._last = clock()

    def show(self, key: str, title: str, done: int, total: int, note: str = "") -> None:
        stage = self._stages.get(key)
        if stage is None or done < stage.done or total != stage.total:  # the same stage of another variant
            stage = self._stages[key] = _Stage(title, self._clock(), done)
        stage.done, stage.total, stage.note = done, total, note
        if done >= total or self._clock() - self._last >= EVERY_S:
            self._tell(stage)

    def say(self, sentence: str) -> None:
        self._out(sentence)

    def close(self) -> None:
        for stage in self._stages.values():
            self._tell(stage)

    def _tell(self, stage: _Stage) -> None:
        from quantgate.report.training import told_seconds

        if stage.told == (stage.done, stage.total):
            return
        stage.told, self._last = (stage.done, stage.total), self._clock()
        spent = self._clock() - stage.began
        said = [f"{stage.title} {stage.done:,}/{stage.total:,}", *([told_seconds(spent)] if spent >= 1 else [])]
        if stage.first < stage.done < stage.total:
            left = spent / (stage.done - stage.first) * (stage.total - stage.done)
            said.append(f"about {told_seconds(left)} left")
        self._out("; ".join([*said, *([stage.note.strip()] if stage.note else [])]))
