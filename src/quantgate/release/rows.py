"""Records as rows: canonical JSON with kind, version and digest, held against all three when it is read back.

Decisions and evidence are records of floors whose rooms are slow to import (scipy, torch); what only has to know that
their bytes are unchanged reads them as plain JSON, so that a rollback does not wait for a statistics package.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from quantgate.errors import RecordError
from quantgate.records import Record, canonical, digest_of, parse

if TYPE_CHECKING:
    from quantgate.decide import Decision
    from quantgate.decide.targets import TargetDecision

    AnyDecision = Decision | TargetDecision

R = TypeVar("R", bound=Record)
BACKUP = "restore the registry from a backup"


def written(record: Record) -> str:
    envelope = {"record": record.kind(), "version": record.version, "digest": record.digest, "body": record.body()}
    return canonical(envelope).decode()


def read(model: type[R], text: str, *, where: str) -> R:
    """Raises RecordError for a row that is broken, foreign, of another version or edited."""
    envelope = read_plain(text, where=where)
    found = (envelope["record"], envelope["version"])
    if found != (model.kind(), model.version):
        told = f"holds {found[0]} version {found[1]}, expected {model.kind()} version {model.version}"
        raise RecordError(f"{where}: {told}; register the run again")
    record = parse(model, envelope["body"], where=where, error=RecordError)
    if record.digest != envelope["digest"]:
        raise RecordError(f"{where}: its content does not match its digest; it was edited, {BACKUP}")
    return record


def read_plain(text: str, *, where: str) -> dict[str, Any]:
    """``record``, ``version``, ``digest`` and ``body``, whose digest is the one it bears. Raises RecordError."""
    try:
        envelope = json.loads(text)
        found = digest_of([envelope["record"], envelope["version"], envelope["body"]])
        same = bool(found == envelope["digest"])
    except (ValueError, TypeError, KeyError):
        raise RecordError(f"{where}: not a record of quantgate; {BACKUP}") from None
    if not same:
        raise RecordError(f"{where}: its content does not match its digest; it was edited, {BACKUP}")
    return dict(envelope)


def read_decision(text: str, *, where: str) -> AnyDecision:
    from quantgate.decide import Decision
    from quantgate.decide.targets import TargetDecision

    if read_plain(text, where=where)["record"] == TargetDecision.kind():
        return read(TargetDecision, text, where=where)
    return read(Decision, text, where=where)


def add(connection: Connection, table: sa.Table, **values: Any) -> bool:
    """Add a row; False where one with its digest is there already."""
    dialect: Any
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite as dialect
    else:
        from sqlalchemy.dialects import postgresql as dialect
    inserted = dialect.insert(table).values(**values).on_conflict_do_nothing().returning(table.c.digest)
    return connection.execute(inserted).first() is not None
