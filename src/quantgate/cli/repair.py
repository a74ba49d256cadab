"""``quantgate repair VARIANT``: give precision back where a failing capability lives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.options import Quiet
from quantgate.cli.screen import bars, console, exit_code


def repair(
    variant: Annotated[str, typer.Argument(help="A variant of the finished run that did not pass.")],
    config: Annotated[Path, typer.Option("--config", "-c", help="The run's release.yaml.")] = Path("release.yaml"),
    out: Annotated[
        Path | None, typer.Option(help="The run's folder, if it is not the one of the release.yaml.")
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the repaired variant; left out: VARIANT+repair.")] = "",
    quiet: Quiet = False,
) -> None:
    """Lift the cheapest layers that bring a lost capability back, and judge the result on cases nobody has asked.

    Lifted layers come from the run's other variants or from the model itself; nothing is quantized anew.
    """
    from quantgate.pipeline import repair as repairs
    from quantgate.report.repairs import show_repair

    with bars(quiet=quiet) as progress:
        found = repairs.repair(config, variant, out=out, label=name, progress=progress)
    show_repair(found, console)
    raise typer.Exit(exit_code(found.report.decision))
