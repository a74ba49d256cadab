"""``quantgate run release.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.doctor import saved_profile
from quantgate.cli.options import Quiet, Reusing
from quantgate.cli.register import register
from quantgate.cli.registries import opened, then
from quantgate.cli.screen import bars, console, exit_code
from quantgate.cli.secrets import secrets_for


def run(
    config: Annotated[Path, typer.Argument(help="The release.yaml; write one with: quantgate init")] = Path(
        "release.yaml"
    ),
    out: Annotated[Path | None, typer.Option(help="Folder for artifacts, evidence and reports.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the run needs and takes (cases, tokens, time, price), and exit.")
    ] = False,
    to_registry: Annotated[
        str | None,
        typer.Option("--register", metavar="URL", help="Register what was decided, there; later: quantgate register."),
    ] = None,
    reuse: Reusing = True,
    quiet: Quiet = False,
) -> None:
    """Make every variant, prove or refute it, choose the smallest proven one, write the report.

    Resumable: after a crash or Ctrl-C the same command goes on where it stopped.
    """
    from quantgate import pipeline
    from quantgate.pipeline import planning
    from quantgate.pipeline.sharing import folder_of
    from quantgate.quantize.reuse import Reuse
    from quantgate.release_config import load_config
    from quantgate.report.plans import show_plan
    from quantgate.report.terminal import repair_hint, show

    settings = load_config(config)
    folder = folder_of(out or settings.out)
    if plan:
        show_plan(planning.plan(settings, folder), console)
        return
    if to_registry is not None:
        opened(to_registry, create=True)  # told before anything slow, if it cannot be
    secrets = secrets_for(settings.endpoints)
    with bars(quiet=quiet) as progress:
        report = pipeline.run(
            settings,
            out=out,
            progress=progress,
            planned=None if quiet else lambda told: show_plan(told, console),
            secrets=secrets,
            here=saved_profile(),
            reuse=Reuse() if reuse else None,
        )
    show(report, console)
    if hint := repair_hint(report, config, out):
        console.print(hint)
    console.print(f"report: [bold]{folder / 'report.html'}[/]")
    if to_registry is not None:
        register(folder, registry=to_registry)
    elif exit_code(report.decision, report.targets) == 0 and not quiet:
        then(f"quantgate register {folder}")
    raise typer.Exit(exit_code(report.decision, report.targets))
