"""The table of exchanges, and how one of an older layout is brought up to date where it stands.

Layout 2 names the exchange in a column, so that one which is written twice is there once. Rows of layout 1 stay as they
are, without that name: they were written by gateways that drew no sides, and nothing is counted in them.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from quantgate.errors import QuantgateError

LAYOUT = 2
META = sa.MetaData()
ROWS = sa.Table(
    "exchanges",
    META,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("variant", sa.Text, nullable=False),
    sa.Column("cohort", sa.Text, nullable=False),
    sa.Column("shadow", sa.Boolean, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Column("exchange", sa.Text),  # its id; none in rows of layout 1
    sa.Index("exchanges_at", "at"),
    sa.Index("exchanges_once", "exchange", "shadow", unique=True),
    sqlite_autoincrement=True,  # a number is never used twice, also not after rows were forgotten
)
ABOUT = sa.Table(
    "exchanges_about",
    META,
    sa.Column("name", sa.Text, primary_key=True),  # layout; begins: the last number of the layouts before
    sa.Column("value", sa.BigInteger, nullable=False),
)
LOCK = 71_020_002  # of PostgreSQL: who writes a batch takes its numbers alone, so that they come in order


def locked(link: Connection) -> None:
    """Until the transaction ends, nobody else writes exchanges; SQLite lets one write at a time anyway."""
    if link.dialect.name == "postgresql":
        link.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def make(link: Connection) -> None:
    """The table in its present layout. Raises QuantgateError when it is of a later one."""
    locked(link)
    before = 0 if sa.inspect(link).has_table(ROWS.name) else None
    if before is None or sa.inspect(link).has_table(ABOUT.name):
        META.create_all(link)
        found = {row.name: int(row.value) for row in link.execute(sa.select(ABOUT))}
        if found:
            _known(found.get("layout", 0))
            return
    else:
        before = _from_first(link)
    link.execute(sa.insert(ABOUT), [{"name": "layout", "value": LAYOUT}, {"name": "begins", "value": before or 0}])


def _from_first(link: Connection) -> int:
    """Layout 1 -> 2; the last number that there was."""
    if link.dialect.name == "postgresql":
        link.exec_driver_sql("SET LOCAL statement_timeout = 0")  # millions of rows may lie there
    link.exec_driver_sql("ALTER TABLE exchanges ADD COLUMN exchange TEXT")
    for index in ROWS.indexes:
        index.create(link, checkfirst=True)
    ABOUT.create(link)
    return int(link.execute(sa.select(sa.func.coalesce(sa.func.max(ROWS.c.id), 0))).scalar_one())


def _known(layout: int) -> None:
    if layout != LAYOUT:
        raise QuantgateError(f"exchanges: their table is of layout {layout}, expected {LAYOUT}; use the other release")


def insert(link: Connection, columns: tuple[str, ...]) -> str:
    """Plain, for a tuple each: SQLAlchemy's own insert costs as much again as writing the row."""
    mark = "?" if link.dialect.name == "sqlite" else "%s"
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join([mark] * len(columns))
    return f"INSERT INTO exchanges ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING"


def begins(link: Connection) -> int:
    """Rows up to this number are of a layout before this one; 0 where there are none, or no table yet."""
    if not sa.inspect(link).has_table(ABOUT.name):
        return 0
    asked: Any = link.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == "begins")).scalar()
    return int(asked or 0)
