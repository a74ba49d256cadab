"""Every row of a registry read back: against its digest, and the moves and pointers against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from quantgate.errors import RecordError
from quantgate.release import Live, Variant
from quantgate.release.database import reading
from quantgate.release.history import Move
from quantgate.release.rows import read, read_decision
from quantgate.release.store import Registry
from quantgate.release.tables import decisions, evidence, moves, pointers, variants, verdicts


@dataclass(frozen=True, slots=True)
class Checked:
    rows: int
    problems: tuple[str, ...]


def problems(registry: Registry) -> Checked:
    """What is not as it was written, one sentence each. Raises ReleaseError where nothing can be read."""
    found, rows = list[str](), 0
    with reading(registry.engine, registry.url) as connection:
        for check in (_variants, _evidence, _decisions, _moves, _pointers):
            told, number = check(connection)
            found += told
            rows += number
    return Checked(rows, tuple(found))


Rows = Sequence[Any]
Told = tuple[list[str], int]
COLUMNS = "its columns are not those of its record"


def _each(rows: Rows, where: Callable[[Any], str], judge: Callable[[Any, str], str]) -> Told:
    """``judge`` reads a row and says what is wrong with it, "" where nothing is; a row that cannot be read is told."""
    found = list[str]()
    for row in rows:
        at = where(row)
        try:
            wrong = judge(row, at)
        except RecordError as problem:
            found.append(str(problem))
            continue
        if wrong:
            found.append(f"{at}: {wrong}")
    return found, len(rows)


def _variants(connection: Connection) -> Told:
    def judge(row: Any, at: str) -> str:
        one = read(Variant, row.record, where=at)
        same = (row.digest, row.name, row.artifact, row.engine) == (one.digest, one.name, one.artifact, one.engine)
        return "" if same else COLUMNS

    return _each(connection.execute(sa.select(variants)).all(), lambda row: f"variants, row {row.id}", judge)


def _evidence(connection: Connection) -> Told:
    from quantgate.evaluate.evidence import Evidence

    def judge(row: Any, at: str) -> str:
        one = read(Evidence, row.record, where=at)
        return "" if (row.digest, row.artifact, row.engine) == (one.digest, one.artifact, one.engine) else COLUMNS

    return _each(connection.execute(sa.select(evidence)).all(), lambda row: f"evidence, row {row.id}", judge)


def _decisions(connection: Connection) -> Told:
    def judge(row: Any, at: str) -> str:
        record = read_decision(row.record, where=at)
        said = {
            (one.variant, row.target, one.artifact, one.engine, one.verdict, one.eligible) for one in record.verdicts
        }
        own = connection.execute(sa.select(verdicts).where(verdicts.c.decision == row.id))
        kept = {(one.variant, one.target, one.artifact, one.engine, one.verdict, one.eligible) for one in own}
        same = (row.digest, row.baseline) == (record.digest, record.baseline) and said == kept
        return "" if same else "its columns and verdicts are not those of its record"

    rows = connection.execute(sa.select(decisions)).all()
    return _each(rows, lambda row: f"decisions, row {row.id} on {row.target}", judge)


def _moves(connection: Connection) -> Told:
    found = list[str]()
    rows = connection.execute(sa.select(moves).order_by(moves.c.target, moves.c.revision)).all()
    last: Move | None = None
    for row in rows:
        where = f"moves of {row.target}, revision {row.revision}"
        try:
            one = read(Move, row.record, where=where)
        except RecordError as problem:
            found.append(str(problem))
            last = None
            continue
        if (row.digest, row.target, row.revision) != (one.digest, one.target, one.live.revision):
            found.append(f"{where}: {COLUMNS}")
        before = last if last is not None and last.target == one.target else None
        if one.previous != (before.digest if before else "") or one.before != (before.live if before else None):
            found.append(f"{where}: does not follow the move before it; one was taken out or put in")
        last = one
    return found, len(rows)


def _pointers(connection: Connection) -> Told:
    def judge(row: Any, at: str) -> str:
        one = read(Live, row.record, where=at)
        own = sa.select(moves.c.record).where(moves.c.target == row.target).order_by(moves.c.revision.desc()).limit(1)
        latest = connection.scalar(own)
        led = latest is not None and read(Move, latest, where=f"{at}, its last move").live == one
        return "" if led and one.revision == row.revision else "is not where its last move led"

    return _each(connection.execute(sa.select(pointers)).all(), lambda row: f"live {row.target}", judge)
