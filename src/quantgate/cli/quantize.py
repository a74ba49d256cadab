"""``quantgate quantize MODEL -v W4A16``: artifacts, not judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.options import CalibrationSeed, MaxTokens, Model, Quiet, Reusing, Samples, Traffic
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
    lm_head: Annotated[
        str, typer.Option(help="The output layer: a weight-only scheme such as W8A16 or W4A16-g32, or keep.")
    ] = "keep",
    embeddings: Annotated[
        str, typer.Option(help="The embedding table: the scheme of the blocks, where that is weight-only, or keep.")
    ] = "keep",
    untie: Annotated[
        bool, typer.Option("--untie", help="Store an output layer of its own where the model reads the embeddings.")
    ] = False,
    traffic: Traffic = None,
    samples: Samples = 256,
    max_tokens: MaxTokens = 512,
    seed: CalibrationSeed = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Foretell disk, memory and time, and write nothing.")
    ] = False,
    reuse: Reusing = True,
    quiet: Quiet = False,
) -> None:
    """Make variants of a model in one pass, without judging them; the same command goes on after a crash or Ctrl-C."""
    from quantgate.pipeline import quantize_only
    from quantgate.quantize.reuse import Reuse
    from quantgate.report.artifacts import show_artifacts
    from quantgate.report.forecasts import show_forecast

    outside = {"lm_head": lm_head, "embeddings": embeddings, "untie": untie}
    if dry_run:
        told = quantize_only.forecast(
            model,
            variant,
            keep=keep or (),
            traffic=traffic,
            samples=samples,
            max_tokens=max_tokens,
            seed=seed,
            **outside,
        )
        show_forecast(told, out, console)
        return
    earlier = Reuse() if reuse else None
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
            reuse=earlier,
            **outside,
        )
    show_artifacts(made, console)
    for sentence in earlier.told() if earlier else ():
        console.print(sentence)
