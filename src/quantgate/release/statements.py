"""Single reads and writes inside a transaction of the registry, each a statement or two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from quantgate.errors import Moved
from quantgate.records import Record
from quantgate.release import Live
from quantgate.release.history import Move
from quantgate.release.rows import add, read, written
from quantgate.release.tables import decisions, moves, pointers, verdicts

if TYPE_CHECKING:
    from quantgate.release.rows import AnyDecision


def keep(connection: Connection, table: sa.Table, one: Record, values: dict[str, str], at: str, who: str) -> bool:
    return add(connection, table, digest=one.digest, record=written(one), at=at, who=who, **values)


def keep_decision(connection: Connection, target: str, decision: AnyDecision, at: str, who: str) -> bool:
    values = {"target": target, "baseline": decision.baseline}
    if not keep(connection, decisions, decision, values, at, who):
        return False
    own = sa.select(decisions.c.id).where(decisions.c.target == target, decisions.c.digest == decision.digest)
    rows = [
        {
            "decision": connection.scalar(own),
            "variant": one.variant,
            "target": target,
            "artifact": one.artifact,
            "engine": one.engine,
            "verdict": one.verdict,
            "eligible": one.eligible,
        }
        for one in decision.verdicts
    ]
    if rows:
        connection.execute(sa.insert(verdicts), rows)
    return True


def live_of(connection: Connection, target: str, *, alone: bool = False) -> Live | None:
    """``alone``: nobody else moves it until the transaction ends; SQLite lets one write at a time anyway."""
    asked = sa.select(pointers.c.record).where(pointers.c.target == target)
    text = connection.scalar(asked.with_for_update() if alone else asked)
    return None if text is None else read(Live, text, where=f"live {target}")


def moves_of(connection: Connection, target: str, limit: int | None = None) -> tuple[Move, ...]:
    asked = sa.select(moves.c.record).where(moves.c.target == target).order_by(moves.c.revision.desc()).limit(limit)
    return tuple(read(Move, text, where=f"moves of {target}") for text in connection.scalars(asked))


def digest_of_move(connection: Connection, target: str, revision: int) -> str:
    own = sa.select(moves.c.digest).where(moves.c.target == target, moves.c.revision == revision)
    return connection.scalar(own) or ""


def add_move(connection: Connection, move: Move) -> None:
    values = {"target": move.target, "revision": move.revision, "digest": move.digest, "record": written(move)}
    connection.execute(sa.insert(moves).values(at=move.at, who=move.who, **values))


def swap(connection: Connection, before: Live, live: Live) -> None:
    """Compare and swap: only the pointer that still is where ``before`` saw it moves."""
    own = (pointers.c.target == before.target, pointers.c.revision == before.revision)
    values = {"revision": live.revision, "digest": live.digest, "record": written(live)}
    done = connection.execute(sa.update(pointers).where(*own).values(values))
    if done.rowcount != 1:
        raise Moved(f"{before.target}: somebody else moved it since revision {before.revision}; look, and try again")
