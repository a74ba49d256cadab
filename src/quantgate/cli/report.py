"""``quantgate report``: make the pages of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.screen import console, exit_code


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")] = Path("runs/release"),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> None:
    """Show a finished run again and rewrite its report.html and junit.xml; exits like the run did."""
    from quantgate import pipeline
    from quantgate.report import RunReport
    from quantgate.report.terminal import show

    found = RunReport.load(run / "report.json")
    if as_json:
        typer.echo((run / "report.json").read_text(encoding="utf-8"), nl=False)
    else:
        pipeline.write_reports(found, run)
        show(found, console)
        console.print(f"report: [bold]{run / 'report.html'}[/]")
    raise typer.Exit(exit_code(found.decision, found.targets))
