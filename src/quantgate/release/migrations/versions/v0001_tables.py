"""Variants, evidence, decisions with their verdicts, moves, and one pointer for each target."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _records("variants", sa.Column("name", sa.String, nullable=False), *_bytes())
    _records("evidence", *_bytes())
    for table in ("variants", "evidence"):
        op.create_index(f"{table}_by_bytes", table, ["artifact", "engine"])
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("baseline", sa.String, nullable=False),
        *_told(),
        sa.UniqueConstraint("target", "digest"),
    )
    op.create_table(
        "verdicts",
        sa.Column("decision", sa.Integer, sa.ForeignKey("decisions.id"), primary_key=True),
        sa.Column("variant", sa.String, primary_key=True),
        sa.Column("target", sa.String, nullable=False),
        *_bytes(),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("eligible", sa.Boolean, nullable=False),
    )
    op.create_index("verdicts_by_bytes", "verdicts", ["target", "artifact", "engine"])
    op.create_table(
        "moves",
        sa.Column("target", sa.String, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String, nullable=False, unique=True),
        *_told(),
    )
    op.create_table(
        "pointers",
        sa.Column("target", sa.String, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )


def _records(table: str, *columns: sa.Column[str]) -> None:
    number = sa.Column("id", sa.Integer, primary_key=True)
    digest = sa.Column("digest", sa.String, nullable=False, unique=True)
    op.create_table(table, number, digest, *columns, *_told())


def _bytes() -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, nullable=False) for name in ("artifact", "engine")]


def _told() -> list[sa.Column[str]]:
    record = sa.Column("record", sa.Text, nullable=False)
    return [record, *(sa.Column(name, sa.String, nullable=False) for name in ("at", "who"))]
