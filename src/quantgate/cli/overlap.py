"""``quantgate overlap TRAFFIC --suite ...``: has traffic seen what a suite asks?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.screen import console


def overlap(
    traffic: Annotated[Path, typer.Argument(help="JSONL: messages, prompt and completion, or question and answer.")],
    suite: Annotated[
        list[str], typer.Option("--suite", "-s", help="A built-in suite or a JSONL file of cases; may be repeated.")
    ],
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help="A suite, or suite/id, whose overlap is known; repeatable.")
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases of a built-in suite; of a file, all are compared.")] = 400,
    seed: Annotated[int, typer.Option(help="Fixes which cases a built-in suite draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record instead of the table.")] = False,
) -> None:
    """Find conversations that are a suite's cases: copied, edited, renamed or translated. Exits with 1 if there are."""
    from quantgate.pipeline import overlaps
    from quantgate.report.overlaps import show_overlaps

    found = overlaps.compare(traffic, suite, cases=cases, allowed=allow or (), seed=seed)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        show_overlaps(found, console)
    raise typer.Exit(1 if found.items else 0)
