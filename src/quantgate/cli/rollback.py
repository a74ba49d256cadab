"""``quantgate rollback``: the traffic back to what had it before, in one move."""

from __future__ import annotations

from typing import Annotated

import typer

from quantgate.cli import completions
from quantgate.cli.registries import URL, By, RegistryUrl, Target, opened, say


def rollback(
    target: Target,
    reason: Annotated[str, typer.Option(help="Why, for the history.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(
            help="The baseline, or a variant that had the traffic before; left out, the one before this one.",
            autocompletion=completions.variant,
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ask this address first whether what is gone back to is up: .../health, .../v1/models."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Go back even where it is not up.")] = False,
    registry: RegistryUrl = URL,
    by: By = None,
) -> None:
    """Take a canary away, or without one give the traffic back to what had it before. No decision is needed.

    On the disk before this says so. Doing it again goes no further back; for that, say --to.
    """
    from quantgate.release import lifecycle
    from quantgate.release.capacity import answers_at

    where = opened(registry, by)
    up = answers_at(check) if check else None
    move = lifecycle.rollback(where, target, to=to, why=reason, capacity=up, force=force)
    say(move.live if move else where.live(target), moved=move is not None)
