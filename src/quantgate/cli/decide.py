"""``quantgate decide``: the decision of a finished run again, with load tests that came later; why a variant or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.screen import console, exit_code


def decide(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")] = Path("runs/release"),
    why: Annotated[
        str | None, typer.Option("--why", help="Explain this variant: every rule, answers it lost, what it would take.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Only this target; repeatable, or with commas.")
    ] = None,
    load: Annotated[
        list[str] | None,
        typer.Option(
            "--load",
            help="A load test that was made where it will run, TARGET:VARIANT=path/load.json; repeatable. The decision "
            "and the pages are made again with it.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print records instead of sentences.")] = False,
) -> None:
    """Show which variant every target gets, explain any of them, and hear load tests that came later.

    Exits with 0 when every target has a variant, 1 when one rejects all, 3 when one is undecided.
    """
    from quantgate.pipeline import deciding, write_reports
    from quantgate.records import canonical
    from quantgate.report import RunReport
    from quantgate.report.terminal import show
    from quantgate.report.why import show_why

    report = RunReport.load(run / "report.json")
    if load:
        report = deciding.with_loads(report, load)
        write_reports(report, run)
    report = deciding.only(report, [one for name in target or () for one in name.split(",")])
    if why is not None:
        found = deciding.why(report, why)
        if as_json:
            typer.echo(canonical([one.body() for one in found]).decode())
        else:
            show_why(found, console)
    elif as_json:
        decisions = report.targets or (report.decision,)
        typer.echo(canonical([one.body() for one in decisions]).decode())
    else:
        show(report, console)
    raise typer.Exit(exit_code(report.decision, report.targets))
