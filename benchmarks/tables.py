"""Tables of the benchmarks: on the terminal, and as a section of docs/BENCHMARKS.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import table

from benchmarks.result import Result


@dataclass(frozen=True)
class Table:
    """Rows under named columns. ``title`` and ``notes`` stand above and below; every row has a cell per column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of '{self.title}' has {len(row)} cells, it has {len(self.columns)} columns")

    def shown(self) -> table.Table:
        made = table.Table(*self.columns, title=self.title or None, title_justify="left")
        for row in self.rows:
            made.add_row(*row)
        return made

    def markdown(self) -> list[str]:
        """Lines. A ``|`` in a cell would open another column, so it is escaped; line ends become spaces."""
        head = [f"### {self.title}", ""] if self.title else []
        lines = [_line(self.columns), "|" + "---|" * len(self.columns), *map(_line, self.rows)]
        return [*head, *lines, *(text for note in self.notes for text in ("", note))]


def of_results(results: Sequence[Result]) -> Table:
    rows = tuple((row.what, row.measured, row.target, row.verdict) for row in results)
    return Table(("what", "measured", "target", ""), rows)


def section(day: str, command: str, tables: Sequence[Table]) -> str:
    """One dated section of the page, from the empty line before its heading to its last line end."""
    parts = ["\n".join(one.markdown()) for one in tables]
    return f"\n## {day}, `{command}`\n\n" + "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
