"""``quantgate init``: write a commented release.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.screen import console
from quantgate.errors import UsageError


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("release.yaml"),
    profile: Annotated[
        str | None,
        typer.Option(help="Rules of a kind of product to start from: long-context, extraction, latency-critical ..."),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="HARDWARE:runtime where it must run, such as h100-sxm:vllm; repeatable, or commas."),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="With variants that the run trains: method qat, and a distilled student.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented release.yaml to start from; with targets, if you say where it must run."""
    from quantgate.examples import example, trained_example
    from quantgate.records import write_whole

    if path.exists() and not force:
        raise UsageError(f"{path}: exists already; choose another name, or overwrite it with --force")
    if train and (on or profile):
        raise UsageError("init: --train writes an example of its own; leave --on and --profile out, or --train")
    places = [one.strip() for told in on or () for one in told.split(",") if one.strip()]
    write_whole(path, (trained_example() if train else example(places, profile)).encode())
    console.print(f"wrote {path}; edit it, then: quantgate run {path}")
