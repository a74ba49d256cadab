"""``quantgate releases``: what every target serves, and how it came to that; ``quantgate registry``: its upkeep."""

from __future__ import annotations

from typing import Annotated

import typer

from quantgate.cli import completions
from quantgate.cli.registries import URL, RegistryUrl, opened
from quantgate.cli.screen import console, errors

registry_app = typer.Typer(name="registry", help="The upkeep of the registry's database.", no_args_is_help=True)


def releases(
    target: Annotated[
        str | None,
        typer.Argument(
            help="Only this target, with its history.", autocompletion=completions.target, show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Moves to show, the latest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print records instead of tables.")] = False,
    registry: RegistryUrl = URL,
) -> None:
    """Show what is live on every target, or one target's history: who moved it, when, why, from where to where."""
    from quantgate.records import canonical
    from quantgate.release.showing import history_table, live_table, may_table

    where = opened(registry)
    names = where.targets() if target is None else (target,)
    live = [where.live(name) for name in names]
    if as_json:
        told = [
            {"live": one.body(), "history": [move.body() for move in where.history(one.target, limit=limit)]}
            for one in live
        ]
        typer.echo(canonical(told).decode())
        return
    console.print(live_table(live))
    if target is not None:
        console.print(may_table(where, live[0]))
        console.print(history_table(where.history(target, limit=limit)))


@registry_app.command("upgrade")
def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL and change nothing.")] = False,
    registry: RegistryUrl = URL,
) -> None:
    """Bring the tables to this version of quantgate. A SQLite file is copied first; PostgreSQL is backed up by you."""
    from quantgate.release import schema
    from quantgate.release.database import address
    from quantgate.release.tables import HEAD

    url = address(registry)
    if dry_run:
        typer.echo(schema.upgrade_sql(url) or "-- nothing to do")
        return
    before = schema.installed(url)
    copy = schema.upgrade(url)
    if copy is not None:
        errors.print(f"copied to {copy}", soft_wrap=True, markup=False)
    done = f"tables upgraded from {before} to {HEAD}" if before != HEAD else "nothing to upgrade"
    console.print(done)


@registry_app.command("check")
def check(registry: RegistryUrl = URL) -> None:
    """Read every row back and hold it against its digest, and the history of moves against itself.

    Exits with 4 and one line for each row that is not what was written.
    """
    from quantgate.release.checking import problems

    where = opened(registry)
    found = problems(where)
    for one in found.problems:
        errors.print(f"quantgate: {one}", soft_wrap=True, markup=False)
    console.print(f"{found.rows} rows read, {len(found.problems)} not as they were written")
    raise typer.Exit(4 if found.problems else 0)
