"""``quantgate inspect MODEL``: where precision matters, and for what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.options import CalibrationSeed, MaxTokens, Model, Quiet, Samples, Traffic
from quantgate.cli.screen import bars, console


def inspect(
    model: Model,
    variant: Annotated[
        list[str], typer.Option("--variant", "-v", help="SCHEME[:method], such as W4A16:gptq; may be repeated.")
    ] = ["W4A16", "W3A16-g64"],  # noqa: B006 - typer copies it
    capability: Annotated[
        list[str] | None,
        typer.Option("--capability", "-c", help="A built-in suite or a JSONL file; repeatable; left out, all suites."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Gets artifacts, inspection.json and inspection.html.")] = Path(
        "inspection"
    ),
    traffic: Traffic = None,
    samples: Samples = 64,
    max_tokens: MaxTokens = 512,
    seed: CalibrationSeed = 0,
    quiet: Quiet = False,
) -> None:
    """Show why some layers must not be rounded: outliers, output errors, their growth with depth, and what each layer
    does to each capability."""
    from quantgate.pipeline import inspection
    from quantgate.report.inspections import show_inspection

    with bars(quiet=quiet) as progress:
        found = inspection.inspect(
            model,
            variant,
            out=out,
            capabilities=capability or (),
            traffic=traffic,
            samples=samples,
            max_tokens=max_tokens,
            seed=seed,
            progress=progress,
        )
    show_inspection(found, console)
    console.print(f"heatmaps: [bold]{out / 'inspection.html'}[/]")
