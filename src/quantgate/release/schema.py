"""The registry's tables in a database: made where there are none, upgraded when asked, refused where they differ."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from quantgate.errors import ReleaseError
from quantgate.records import disk_errors
from quantgate.release.database import connected, file_of, reading, shown, writing
from quantgate.release.tables import HEAD, VERSION_TABLE, metadata

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x71756761  # of PostgreSQL: one program makes tables at a time


def version_of(connection: Connection) -> str | None:
    """Of the registry's tables; None where there are none. Raises ReleaseError for tables of somebody else."""
    there = set(sa.inspect(connection).get_table_names())
    if VERSION_TABLE in there:
        found: str | None = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
        return found
    if strange := sorted(there & set(metadata.tables)):
        raise ReleaseError(
            f"registry {shown(connection.engine.url)}: it holds a table '{strange[0]}' that quantgate did not make; "
            "name a database of its own"
        )
    return None


def ensure(engine: Engine, url: URL, *, create: bool) -> None:
    """Hold the tables against what this quantgate knows; make them where there are none and ``create`` says so.

    Raises ReleaseError, in one sentence, for a registry that is not there and for tables of another version.
    """
    file = file_of(url)
    if file is not None and not file.is_file():
        if not create:
            raise _not_there(url)
        file.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(file):
            file.touch()
    with reading(engine, url) as connection:
        found = version_of(connection)
    if found is None and create:
        _migrate(engine, url, HEAD, only_if=None)
    elif found is None:
        raise _not_there(url)
    elif found != HEAD:
        raise ReleaseError(f"registry {shown(url)}: {_other_version(found)}")


def _not_there(url: URL) -> ReleaseError:
    return ReleaseError(f"registry {shown(url)}: nothing was registered there yet; run: quantgate register RUN_FOLDER")


def _other_version(found: str) -> str:
    if found in known():
        return f"its tables are of version {found} and this quantgate needs {HEAD}; run: quantgate registry upgrade"
    return f"its tables are of version {found}, which this quantgate does not know; install the newer quantgate"


def upgrade(url: URL, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Path | None:
    """Bring the tables to HEAD, after a copy of a SQLite file was put beside it; the copy. None: nothing to copy.

    Raises ReleaseError where nothing was registered and for versions that this quantgate does not know.
    """
    found = installed(url)
    if found == HEAD:
        return None
    copy = _backup(url, found, now())
    with connected(url) as engine:
        _migrate(engine, url, HEAD, only_if=found)
    return copy


def upgrade_sql(url: URL) -> str:
    """The SQL that ``upgrade`` would run; empty where it would run none."""
    found = installed(url)
    if found == HEAD:
        return ""
    told = io.StringIO()
    dialect = "sqlite" if file_of(url) else "postgresql"
    options = {"dialect_name": dialect, "as_sql": True, "literal_binds": True, "output_buffer": told}
    _command("upgrade", options, f"{found}:{HEAD}", sql=True)
    return told.getvalue()


def known() -> tuple[str, ...]:
    """All versions, the oldest first."""
    from alembic.script import ScriptDirectory

    return tuple(one.revision for one in ScriptDirectory.from_config(_config({})).walk_revisions())[::-1]


def installed(url: URL) -> str:
    """The version of a registry's tables. Raises ReleaseError where there is none that this quantgate knows."""
    file = file_of(url)
    if file is not None and not file.is_file():
        raise _not_there(url)
    with connected(url) as engine, reading(engine, url) as connection:
        found = version_of(connection)
    if found is None:
        raise _not_there(url)
    if found not in known():
        raise ReleaseError(f"registry {shown(url)}: {_other_version(found)}")
    return found


def _migrate(engine: Engine, url: URL, to: str, *, only_if: str | None) -> None:
    """All steps in one transaction; nothing where somebody else did it meanwhile."""
    with writing(engine, url) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        if version_of(connection) == only_if:
            _command("upgrade", {"connection": connection}, to)


def _config(options: dict[str, Any]) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["options"] = options
    return config


def _command(name: str, options: dict[str, Any], *words: str, **more: Any) -> None:
    from alembic import command

    getattr(command, name)(_config(options), *words, **more)


def _backup(url: URL, version: str, at: datetime) -> Path | None:
    """A whole copy of a SQLite file, taken by SQLite itself, so that writers do not tear it."""
    file = file_of(url)
    if file is None:
        return None
    copy = file.with_name(f"{file.name}.{version}.{at:%Y%m%dT%H%M%S}.backup")
    aside = copy.with_name(f".{copy.name}.{os.getpid()}.partial")
    try:
        with disk_errors(copy):
            source, sink = sqlite3.connect(file), sqlite3.connect(aside)
            try:
                source.backup(sink)
            finally:
                source.close()
                sink.close()
            with aside.open("rb") as whole:
                os.fsync(whole.fileno())
            os.replace(aside, copy)
    finally:
        aside.unlink(missing_ok=True)
    return copy
