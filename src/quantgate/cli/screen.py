"""What commands share on the screen: consoles, progress bars, exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from quantgate.decide import Decision

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

TITLES = {
    ("quantize", "check"): "checking the weights",
    ("quantize", "quantize"): "quantizing all variants in one pass",
    ("quantize", "write"): "writing the artifacts",
}


class Bars:
    """One progress bar per stage, with time left; made when its stage first reports."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, object] = {}

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        title = TITLES.get((stage, note), "asking baseline and variants" if stage == "evaluate" else stage)
        key = f"{stage}/{note}" if stage == "quantize" else stage
        if key not in self.tasks:
            self.tasks[key] = self.progress.add_task(title, total=total, note="")
        shown = note if stage == "evaluate" and done < total else ""
        self.progress.update(self.tasks[key], completed=done, total=total, note=shown)  # type: ignore[arg-type]


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Bars]:
    """Progress bars on stderr while the block runs; in a pipe only their final state is printed."""
    columns = (
        TextColumn("[bold]{task.description:<36}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=errors, disable=quiet, refresh_per_second=4) as progress:
        yield Bars(progress)


def exit_code(decision: Decision) -> int:
    """0 a variant was accepted, 1 all were rejected, 3 none passed and at least one is undecided."""
    if decision.chosen is not None:
        return 0
    return 3 if any(one.verdict == "inconclusive" for one in decision.verdicts) else 1
