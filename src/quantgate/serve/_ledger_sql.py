"""The gateway's own database: keys, what budgets have spent, and leases. The same statements for SQLite and PostgreSQL.

``spent`` counts what was handed out: a lease is charged when it is granted, and what is left of it is given back. So
the database never shows less than what was spent, whatever dies. Time is the database's, so that all gateways agree on
when a window ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from quantgate.errors import MissingExtra, QuantgateError, UsageError
from quantgate.release.database import write_ahead

T = TypeVar("T")
VERSION = 1
META = sa.MetaData()
ABOUT = sa.Table(
    "gateway_about",
    META,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
KEYS = sa.Table(
    "gateway_keys",
    META,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),  # of the secret under the pepper, hex
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("budget", sa.Text, nullable=False),  # canonical JSON
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("ends_at", sa.Float),  # revoked, from then on
)
SPENT = sa.Table(
    "gateway_spent",
    META,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("unit", sa.Text, primary_key=True),
    sa.Column("span", sa.Text, primary_key=True),  # "day:20412"
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("ends_at", sa.Float),  # of the window; none: it has no end
)
LEASES = sa.Table(
    "gateway_leases",
    META,
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("span", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),  # granted to this holder, all in all
    sa.Column("granted_at", sa.Float, nullable=False),
)
LOST = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)


def connect(url: str, *, where: str = "database", wait_s: float = 2.0) -> Engine:
    """An engine whose transactions wait ``wait_s`` at most, not yet connected. Raises UsageError, MissingExtra."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        sentence = f"{where}: not a database's address; write sqlite:///state.db or postgresql://user@host/name"
        raise UsageError(sentence) from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        return _sqlite(parsed, wait_s)
    if kind != "postgresql":
        raise UsageError(f"{where}: '{kind}' is not known; expected sqlite or postgresql")
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        sentence = (
            f"{where}: PostgreSQL needs 'psycopg', which is not installed; run: pip install 'quantgate[postgres]'"
        )
        raise MissingExtra(sentence) from None
    limit = int(wait_s * 1000)
    own = " ".join(parsed.normalized_query.get("options", ()))  # of the address itself: ours come beside them
    given = {
        "connect_timeout": max(2, round(wait_s)),
        "tcp_user_timeout": limit,
        "options": f"{own} -c statement_timeout={limit} -c lock_timeout={limit} -c client_min_messages=warning",
    }
    # psycopg waits for two seconds at least before it gives a connection up
    return sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args=given,
        pool_size=2,
        pool_pre_ping=True,
        pool_timeout=wait_s,
    )


def _sqlite(url: sa.URL, wait_s: float) -> Engine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": wait_s, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _opened(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours: a transaction that will write says so at once
        write_ahead(connection, wait_s)
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def create(engine: Engine, *, where: str = "database") -> None:
    """The tables, where there are none. Raises QuantgateError when they are another version's, or out of reach."""
    found = begun(engine, lambda: _made(engine), what=where)
    if found != VERSION:
        engine.dispose()
        raise QuantgateError(f"{where}: its tables are of version {found}, expected {VERSION}; use the other release")


def begun(engine: Engine, job: Callable[[], T], *, what: str) -> T:
    """Of work at start: a database that fails it is one sentence. Raises QuantgateError."""
    try:
        return job()
    except sa.exc.SQLAlchemyError as problem:
        engine.dispose()
        raise QuantgateError(f"{what}: {plain(problem)}; check the address and that the database is up") from None


def _made(engine: Engine) -> int:
    with engine.begin() as link:
        if engine.dialect.name == "postgresql":
            link.execute(sa.text("SELECT pg_advisory_xact_lock(71020001)"))  # two gateways start at once
        META.create_all(link)
        link.execute(_insert(engine, ABOUT, name="version", value=VERSION))
        link.execute(_insert(engine, ABOUT, name="keys", value=0))
        return int(link.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == "version")).scalar_one())


def plain(problem: Exception) -> str:
    """The first line of what the driver says, without statements and values."""
    said = str(getattr(problem, "orig", None) or problem)
    return said.strip().splitlines()[0][:200] if said.strip() else type(problem).__name__


def now(link: Connection) -> float:
    """Seconds since 1970 by the database's clock; SQLite has this machine's."""
    if link.dialect.name == "sqlite":
        return time.time()
    return float(link.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _insert(engine: Any, table: sa.Table, **values: Any) -> Any:
    """Insert a row that may be there already."""
    from sqlalchemy.dialects import postgresql, sqlite

    kind: Any = sqlite if engine.dialect.name == "sqlite" else postgresql
    return kind.insert(table).values(**values).on_conflict_do_nothing()


def grant(
    link: Connection, account: str, unit: str, span: str, *, least: int, want: int, limit: int, ends_at: float | None
) -> int:
    """Charge between ``least`` and ``want``; 0 where the limit leaves less than ``least``.

    More than ``least`` only out of a quarter of what is left, so that what is short is not lent to one gateway alone.
    """
    link.execute(_insert(link, SPENT, account=account, unit=unit, span=span, amount=0, ends_at=ends_at))
    here = (SPENT.c.account == account) & (SPENT.c.unit == unit) & (SPENT.c.span == span)
    spent = link.execute(sa.select(SPENT.c.amount).where(here).with_for_update()).scalar_one()
    left = limit - int(spent)
    if left < least:
        return 0
    given = max(least, min(want, left // 4))
    link.execute(sa.update(SPENT).where(here).values(amount=SPENT.c.amount + given))
    return given


def charge(link: Connection, account: str, unit: str, span: str, amount: int) -> None:
    """Add to what was spent whatever the limit is (an answer longer than foreseen); less than 0 gives back."""
    here = (SPENT.c.account == account) & (SPENT.c.unit == unit) & (SPENT.c.span == span)
    link.execute(sa.update(SPENT).where(here).values(amount=SPENT.c.amount + amount))


def lease(link: Connection, holder: str, slot: int, account: str, unit: str, span: str, amount: int, at: float) -> None:
    """Add to what a holder has of one window. Without a slot nobody could tell what is left of it: it is just spent."""
    if slot < 0:
        return
    here = (LEASES.c.holder == holder) & (LEASES.c.slot == slot)
    raised = link.execute(sa.update(LEASES).where(here).values(amount=LEASES.c.amount + amount))
    if not raised.rowcount:
        row = {"holder": holder, "slot": slot, "account": account, "unit": unit, "span": span}
        link.execute(sa.insert(LEASES).values(**row, amount=amount, granted_at=at))


def release(link: Connection, holder: str, slot: int, account: str, unit: str, span: str, back: int) -> None:
    """End a lease; ``back`` of it was not spent."""
    gone = link.execute(sa.delete(LEASES).where((LEASES.c.holder == holder) & (LEASES.c.slot == slot)))
    if back and (gone.rowcount or slot < 0):
        charge(link, account, unit, span, -back)


def held_by(link: Connection, holder: str) -> list[Any]:
    return list(link.execute(sa.select(LEASES).where(LEASES.c.holder == holder)))


def forget(link: Connection, before: float) -> None:
    """Rows of windows that ended so long ago, where no lease is out."""
    out = sa.select(LEASES.c.span).where((LEASES.c.account == SPENT.c.account) & (LEASES.c.unit == SPENT.c.unit))
    link.execute(sa.delete(SPENT).where((SPENT.c.ends_at < before) & SPENT.c.span.not_in(out)))
