"""The registry's connections: SQLite in a file, or PostgreSQL by URL; and what goes wrong there, in one sentence.

SQLite runs in WAL mode with a flush to disk at every commit; its file is opened anew for each transaction, so that a
file that was deleted or replaced is noticed and nothing is acknowledged into a file that has no name any more.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from quantgate.errors import DiskFull, MissingExtra, ReleaseError, UsageError

DEFAULT_URL = "sqlite:///runs/quantgate.db"  # beside the runs
SETTLES_S = 0.1  # longer than a tick of any file system's clock that SQLite may be used on
BUSY_S = 10.0  # how long a writer waits for another one
SWITCH_S = 0.01  # between tries to switch a file to write-ahead logging
WAITS = {  # of PostgreSQL: a network that is cut is noticed in seconds
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def address(url: str) -> URL:
    """A URL of SQLite or PostgreSQL, or the path of a SQLite file.

    >>> address("team.db").database, address("postgresql://db/q").drivername
    ('team.db', 'postgresql+psycopg')
    """
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        found = make_url(url)
    except ArgumentError:
        raise UsageError(
            "registry: not the URL of a database; expected sqlite:///path.db or postgresql://..."
        ) from None
    kind = found.get_backend_name()
    if kind == "postgres":
        kind = "postgresql"
    if kind == "sqlite" and found.database in (None, "", ":memory:"):
        raise UsageError(
            "registry: a database in memory keeps nothing; name a file, such as sqlite:///runs/quantgate.db"
        )
    if kind not in ("sqlite", "postgresql"):
        raise UsageError(f"registry: '{kind}' is not known; expected sqlite:///path.db or postgresql://user@host/name")
    return found.set(drivername="sqlite" if kind == "sqlite" else "postgresql+psycopg")


def shown(url: URL) -> str:
    """How messages name it: a path, or a URL without its password."""
    return str(url.database) if url.drivername == "sqlite" else url.render_as_string(hide_password=True)


def file_of(url: URL) -> Path | None:
    """The file of a SQLite database."""
    return Path(str(url.database)) if url.drivername == "sqlite" else None


def connect(url: URL) -> Engine:
    """An engine whose transactions begin when they say so. Raises MissingExtra."""
    return _sqlite(url) if url.drivername == "sqlite" else _postgresql(url)


def _sqlite(url: URL) -> Engine:
    path = Path(str(url.database)).resolve()

    def open_file() -> sqlite3.Connection:
        made = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            write_ahead(made, BUSY_S)
            for setting in ("synchronous = FULL", "foreign_keys = ON"):
                made.execute(f"PRAGMA {setting}")
        except sqlite3.Error:
            made.close()
            raise
        return made

    engine = sa.create_engine("sqlite://", creator=open_file, poolclass=NullPool)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def write_ahead(connection: sqlite3.Connection, wait_s: float) -> None:
    """Switch a file to write-ahead logging, however many processes open it for the first time at this moment.

    SQLite's own wait does not cover this switch: it says "database is locked" at once. Raises sqlite3.OperationalError
    after ``wait_s`` seconds.
    """
    give_up = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as problem:
            if "locked" not in str(problem) or time.monotonic() > give_up:
                raise
        time.sleep(SWITCH_S)


def _postgresql(url: URL) -> Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True, pool_size=2, connect_args=dict(WAITS))
    except ImportError:
        raise MissingExtra(
            "registry: PostgreSQL needs psycopg, which is not installed; run: pip install 'quantgate[postgres]'"
        ) from None


Stamp = tuple[tuple[int, int, int] | None, ...]


def settled(url: URL) -> Stamp | None:
    """What a SQLite file and its log look like from outside; None where that proves nothing: of a server, or of a file
    that is not there or was written to a moment ago, when a second write could leave the same time behind.
    """
    file = file_of(url)
    found = list[tuple[int, int, int] | None]()
    for name in (str(file), f"{file}-wal") if file is not None else ():
        try:
            told = os.stat(name)
        except OSError:
            found.append(None)
            continue
        if time.time() - told.st_mtime < SETTLES_S:  # or in the future
            return None
        found.append((told.st_ino, told.st_mtime_ns, told.st_size) if told.st_size else None)
    return tuple(found) if found and found[0] else None


@contextmanager
def connected(url: URL) -> Iterator[Engine]:
    """An engine for a moment."""
    engine = connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


def held(engine: Engine) -> Callable[[], None]:
    """Keep the log of a SQLite file open until the function that is returned is called; of a server, nothing.

    Whoever closes the file last writes its log back, with two flushes, and others wait for that. While it is held,
    that is put off: what was committed is on the disk all the same, and others read it at once. Not to be held for
    long: a file that is replaced meanwhile would meet the log of the one before it. Raises sqlite3.Error.
    """
    if engine.dialect.name != "sqlite":
        return lambda: None
    return engine.raw_connection().close


@contextmanager
def reading(engine: Engine, url: URL) -> Iterator[Connection]:
    """One consistent view. Raises ReleaseError."""
    with spoken(url), engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine, url: URL) -> Iterator[Connection]:
    """One transaction: when the block has ended, all of it is on the disk. Raises ReleaseError, DiskFull."""
    with spoken(url), engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        options = {"writes": True} if sqlite else {"isolation_level": "READ COMMITTED"}
        connection = connection.execution_options(**options)
        with connection.begin():
            if not sqlite:  # whatever the server's defaults are
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_S:.0f}s'")
            yield connection


@contextmanager
def spoken(url: URL) -> Iterator[None]:
    """Turn what a database says into one sentence."""
    try:
        yield
    except DBAPIError as problem:
        raise _told(shown(url), problem) from None
    except sqlite3.Error as problem:  # from a pragma, before SQLAlchemy has the connection
        raise _of_sqlite(shown(url), str(problem)) from None


def _told(where: str, problem: DBAPIError) -> ReleaseError | DiskFull:
    text = str(problem.orig).strip().splitlines()[0] if str(problem.orig).strip() else type(problem.orig).__name__
    if isinstance(problem.orig, sqlite3.Error):
        return _of_sqlite(where, text)
    if _state(problem) == "53100":
        return _full(where)
    if problem.connection_invalidated or isinstance(problem, sa.exc.OperationalError):
        gone = f"registry {where}: the database does not answer ({_short(text)}); what it holds stands, try again"
        return Unreachable(gone)
    return ReleaseError(f"registry {where}: the database refused it: {_short(text)}")


def _of_sqlite(where: str, text: str) -> ReleaseError | DiskFull:
    if "disk is full" in text:
        return _full(where)
    sentence = {
        "unable to open database file": "cannot be opened; it was moved or deleted, or you lack rights on its folder",
        "file is not a database": "is not a SQLite database; name another file, or restore it from a backup",
        "database disk image is malformed": "is damaged; restore it from a backup",
        "database is locked": f"is in use by another program for more than {BUSY_S:.0f} s; try again",
        "attempt to write a readonly database": "may not be written to; ask for rights on the file and its folder",
        "disk I/O error": "could not be written or read (disk I/O error); what it held before stands",
    }.get(text)
    if sentence is None:
        return ReleaseError(f"registry {where}: the database refused it: {_short(text)}")
    return Unreachable(f"registry {where}: {sentence}")


def _full(where: str) -> DiskFull:
    return DiskFull(f"registry {where}: the disk is full; nothing was changed, free some space and run again")


class Unreachable(ReleaseError):
    """The database does not answer now; it may again."""


def _state(problem: DBAPIError) -> str:
    return str(getattr(problem.orig, "sqlstate", "") or "")


def _short(text: str) -> str:
    """One line without what may be secret: psycopg repeats no password, and a URL's is cut out all the same."""
    return re.sub(r"://[^@\s]*@", "://", text)[:200]
