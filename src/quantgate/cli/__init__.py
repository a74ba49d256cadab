"""The commands, one file each: parse, call one function, print, exit.

Exit codes: 0 accepted, 1 rejected, 2 wrong usage, 3 inconclusive, 4 could not run, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from quantgate.cli import (
    calibrate,
    card,
    compare,
    decide,
    demo,
    doctor,
    drift,
    export,
    init,
    inspect,
    keys,
    loadtest,
    overlap,
    plan,
    promote,
    quantize,
    register,
    releases,
    repair,
    report,
    rollback,
    run,
    serve,
    sign,
    track,
    train,
    verify,
    watch,
)
from quantgate.cli.screen import errors
from quantgate.errors import QuantgateError

app = typer.Typer(
    name="quantgate",
    help="Make a language model smaller, and prove that nothing your product needs was lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("plan")(plan.plan)
app.command("run")(run.run)
app.command("calibrate")(calibrate.calibrate)
app.command("compare")(compare.compare)
app.command("decide")(decide.decide)
app.command("drift")(drift.drift)
app.command("loadtest")(loadtest.loadtest)
app.command("quantize")(quantize.quantize)
app.command("export")(export.export)
app.command("repair")(repair.repair)
app.command("inspect")(inspect.inspect)
app.command("overlap")(overlap.overlap)
app.command("report")(report.report)
app.command("init")(init.init)
app.command("register")(register.register)
app.command("promote")(promote.promote)
app.command("ramp")(promote.ramp)
app.command("hold")(promote.hold)
app.command("rollback")(rollback.rollback)
app.command("releases")(releases.releases)
app.add_typer(releases.registry_app, name="registry")
app.command("card")(card.card)
app.command("sign")(sign.sign)
app.command("verify")(verify.verify)
app.command("track")(track.track)
app.command("serve")(serve.serve)
app.command("watch")(watch.watch)
app.add_typer(keys.app, name="keys")
app.add_typer(train.app, name="train")


@app.callback(invoke_without_command=True)
def about(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and exit.")
) -> None:
    """Make a language model smaller, and prove that nothing your product needs was lost."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"quantgate {installed('quantgate')}")
        raise typer.Exit


def main() -> None:
    """The command ``quantgate``: an error a user can meet is one sentence on stderr and an exit code."""
    try:
        app()
    except QuantgateError as problem:
        errors.print(f"[bold red]quantgate:[/] {_escaped(str(problem))}", soft_wrap=True)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        errors.print("[bold red]quantgate:[/] stopped")
        sys.exit(130)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
