"""The decisions of targets in the terminal: what each target gets, and one line for every variant."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from quantgate.report import RunReport
from quantgate.report.tables import MARKS, megabytes, plain_table
from quantgate.report.target_facts import money


def show_decisions(report: RunReport, console: Console) -> None:
    """A table of targets, then each with its sentence and its variants; nothing where a release has none."""
    if not report.targets:
        return
    table = plain_table("target", ("gets",), "left")
    for name in ("MB", "cost per 1M"):
        table.add_column(name, justify="right")
    table.add_column("on")
    for one in report.targets:
        found = one.of(one.chosen) if one.chosen else None
        table.add_row(
            Text(one.target, style="bold"),
            Text(one.chosen or "baseline", style="bold green" if one.chosen else "bold yellow"),
            megabytes(found.stored_bytes if found else report.baseline_bytes),
            "-" if found is None or found.cost is None else money(found.cost),
            Text(f"{one.rules.place.hardware}, {one.rules.place.runtime}"),
        )
    console.print(table)
    for one in report.targets:
        console.print(Text(one.sentence, style="bold green" if one.chosen else "bold yellow"))
        for verdict in one.verdicts:
            mark, style = MARKS[verdict.verdict]
            name = ("> " if verdict.variant == one.chosen else "  ") + verdict.variant
            console.print(Text.assemble((f"  {mark:<5}", style), (f"{name}: ", "bold"), verdict.sentence))
