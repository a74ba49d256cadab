"""The registry's tables as this version of quantgate reads and writes them; migrations/ makes them.

What was registered and what was moved is only ever added: the database itself refuses to change or delete such a row.
One row of ``pointers`` per target is what a gateway reads; it only moves up by one.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

HEAD = "0002"  # the newest of migrations/versions
VERSION_TABLE = "registry_version"

metadata = MetaData()


def _told() -> tuple[Column[str], Column[str]]:
    return Column("at", String, nullable=False), Column("who", String, nullable=False)  # ISO 8601 UTC, actor


variants = Table(
    "variants",
    metadata,
    Column("id", Integer, primary_key=True),  # in the order of registration
    Column("digest", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("artifact", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("record", Text, nullable=False),  # canonical JSON of the record, its kind, version and digest
    *_told(),
    Index("variants_by_bytes", "artifact", "engine"),
)
evidence = Table(
    "evidence",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String, nullable=False, unique=True),
    Column("artifact", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("record", Text, nullable=False),
    *_told(),
    Index("evidence_by_bytes", "artifact", "engine"),
)
decisions = Table(
    "decisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("target", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("baseline", String, nullable=False),
    Column("record", Text, nullable=False),
    *_told(),
    UniqueConstraint("target", "digest"),
)
verdicts = Table(  # what a decision says of each variant, to be found by its bytes
    "verdicts",
    metadata,
    Column("decision", Integer, ForeignKey("decisions.id"), primary_key=True),
    Column("variant", String, primary_key=True),
    Column("target", String, nullable=False),
    Column("artifact", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("eligible", Boolean, nullable=False),
    Index("verdicts_by_bytes", "target", "artifact", "engine"),
)
moves = Table(
    "moves",
    metadata,
    Column("target", String, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("digest", String, nullable=False, unique=True),
    Column("record", Text, nullable=False),
    *_told(),
)
pointers = Table(
    "pointers",
    metadata,
    Column("target", String, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("record", Text, nullable=False),
)
KEPT = (variants, evidence, decisions, verdicts, moves)  # rows that are only added
