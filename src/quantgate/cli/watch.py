"""``quantgate watch``: what the evidence says of the variant on trial, from any process that reaches its database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantgate.cli import completions
from quantgate.cli.screen import console
from quantgate.errors import QuantgateError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from quantgate.release import Live
    from quantgate.serve.exchanges import Reader
    from quantgate.serve.folder import DataFolder
    from quantgate.serve_config import ServeConfig
    from quantgate.watch.store import Store
    from quantgate.watch.verdicts import Answer

EVERY_S = 1.0


def watch(
    target: Annotated[
        str | None,
        typer.Argument(
            help="The target; left out, the configuration's.", autocompletion=completions.target, show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="serve.yaml, which names target, data folder and databases.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(envvar="QUANTGATE_DATA", help="The gateway's data folder; left out, .quantgate.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Of the evidence; left out, where the exchanges are.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing it, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print records instead of a table.")] = False,
    signals: Annotated[bool, typer.Option("--signals", help="List the signals, and what each counts.")] = False,
    alerts: Annotated[bool, typer.Option("--alerts", help="Print alerts for Prometheus, as YAML.")] = False,
    grafana: Annotated[bool, typer.Option("--grafana", help="Print a dashboard for Grafana, as JSON.")] = False,
) -> None:
    """Show what live traffic says of the variant on trial: each signal on both sides, how sure, and the verdict.

    Exits with 0 for a promotion and where nothing is awaited, 1 after a rollback, 3 where evidence is awaited or there
    is none, 4 where it cannot be read.
    """
    from quantgate.watch import gauges

    if alerts or grafana:
        typer.echo(gauges.alerts() if alerts else gauges.grafana(), nl=False)
        return
    wanted = _config(config, target, data)
    if signals:
        console.print(_signals(wanted))
        return
    with _opened(wanted, database) as (store, folder):
        if follow:
            _follow(store, folder, wanted)
            return
        found = _answer(store, folder, wanted)
        alarms = store.alarms(wanted.target, limit=10)
        if as_json:
            from quantgate.watch.verdicts import Asked

            typer.echo(json.dumps({**found.body(Asked()), "alarms": [one.body() for one in alarms]}))
        else:
            from quantgate.watch.showing import standing

            console.print(standing(wanted.target, found, alarms))
    raise typer.Exit(_code(found))


def _code(found: Answer) -> int:
    if found.action == "hold":
        return 3 if found.verdict is None or found.verdict.missing else 0
    return 1 if found.action == "rollback" else 0


def _config(path: Path | None, target: str | None, data: str | None) -> ServeConfig:
    from quantgate.serve_config import ServeConfig, read_config

    base = read_config(path) if path is not None else ServeConfig()
    given = {"target": target, "data": data}
    return base.model_copy(update={name: value for name, value in given.items() if value is not None})


def _signals(config: ServeConfig) -> RenderableType:
    from quantgate.watch import signals
    from quantgate.watch.marking import every
    from quantgate.watch.showing import signals_table

    for name in config.watch.signals:
        signals.get(name)
    return signals_table(every(), config.watch)


@contextmanager
def _opened(config: ServeConfig, database: str | None) -> Iterator[tuple[Store, DataFolder]]:
    """The evidence, read only: nothing is made. Raises QuantgateError where there is none."""
    from quantgate.serve._ledger_sql import connect
    from quantgate.serve.folder import DataFolder
    from quantgate.watch.store import Store

    folder = DataFolder(Path(config.data), exchanges_url=config.exchanges.url or database)
    url = database or config.watch.database or folder.exchanges
    _there(url)
    reader = _exchanges(folder.exchanges)
    store = Store(connect(url, where="--database" if database else "watch"), reader)
    try:
        yield store, folder
    finally:
        store.close()
        if reader is not None:
            reader.close()


def _exchanges(url: str) -> Reader | None:
    """They tell how far the evidence is behind; None where they cannot be read from here."""
    from quantgate.serve._ledger_sql import connect
    from quantgate.serve.exchanges import Reader

    try:
        _there(url)
        reader = Reader(connect(url, where="exchanges"))
        reader.last()
    except QuantgateError:
        return None
    return reader


def _there(url: str) -> None:
    """To ask SQLite of a file that is not there would make one."""
    kind, _, path = url.partition(":///")
    if kind == "sqlite" and not Path(path).is_file():
        raise QuantgateError(
            f"{path}: no evidence lies there; name the gateway's --data folder, its --config, or its --database"
        )


def _answer(store: Store, folder: DataFolder, config: ServeConfig) -> Answer:
    from quantgate.watch.verdicts import Asked, answer

    store.verdict(config.target)  # a database that cannot be read is told as one here, and not as a hold
    return answer(store, config.target, _live(folder, config), Asked(), late_s=config.watch.late)


def _live(folder: DataFolder, config: ServeConfig) -> Live | None:
    """What is released, as the gateway last heard; None where it wrote nothing down."""
    from quantgate.release import Live
    from quantgate.serve.live import file_of

    file = file_of(folder.path, config.target)
    try:
        return Live.load(file) if file.is_file() else None
    except QuantgateError:
        return None


def _follow(store: Store, folder: DataFolder, config: ServeConfig) -> None:
    from rich.live import Live as Screen
    from rich.text import Text

    from quantgate.watch.showing import standing

    def shown() -> RenderableType:
        try:
            return standing(config.target, _answer(store, folder, config), store.alarms(config.target, limit=10))
        except QuantgateError as problem:
            return Text(f"{config.target}: {problem}; tried again every second", style="bold red")

    with Screen(shown(), console=console, auto_refresh=False, screen=False) as screen:
        while True:
            time.sleep(EVERY_S)
            screen.update(shown(), refresh=True)
