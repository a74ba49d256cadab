"""``quantgate drift BASELINE VARIANT``: where a variant's next-token distribution moved, and how far."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.options import EngineName, KvCache, Model, Quiet, Variant
from quantgate.cli.screen import bars, console


def drift(
    baseline: Model,
    variant: Variant,
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", "-t", help="Running text (.txt, or .jsonl with 'text'); may be repeated."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", "-s", help="Capability or JSONL file with known answers; left out, all built-in ones."),
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases of the built-in suites in all.")] = 160,
    context: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a window of text; left out, what the model was made for.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of text that are scored.")] = 50_000,
    seed: Annotated[int, typer.Option(help="Fixes which cases, or which documents, are taken.")] = 0,
    engine: EngineName = "torch",
    kv_cache: KvCache = "f16",
    out: Annotated[Path, typer.Option(help="Gets drift.json and drift.html, and keeps what is measured.")] = Path(
        "runs/drift"
    ),
    quiet: Quiet = False,
) -> None:
    """Show where quality drifts: by position, rarity of tokens, slice, structure and first tokens of refusals.

    KL divergence, perplexity and agreement by llama.cpp's definitions, with intervals over documents; no verdict.
    """
    from quantgate.pipeline.drift_only import measure_drift
    from quantgate.records import parse
    from quantgate.report.drift_tables import show_drift
    from quantgate.variant_config import RuntimeConfig

    runtime = parse(RuntimeConfig, {"kv_cache": kv_cache}, where="drift")
    with bars(quiet=quiet) as progress:
        found = measure_drift(
            baseline,
            variant,
            texts=text or (),
            suite=suite or (),
            cases=cases,
            context=context,
            tokens=tokens,
            seed=seed,
            engine=engine,
            runtime=None if runtime == RuntimeConfig() else runtime,
            out=out,
            progress=progress,
        )
    show_drift(found, console)
    console.print(f"report: [bold]{out / 'drift.html'}[/]")
