"""``quantgate quantize MODEL -v W4A16``: artifacts, not judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.options import CalibrationSeed, MaxTokens, Model, Quiet, Samples, Traffic
from quantgate.cli.screen import bars, console


def quantize(
    model: Model,
    variant: Annotated[
        list[str],
        typer.Option(
            "--variant",
            "-v",
            help="SCHEME[:method][~rotation][@kv_cache][+container], such as W4A16:awq, W3A16~hadamard; repeatable.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Gets one artifact folder for each variant.")] = Path("artifacts"),
    keep: Annotated[
        list[str] | None, typer.Option("--keep", "-k", help="Layers to leave alone: names, parts or globs; repeatable.")
    ] = None,
    traffic: Traffic = None,
    samples: Samples = 256,
    max_tokens: MaxTokens = 512,
    seed: CalibrationSeed = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Foretell disk, memory and time, and write nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make variants of a model in one pass, without judging them; the same command goes on after a crash or Ctrl-C."""
    from quantgate.pipeline import quantize_only
    from quantgate.report.artifacts import show_artifacts
    from quantgate.report.forecasts import show_forecast

    if dry_run:
        told = quantize_only.forecast(
            model, variant, keep=keep or (), traffic=traffic, samples=samples, max_tokens=max_tokens, seed=seed
        )
        show_forecast(told, out, console)
        return
    with bars(quiet=quiet) as progress:
        made = quantize_only.quantize(
            model,
            variant,
            out=out,
            keep=keep or (),
            traffic=traffic,
            samples=samples,
            max_tokens=max_tokens,
            seed=seed,
            progress=progress,
        )
    show_artifacts(made, console)
