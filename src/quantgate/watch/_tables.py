"""Tables of the watch, the same in SQLite and PostgreSQL: evidence, points of charts, alarms, and deliveries."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from quantgate.errors import QuantgateError
from quantgate.serve._ledger_sql import begun

LAYOUT = 1
META = sa.MetaData()
ABOUT = sa.Table(
    "watch_about",
    META,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
STATES = sa.Table(
    "watch_state",
    META,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("fence", sa.BigInteger, nullable=False),  # raised by each that leads: who has a lower one writes nothing
    sa.Column("leader", sa.Text, nullable=False),  # for people
    sa.Column("trial", sa.Text, nullable=False),  # digest; empty: none yet
    sa.Column("number", sa.BigInteger, nullable=False),  # of the journal: up to it everything was counted
    sa.Column("state", sa.Text),  # JSON of the fold; none before the first
    sa.Column("verdict", sa.Text),
)
POINTS = sa.Table(
    "watch_points",
    META,
    sa.Column("trial", sa.Text, primary_key=True),
    sa.Column("signal", sa.Text, primary_key=True),
    sa.Column("direction", sa.Text, primary_key=True),
    sa.Column("slot", sa.BigInteger, primary_key=True),  # minutes since 1970: the last moment in each is kept
    sa.Column("record", sa.Text, nullable=False),
    sa.Index("watch_points_slot", "trial", "slot"),
)
ALARMS = sa.Table(
    "watch_alarms",
    META,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("done", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Index("watch_alarms_target", "target", "seq"),
)
DELIVERIES = sa.Table(
    "watch_deliveries",
    META,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("alarm", sa.Text, nullable=False, index=True),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("hook", sa.Text, nullable=False),  # digest of its address, which may be a secret
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("told", sa.Text, nullable=False),
)
LOCK = 71_020_003  # of PostgreSQL, while tables are made


def create(engine: Engine) -> None:
    """The tables, where there are none. Raises QuantgateError when they are another release's, or out of reach."""

    def make() -> int:
        with engine.begin() as link:
            if link.dialect.name == "postgresql":
                link.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            META.create_all(link)
            link.execute(put(link, ABOUT, name="layout", value=LAYOUT))
            return int(link.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == "layout")).scalar_one())

    found = begun(engine, make, what="watch")
    if found != LAYOUT:
        engine.dispose()
        raise QuantgateError(f"watch: its tables are of layout {found}, expected {LAYOUT}; use the other release")


def put(link: Connection, table: sa.Table, *, over: tuple[str, ...] = (), **values: Any) -> Any:
    """Insert a row; one that is there already stays as it is, but for the columns ``over``.

    Without ``values`` a statement for many rows, which are given when it is executed.
    """
    from sqlalchemy.dialects import postgresql, sqlite

    kind: Any = sqlite if link.dialect.name == "sqlite" else postgresql
    made = kind.insert(table).values(**values) if values else kind.insert(table)
    if not over:
        return made.on_conflict_do_nothing()
    keys = ["id"] if "id" in table.c else [column.name for column in table.primary_key]
    return made.on_conflict_do_update(index_elements=keys, set_={name: made.excluded[name] for name in over})
