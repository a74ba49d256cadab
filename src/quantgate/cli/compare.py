"""``quantgate compare A B --suite ...``: two models on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantgate.cli.options import EngineName, KvCache, Model, Quiet, Variant
from quantgate.cli.screen import bars, console
from quantgate.cli.secrets import secrets_for

if TYPE_CHECKING:
    from quantgate.endpoint_config import EndpointConfig
    from quantgate.pipeline import CompareResult
    from quantgate.variant_config import RuntimeConfig

Suites = Annotated[
    list[str],
    typer.Option(
        "--suite",
        "-s",
        help="Capability, JSONL file, or published suite and its folder, as gsm8k=../data/gsm8k; may be repeated.",
    ),
]
Margin = Annotated[str | None, typer.Option(help="Relative loss allowed; left out, 3%, or the published suite's own.")]
Cases = Annotated[int, typer.Option(min=1, help="Cases per suite at most.")]
Alpha = Annotated[float, typer.Option(help="Chance of a wrong verdict.")]
Seed = Annotated[int, typer.Option(help="Fixes which cases are asked.")]
Draft = Annotated[
    str | None, typer.Option(help="A smaller GGUF file of the same tokenizer that drafts tokens for llama.cpp.")
]
DraftTokens = Annotated[int, typer.Option(min=1, max=64, help="Tokens drafted at a time.")]
Allow = Annotated[
    list[str] | None, typer.Option(help="What the two may not have in common, such as tokenizer; may be repeated.")
]
Batch = Annotated[int | None, typer.Option(min=1, help="Answers of the variant decoded together, at most.")]
Guard = Annotated[
    bool, typer.Option("--guard", help="Hold the variant's answers to the JSON schema of their case (llamacpp).")
]
Compile = Annotated[bool, typer.Option("--compile", help="MLPs and norms of the variant by torch.compile.")]
Each = Annotated[
    bool, typer.Option("--each", help="Judge the variant as it is, with each of these settings, and with all.")
]
Noise = Annotated[int, typer.Option(min=0, help="Cases per suite that the baseline is asked twice.")]
Launch = Annotated[
    str | None,
    typer.Option(help="Command that serves what is no address, such as: vllm serve {artifact} --port {port}"),
]
KeyVariable = Annotated[str | None, typer.Option(help="Environment variable that holds the servers' key.")]
Revision = Annotated[
    str | None, typer.Option(help="Your word for a server's exact weights: its answers are kept under it.")
]
BaselineRevision = Annotated[str | None, typer.Option(help="The same, of the baseline's server.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests to a server in flight at most.")]
Timeout = Annotated[str, typer.Option(help="For one request to a server, such as 120s or 2 min.")]
Out = Annotated[Path, typer.Option(help="Folder for answers and the result.")]


def compare(
    baseline: Model,
    variant: Variant,
    suite: Suites,
    margin: Margin = None,
    cases: Cases = 400,
    alpha: Alpha = 0.05,
    seed: Seed = 0,
    engine: EngineName = "torch",
    kv_cache: KvCache = "f16",
    draft: Draft = None,
    draft_tokens: DraftTokens = 8,
    allow: Allow = None,
    batch: Batch = None,
    guard: Guard = False,
    compile: Compile = False,
    each: Each = False,
    noise: Noise = 50,
    launch: Launch = None,
    api_key_env: KeyVariable = None,
    revision: Revision = None,
    baseline_revision: BaselineRevision = None,
    concurrency: Concurrency = 16,
    timeout: Timeout = "120s",
    out: Out = Path("runs/compare"),
    quiet: Quiet = False,
) -> None:
    """Ask two models the same cases and say, per suite, whether the second is proven no worse.

    A side may be an OpenAI-compatible server: write its address, and the model's name behind a #.
    """
    from quantgate import pipeline
    from quantgate.report.comparisons import show_comparisons

    settings = {"kv_cache": kv_cache, "draft": draft, "draft_tokens": draft_tokens, "batch": batch}
    runtime = _runtime(settings | {"guard": guard, "compile": compile})
    told = {"api_key_env": api_key_env, "concurrency": concurrency, "timeout": timeout}
    endpoints = _endpoints(((baseline, baseline_revision), (variant, revision)), launch, told)
    with bars(quiet=quiet) as progress:
        result = pipeline.compare_models(
            baseline, variant, suite, margin=margin, cases=cases, alpha=alpha, seed=seed, engine=engine,
            runtime=runtime, each=each, noise=noise, baseline_endpoint=endpoints[0], endpoint=endpoints[1],
            secrets=secrets_for(endpoints), allow=allow or (), out=out, progress=progress,
        )  # fmt: skip
    show_comparisons(result, console)
    raise typer.Exit(_exit_code(result))


def _runtime(settings: dict[str, Any]) -> RuntimeConfig | None:
    """What the user set of the variant's runtime; None: nothing."""
    from quantgate.records import parse
    from quantgate.variant_config import RuntimeConfig

    runtime = parse(RuntimeConfig, settings, where="compare")
    return runtime if runtime.changed else None


def _endpoints(
    sides: Sequence[tuple[str, str | None]], launch: str | None, told: dict[str, Any]
) -> list[EndpointConfig | None]:
    """The server of each side, given with its revision; None where it is none."""
    from quantgate.pipeline.endpoints import endpoint_of

    return [endpoint_of(ref, launch, told | {"revision": revision}) for ref, revision in sides]


def _exit_code(result: CompareResult) -> int:
    verdicts = {one.verdict for one in result.verdicts}
    return 1 if "fail" in verdicts else 3 if verdicts != {"pass"} else 0
