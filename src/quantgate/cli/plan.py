"""``quantgate plan``: what fits where, how fast at best, at what cost, and what is refused; nothing is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quantgate.cli import completions
from quantgate.cli.doctor import saved_profile
from quantgate.cli.screen import console
from quantgate.errors import UsageError


def plan(
    what: Annotated[
        str, typer.Argument(help="A release.yaml with targets, a model, or a config.json alone: no weights are needed.")
    ] = "release.yaml",
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            "-v",
            help="SCHEME[:method][@kv_cache][+container], such as W4A16; repeatable.",
            autocompletion=completions.scheme,
        ),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            help="HARDWARE[:runtime], such as h100-sxm or rtx-4090:sglang; commas, or repeated.",
            autocompletion=completions.on,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The same as naming a config.json.")] = None,
    prompt: Annotated[int | None, typer.Option(min=1, help="Tokens of a prompt; left out, 1024.")] = None,
    answer: Annotated[int | None, typer.Option(min=1, help="Tokens of an answer; left out, 256.")] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens a sequence may grow to; left out, prompt and answer.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Sequences at once; left out, 1.")] = None,
    tensor_parallel: Annotated[int | None, typer.Option(min=1, help="Devices that share each layer.")] = None,
    kv_cache: Annotated[
        str | None,
        typer.Option(help="Type of the KV cache: auto, fp8, q8_0 ...", autocompletion=completions.kv_cache),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of each device, such as 8GiB.")] = None,
    price: Annotated[str | None, typer.Option(help="Of each device, such as 2.50/h.")] = None,
    here: Annotated[Path | None, typer.Option(help="Doctor's profile, where it was saved elsewhere.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of the tables.")] = False,
) -> None:
    """Say before anything is spent what fits, which kernel runs, how fast it can be at best, and what it costs.

    Exits with 0 when every target has a variant that runs, 1 when one has none.
    """
    from quantgate.decide.planning import refuse_hopeless_targets
    from quantgate.pipeline.targets import plan_model, plan_release
    from quantgate.release_config import load_config
    from quantgate.report.targets import show_targets

    saved = here or saved_profile()
    names = [name.strip() for one in on or () for name in one.split(",") if name.strip()]
    told: dict[str, Any] = {"memory": memory, "price": price, "context": context, "kv_cache": kv_cache}
    told |= {"prompt": prompt, "answer": answer, "concurrency": concurrency, "tensor_parallel": tensor_parallel}
    settings = {key: value for key, value in told.items() if value is not None}
    if config is None and Path(what).suffix in (".yaml", ".yml"):
        beside = [*(["on"] if names else []), *(["variant"] if variant else []), *settings]
        if beside:
            option = f"--{beside[0].replace('_', '-')}"
            raise UsageError(
                f"{what}: names its own targets and variants; write {option} there or leave it out, or name a model"
            )
        found = plan_release(load_config(Path(what)), saved=saved)
    else:
        ref = config if config is not None else what
        found = plan_model(ref, variant or (), names or ["here"], saved=saved, **settings)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        show_targets(found, console)
    refuse_hopeless_targets(found)
