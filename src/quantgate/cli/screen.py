"""What commands share on the screen: consoles, progress bars, exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from quantgate.cli._rows import Rows, rows

if TYPE_CHECKING:
    from quantgate.decide import Decision
    from quantgate.decide.targets import TargetDecision


WIDE = 110  # characters that a clock fits into as well
SHORTEST = 16  # characters of a note that is worth its place

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

TITLES = {
    ("quantize", "check"): "checking the weights",
    ("quantize", "quantize"): "quantizing all variants in one pass",
    ("quantize", "write"): "writing the artifacts",
    ("evaluate", ""): "asking baseline and variants",
    ("train", ""): "training",
}
NOTED = {"evaluate": False, "train": True}  # stages that say what they are at; True: at their end too


class Bars:
    """A pipeline's progress: one row per stage, made when it first reports."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        title = TITLES.get((stage, note)) or TITLES.get((stage, ""), stage)
        key = f"{stage}/{note}" if stage == "quantize" else stage
        noted = stage in NOTED and (done < total or NOTED[stage])
        self._rows.show(key, title, done, total, note if noted else "")


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Bars]:
    """Progress on stderr while the block runs: bars on a terminal, lines elsewhere."""
    with rows(errors, _columns(errors.width), quiet=quiet, a_second=4) as found:
        yield Bars(found)


def _columns(width: int) -> list[ProgressColumn]:
    """What fits beside each other uncut: title, bar, count and time left first; then the clock; then notes."""
    wide = width >= WIDE
    bar = 28 if width >= WIDE + 40 else 12
    shown: list[ProgressColumn] = [
        TextColumn("[bold]{task.description:<36}"),
        BarColumn(bar_width=bar),
        MofNCompleteColumn(),
        *((TimeElapsedColumn(), TextColumn("left")) if wide else ()),
        TimeRemainingColumn(compact=not wide, elapsed_when_finished=not wide),
    ]
    room = width - bar - (70 if wide else 55)
    if room >= SHORTEST:
        note = Column(no_wrap=True, overflow="ellipsis", max_width=room)
        shown.append(TextColumn("[dim]{task.fields[note]}", table_column=note))
    return shown


def exit_code(decision: Decision, targets: Sequence[TargetDecision] = ()) -> int:
    """0 a variant was accepted, for every target if there are any; 1 all were rejected; 3 otherwise.

    Of several targets a rejected one counts before an undecided one.
    """
    codes = [_code(one.chosen, [row.verdict for row in one.verdicts]) for one in targets or (decision,)]
    return 1 if 1 in codes else max(codes)


def _code(chosen: str | None, verdicts: Sequence[str]) -> int:
    if chosen is not None:
        return 0
    return 3 if "inconclusive" in verdicts else 1
