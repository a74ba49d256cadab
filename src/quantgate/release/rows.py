"""Records as rows: canonical JSON with kind, version and digest, held against all three when it is read back."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from quantgate.decide import Decision
from quantgate.decide.targets import TargetDecision
from quantgate.errors import RecordError
from quantgate.records import Record, canonical, parse

R = TypeVar("R", bound=Record)
TAIL = f'"record":"{TargetDecision.kind()}"'  # canonical keys are sorted: body, digest, record, version
AnyDecision = Decision | TargetDecision


def written(record: Record) -> str:
    envelope = {"record": record.kind(), "version": record.version, "digest": record.digest, "body": record.body()}
    return canonical(envelope).decode()


def read(model: type[R], text: str, *, where: str) -> R:
    """Raises RecordError for a row that is broken, foreign, of another version or edited."""
    try:
        envelope = json.loads(text)
        found = (envelope["record"], envelope["version"])
        body, digest = envelope["body"], envelope["digest"]
    except (ValueError, TypeError, KeyError):
        raise RecordError(f"{where}: not a {model.kind()} record; restore the registry from a backup") from None
    if found != (model.kind(), model.version):
        told = f"holds {found[0]} version {found[1]}, expected {model.kind()} version {model.version}"
        raise RecordError(f"{where}: {told}; register the run again")
    record = parse(model, body, where=where, error=RecordError)
    if record.digest != digest:
        raise RecordError(f"{where}: its content does not match its digest; it was edited, restore it from a backup")
    return record


def read_decision(text: str, *, where: str) -> AnyDecision:
    if TAIL in text[-100:]:
        return read(TargetDecision, text, where=where)
    return read(Decision, text, where=where)


def add(connection: Connection, table: sa.Table, **values: Any) -> bool:
    """Add a row; False where one with its digest is there already."""
    dialect: Any
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite as dialect
    else:
        from sqlalchemy.dialects import postgresql as dialect
    done = connection.execute(dialect.insert(table).values(**values).on_conflict_do_nothing())
    return bool(done.rowcount == 1)
