"""``quantgate compare A B --suite ...``: two models on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.options import Model, Quiet
from quantgate.cli.screen import bars, console
from quantgate.cli.secrets import secrets_for


def compare(
    baseline: Model,
    variant: Annotated[
        str, typer.Argument(help="The same, or an artifact that quantgate or another program quantized.")
    ],
    suite: Annotated[
        list[str],
        typer.Option(
            "--suite",
            "-s",
            help="Capability, JSONL file, or published suite and its folder, as gsm8k=../data/gsm8k; may be repeated.",
        ),
    ],
    margin: Annotated[
        str | None, typer.Option(help="Relative loss allowed; left out, 3%, or the published suite's own.")
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases per suite at most.")] = 400,
    alpha: Annotated[float, typer.Option(help="Chance of a wrong verdict.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Fixes which cases are asked.")] = 0,
    engine: Annotated[str, typer.Option(help="What runs the variant: torch, or llamacpp for a GGUF file.")] = "torch",
    kv_cache: Annotated[str, typer.Option(help="Type of llama.cpp's KV cache, such as q8_0.")] = "f16",
    draft: Annotated[
        str | None, typer.Option(help="A smaller GGUF file of the same tokenizer that drafts tokens for llama.cpp.")
    ] = None,
    draft_tokens: Annotated[int, typer.Option(min=1, max=64, help="Tokens drafted at a time.")] = 8,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="What the two may not have in common, such as tokenizer; may be repeated."),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Answers of the variant decoded together, at most.")] = None,
    guard: Annotated[
        bool, typer.Option("--guard", help="Hold the variant's answers to the JSON schema of their case (llamacpp).")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", help="MLPs and norms of the variant by torch.compile.")] = False,
    each: Annotated[
        bool, typer.Option("--each", help="Judge the variant as it is, with each of these settings, and with all.")
    ] = False,
    noise: Annotated[int, typer.Option(min=0, help="Cases per suite that the baseline is asked twice.")] = 50,
    launch: Annotated[
        str | None,
        typer.Option(help="Command that serves what is no address, such as: vllm serve {artifact} --port {port}"),
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the servers' key.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Your word for a server's exact weights: its answers are kept under it.")
    ] = None,
    baseline_revision: Annotated[str | None, typer.Option(help="The same, of the baseline's server.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to a server in flight at most.")] = 16,
    timeout: Annotated[str, typer.Option(help="For one request to a server, such as 120s or 2 min.")] = "120s",
    out: Annotated[Path, typer.Option(help="Folder for answers and the result.")] = Path("runs/compare"),
    quiet: Quiet = False,
) -> None:
    """Ask two models the same cases and say, per suite, whether the second is proven no worse.

    A side may be an OpenAI-compatible server: write its address, and the model's name behind a #.
    """
    from quantgate import pipeline
    from quantgate.pipeline.endpoints import endpoint_of
    from quantgate.records import parse
    from quantgate.report.comparisons import show_comparisons
    from quantgate.variant_config import RuntimeConfig

    settings = {"kv_cache": kv_cache, "draft": draft, "draft_tokens": draft_tokens, "batch": batch}
    settings |= {"guard": guard, "compile": compile}
    runtime = parse(RuntimeConfig, settings, where="compare")
    told = {"api_key_env": api_key_env, "concurrency": concurrency, "timeout": timeout}
    endpoints = [
        endpoint_of(ref, launch, told | {"revision": named})
        for ref, named in ((baseline, baseline_revision), (variant, revision))
    ]
    with bars(quiet=quiet) as progress:
        result = pipeline.compare_models(
            baseline,
            variant,
            suite,
            margin=margin,
            cases=cases,
            alpha=alpha,
            seed=seed,
            engine=engine,
            runtime=runtime if runtime.changed else None,
            each=each,
            noise=noise,
            baseline_endpoint=endpoints[0],
            endpoint=endpoints[1],
            secrets=secrets_for(endpoints),
            allow=allow or (),
            out=out,
            progress=progress,
        )
    show_comparisons(result, console)
    verdicts = {one.verdict for one in result.verdicts}
    raise typer.Exit(1 if "fail" in verdicts else 3 if verdicts != {"pass"} else 0)
