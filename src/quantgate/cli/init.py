"""``quantgate init``: write a commented release.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.screen import console
from quantgate.errors import UsageError


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("release.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented release.yaml to start from."""
    from quantgate.examples import EXAMPLE
    from quantgate.records import write_whole

    if path.exists() and not force:
        raise UsageError(f"{path}: exists already; choose another name, or overwrite it with --force")
    write_whole(path, EXAMPLE.encode())
    console.print(f"wrote {path}; edit it, then: quantgate run {path}")
