"""Progress of a training run: a bar for each stage, with loss, KL on the tune split, speed and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from quantgate.cli._rows import Rows, rows
from quantgate.cli.screen import WIDE, errors

if TYPE_CHECKING:
    from quantgate.train import Row


class TrainingScreen:
    """A ``Tell``, and a place for sentences that stay."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.kl = ""

    def __call__(self, stage: str, done: int, total: int, row: Row | None = None) -> None:
        from quantgate.report.training import STAGES, said

        if stage.startswith(("resumed", "re-used")) or said(stage, done, total):
            self.say(f"{stage} at step {row.step:,}" if row else stage)
            return
        self._rows.show(stage, STAGES.get(stage, stage), done, total, "" if row is None else self._figures(row))

    def say(self, sentence: str) -> None:
        self._rows.say(sentence)

    def _figures(self, row: Row) -> str:
        if row.kl is not None:
            self.kl = f"  KL {row.kl:.3g}"
        if errors.width < WIDE:
            return f"loss {row.loss:.3g}{self.kl}"
        speed = f"  {row.tokens / row.seconds:,.0f} tokens/s" if row.seconds > 0 and row.tokens else ""
        return f"loss {row.loss:.3g}{self.kl}{speed}"


@contextmanager
def training_screen(*, quiet: bool = False) -> Iterator[TrainingScreen]:
    """Progress on stderr while the block runs: bars on a terminal, lines elsewhere."""
    wide = errors.width >= WIDE
    columns = (
        TextColumn("[bold]{task.description:<29}"),
        BarColumn(bar_width=16 if wide else 6),
        MofNCompleteColumn(),
        *((TimeElapsedColumn(), TextColumn("left")) if wide else ()),
        TimeRemainingColumn(compact=not wide, elapsed_when_finished=not wide),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with rows(errors, columns, quiet=quiet, a_second=2) as found:
        yield TrainingScreen(found)
