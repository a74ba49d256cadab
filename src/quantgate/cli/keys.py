"""``quantgate keys``: who may ask the gateway, and what they may spend."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantgate.cli.screen import console, errors
from quantgate.errors import UsageError

if TYPE_CHECKING:
    from quantgate.serve.keys import KeyBook, KeyRow

app = typer.Typer(help="Make, list, replace and revoke the gateway's API keys.", no_args_is_help=True)
Data = Annotated[str, typer.Option(envvar="QUANTGATE_DATA", help="The gateway's data folder.")]
Database = Annotated[
    str | None, typer.Option(envvar="QUANTGATE_DATABASE", help="Of keys and budgets; left out, the data folder's.")
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="serve.yaml, which names both.")]
Id = Annotated[str, typer.Argument(help="The key's id, such as k1a2b3c4d5e; see quantgate keys list.")]
HERE = ".quantgate"


@app.callback()
def about() -> None:
    """Make, list, replace and revoke the gateway's API keys."""


@app.command()
def new(
    name: Annotated[str, typer.Option(help="Whose key it is, for lists and records.")],
    scope: Annotated[str, typer.Option(help="use, admin, watch (reads verdicts), or several: use,watch.")] = "use",
    tokens: Annotated[str | None, typer.Option(help="Budget, such as 1M/day.")] = None,
    money: Annotated[str | None, typer.Option(help="Budget by the variants' prices, such as 20/month.")] = None,
    requests: Annotated[str | None, typer.Option(help="Quota, such as 60/min.")] = None,
    data: Data = HERE,
    database: Database = None,
    config: Config = None,
) -> None:
    """Make a key. Its secret is printed once, to stdout, and kept nowhere."""
    from quantgate.records import parse
    from quantgate.serve_config import Budget

    given = {"tokens": tokens, "money": money, "requests": requests}
    budget = parse(Budget, {unit: text for unit, text in given.items() if text is not None}, where="keys new")
    scopes = frozenset(part.strip() for part in scope.split(",") if part.strip())
    with _book(data, database, config) as book:
        first = not book.rows()
        row, secret = book.new(name, scopes, budget)
    _say(row, secret)
    if first:
        errors.print("quantgate: a gateway that was started open stays open until it is started again", soft_wrap=True)


@app.command("list")
def list_keys(
    data: Data = HERE,
    database: Database = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with what each has spent.")] = False,
) -> None:
    """All keys, with budgets and what they have spent. Secrets are not known to anybody."""
    from rich.table import Table

    from quantgate.serve.admin import key_told

    with _book(data, database, config) as book:
        rows, spent = book.rows(), book.spent()
    if as_json:
        console.print_json(json.dumps([key_told(row, spent) for row in rows]))
        return
    table = Table("id", "name", "scopes", "budget", "spent", "state", box=None, pad_edge=False)
    for row in rows:
        told = key_told(row, spent)
        budget = "\n".join(f"{unit} {text}" for unit, text in told["budget"].items() if text)
        charged = "\n".join(_spent(one) for one in told["spent"][-3:])
        table.add_row(row.id, row.name, ",".join(told["scopes"]), budget or "none", charged or "nothing", _state(row))
    console.print(table if rows else "no keys")


@app.command()
def revoke(id: Id, data: Data = HERE, database: Database = None, config: Config = None) -> None:
    """End a key. Running gateways refuse it within a second."""
    with _book(data, database, config) as book:
        row = book.revoke(id)
    console.print(f"{row.id} ({row.name}) is revoked")


@app.command()
def rotate(
    id: Id,
    keep: Annotated[str, typer.Option(help="How long the old secret still works, such as 10min.")] = "0s",
    data: Data = HERE,
    database: Database = None,
    config: Config = None,
) -> None:
    """A new secret with the same scopes and budget, of which the old one's spending counts."""
    with _book(data, database, config) as book:
        row, secret = book.rotate(id, keep_s=_seconds(keep))
    _say(row, secret)
    console.print(f"{id} ends {'now' if not _seconds(keep) else f'in {keep}'}")


@contextmanager
def _book(data: str, database: str | None, config: Path | None) -> Iterator[KeyBook]:
    from quantgate.serve._ledger_sql import connect, create
    from quantgate.serve.folder import DataFolder
    from quantgate.serve.keys import KeyBook
    from quantgate.serve_config import read_config

    if config is not None:
        told = read_config(config)
        data, database = told.data, database or told.database
    folder = DataFolder(Path(data), os.environ.get("QUANTGATE_SECRET"), database)
    folder.make()
    engine = connect(folder.database, where="--database")
    try:
        create(engine, where="keys")
        yield KeyBook(engine, folder.pepper)
    finally:
        engine.dispose()


def _say(row: KeyRow, secret: str) -> None:
    errors.print(f"key {row.id} for {row.name}; this is the only time that its secret is shown:", soft_wrap=True)
    console.print(secret, soft_wrap=True, markup=False)


def _spent(one: dict[str, Any]) -> str:
    """``tokens 72 in 2026-11-22``; what gateways hold in advance and may give back is told apart."""
    from quantgate.serve._ledger_time import window_told
    from quantgate.serve_config import NANO

    def amount(units: int) -> str:
        return f"{units / NANO:.4g}" if one["unit"] == "money" else f"{units}"

    held = f" + {amount(one['held'])} held by gateways" if one["held"] else ""
    return f"{one['unit']} {amount(one['charged'] - one['held'])}{held} in {window_told(one['window'])}"


def _state(row: KeyRow) -> str:
    if row.ends_at is None:
        return "good"
    return "revoked" if row.ends_at <= time.time() else f"ends {time.strftime('%F %R', time.gmtime(row.ends_at))} UTC"


def _seconds(text: str) -> float:
    from quantgate.hardware.quantities import seconds

    if text.strip() in ("0", "0s"):
        return 0.0
    try:
        return float(seconds(text, longest_s=30 * 86400.0))
    except ValueError as problem:
        raise UsageError(f"--keep: {problem}") from None
