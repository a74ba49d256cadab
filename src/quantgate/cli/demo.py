"""``quantgate demo``: the main job on the built-in model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.doctor import saved_profile
from quantgate.cli.options import Quiet
from quantgate.cli.screen import bars, console


def demo(
    out: Annotated[Path, typer.Option(help="Folder for artifacts, evidence and reports.")] = Path("runs/demo"),
    cases: Annotated[int, typer.Option(min=1, help="Cases per capability at most.")] = 400,
    quiet: Quiet = False,
) -> None:
    """Quantize the built-in reference model six ways, prove or refute each one, choose one for each of three targets.

    Needs no network and no GPU; takes a few minutes on two cores. Exits with 0 whatever the verdicts are.
    """
    from quantgate import pipeline
    from quantgate.examples import demo_config, demo_file
    from quantgate.records import write_whole
    from quantgate.report.terminal import repair_hint, show

    console.print("quantgate demo: six variants of the built-in model, eight capabilities, three targets", style="bold")
    with bars(quiet=quiet) as progress:
        report = pipeline.run(demo_config(cases), out=out, progress=progress, here=saved_profile())
    show(report, console)
    write_whole(out / "demo.yaml", demo_file(cases).encode())
    if hint := repair_hint(report, out / "demo.yaml"):
        console.print(f"\n{hint}")
    console.print(
        f"\nOpen [bold]{out / 'report.html'}[/] in a browser to see intervals, slices and every changed answer."
    )
