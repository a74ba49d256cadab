"""Every row of a registry read back: against its digest, and the moves and pointers against each other."""

from __future__ import annotations

from dataclasses import dataclass

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


def _variants(connection: Connection) -> tuple[list[str], int]:
    found, rows = list[str](), connection.execute(sa.select(variants)).all()
    for row in rows:
        where = f"variants, row {row.id}"
        try:
            one = read(Variant, row.record, where=where)
        except RecordError as problem:
            found.append(str(problem))
            continue
        if (row.digest, row.name, row.artifact, row.engine) != (one.digest, one.name, one.artifact, one.engine):
            found.append(f"{where}: its columns are not those of its record")
    return found, len(rows)


def _evidence(connection: Connection) -> tuple[list[str], int]:
    from quantgate.evaluate.evidence import Evidence

    found, rows = list[str](), connection.execute(sa.select(evidence)).all()
    for row in rows:
        where = f"evidence, row {row.id}"
        try:
            one = read(Evidence, row.record, where=where)
        except RecordError as problem:
            found.append(str(problem))
            continue
        if (row.digest, row.artifact, row.engine) != (one.digest, one.artifact, one.engine):
            found.append(f"{where}: its columns are not those of its record")
    return found, len(rows)


def _decisions(connection: Connection) -> tuple[list[str], int]:
    found, rows = list[str](), connection.execute(sa.select(decisions)).all()
    for row in rows:
        where = f"decisions, row {row.id} on {row.target}"
        try:
            record = read_decision(row.record, where=where)
        except RecordError as problem:
            found.append(str(problem))
            continue
        said = {
            (one.variant, row.target, one.artifact, one.engine, one.verdict, one.eligible) for one in record.verdicts
        }
        own = connection.execute(sa.select(verdicts).where(verdicts.c.decision == row.id))
        kept = {(one.variant, one.target, one.artifact, one.engine, one.verdict, one.eligible) for one in own}
        if (row.digest, row.baseline) != (record.digest, record.baseline) or said != kept:
            found.append(f"{where}: its columns and verdicts are not those of its record")
    return found, len(rows)


def _moves(connection: Connection) -> tuple[list[str], int]:
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
            found.append(f"{where}: its columns are not those of its record")
        before = last if last is not None and last.target == one.target else None
        if one.previous != (before.digest if before else "") or one.before != (before.live if before else None):
            found.append(f"{where}: does not follow the move before it; one was taken out or put in")
        last = one
    return found, len(rows)


def _pointers(connection: Connection) -> tuple[list[str], int]:
    found, rows = list[str](), connection.execute(sa.select(pointers)).all()
    for row in rows:
        where = f"live {row.target}"
        try:
            one = read(Live, row.record, where=where)
        except RecordError as problem:
            found.append(str(problem))
            continue
        own = sa.select(moves.c.record).where(moves.c.target == row.target).order_by(moves.c.revision.desc()).limit(1)
        latest = connection.scalar(own)
        if latest is None or read(Move, latest, where=where).live != one or one.revision != row.revision:
            found.append(f"{where}: is not where its last move led")
    return found, len(rows)
