"""The registry: what may be released, why, and what each target serves. Rows are added; one pointer per target moves.

    registry = Registry.open("sqlite:///runs/quantgate.db", actor="ada")
    registry.live("fleet").stable.name

A registry may be used from several threads; each call is one transaction.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.engine import URL, Connection, Engine

from quantgate.errors import Moved, RecordError, ReleaseError, UnknownName, UsageError
from quantgate.records import parse
from quantgate.release import Live, Variant
from quantgate.release.database import (
    DEFAULT_URL,
    Stamp,
    Unreachable,
    address,
    connect,
    reading,
    settled,
    shown,
    writing,
)
from quantgate.release.history import Decided, Move, What
from quantgate.release.rows import read, read_decision, read_plain, written
from quantgate.release.schema import ensure
from quantgate.release.statements import add_move, digest_of_move, keep, keep_decision, live_of, moves_of, swap
from quantgate.release.tables import decisions, evidence, pointers, variants, verdicts

if TYPE_CHECKING:
    from quantgate.evaluate.evidence import Evidence
    from quantgate.release.rows import AnyDecision

Moves = Callable[[], tuple[Move, ...]]  # of a target, the latest first
Plan = Callable[[Live, Moves], tuple[Live, What, dict[str, Any]] | None]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Registered:
    """What a registration added, and which targets it met for the first time."""

    added: int  # records that were not there before
    opened: tuple[str, ...]
    other_baseline: tuple[str, ...]  # targets that serve another baseline than this run compared with


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Registry:
    """Raises ReleaseError in one sentence wherever the database does not answer."""

    url: URL
    engine: Engine
    actor: str = ""
    now: Callable[[], datetime] = utc_now
    _seen: dict[str, tuple[int, Stamp]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(
        cls, url: str = DEFAULT_URL, actor: str = "", *, create: bool = False, now: Callable[[], datetime] = utc_now
    ) -> Self:
        """``url``: of SQLite or PostgreSQL, or a SQLite file's path. ``create``: make it where it is not there.

        Raises UsageError, MissingExtra, and ReleaseError for a registry that is not there or of another version.
        """
        where = address(url)
        engine = connect(where)
        try:
            ensure(engine, where, create=create)
        except BaseException:
            engine.dispose()
            raise
        registry = cls(where, engine, actor, now)
        weakref.finalize(registry, engine.dispose)
        return registry

    def close(self) -> None:
        """End its connections at once; otherwise they end with it."""
        self.engine.dispose()

    @property
    def name(self) -> str:
        """How messages name it: without a password."""
        return shown(self.url)

    def targets(self) -> tuple[str, ...]:
        with reading(self.engine, self.url) as connection:
            return tuple(connection.scalars(sa.select(pointers.c.target).order_by(pointers.c.target)))

    def live(self, target: str) -> Live:
        """What ``target`` serves now. Raises UnknownName."""
        found = self.changed(target, -1)
        if found is None:
            raise UnknownName("target", target, self.targets(), where=f"registry {self.name}")
        return found

    def revision(self, target: str) -> int:
        """Of what a target serves; 0 where nobody opened it."""
        with reading(self.engine, self.url) as connection:
            return connection.scalar(sa.select(pointers.c.revision).where(pointers.c.target == target)) or 0

    def changed(self, target: str, since: int) -> Live | None:
        """What a target serves, if its pointer moved beyond revision ``since``: what a gateway asks all the time.

        Of a SQLite file that nobody wrote to since it was asked the same, two looks at the file are enough.
        """
        stamp = settled(self.url)
        if stamp is not None and self._seen.get(target) == (since, stamp):
            return None
        asked = sa.select(pointers.c.record).where(pointers.c.target == target, pointers.c.revision > since)
        with reading(self.engine, self.url) as connection:
            text = connection.scalar(asked)
        if text is None and stamp is not None:
            self._seen[target] = (since, stamp)
        return None if text is None else read(Live, text, where=f"registry {self.name}, live {target}")

    def history(self, target: str, *, limit: int | None = None) -> tuple[Move, ...]:
        """The moves of a target, the latest first."""
        with reading(self.engine, self.url) as connection:
            return moves_of(connection, target, limit)

    def register(
        self,
        given: Iterable[Variant] = (),
        proofs: Iterable[Evidence] = (),
        decided: Mapping[str, AnyDecision] = {},
        *,
        baseline: Variant | None = None,
    ) -> Registered:
        """Add variants, their evidence and the decision of each target, all or nothing; what is there stays as it is.

        A target that is new here is opened, and serves ``baseline``. Raises UsageError, ReleaseError, DiskFull.
        """
        if baseline is not None and not baseline.is_baseline:
            raise UsageError(f"register: '{baseline.name}' is to be the baseline and is not marked as one")
        at, who = self.now().isoformat(), self.actor
        opened, strange, added = list[str](), list[str](), 0
        with writing(self.engine, self.url) as connection:
            for one in (*given, *([baseline] if baseline else [])):
                values = {"name": one.name, "artifact": one.artifact, "engine": one.engine}
                added += keep(connection, variants, one, values, at, who)
            for proof in proofs:
                values = {"artifact": proof.artifact, "engine": proof.engine}
                added += keep(connection, evidence, proof, values, at, who)
            for target, decision in decided.items():
                if (own := getattr(decision, "target", target)) != target:
                    raise UsageError(f"register: a decision of '{own}' is given for '{target}'")
                added += keep_decision(connection, target, decision, at, who)
                live, compared = live_of(connection, target), baseline.artifact if baseline else decision.baseline
                if live is None and baseline is not None:
                    self._open(connection, target, baseline)
                    opened.append(target)
                elif live is not None and live.baseline.artifact != compared:
                    strange.append(target)
        return Registered(added, tuple(opened), tuple(strange))

    def _open(self, connection: Connection, target: str, baseline: Variant) -> None:
        live = Live(target=target, revision=1, baseline=baseline, stable=baseline)
        move = self._move(None, live, "open", previous="")
        add_move(connection, move)
        row = {"target": target, "revision": 1, "digest": live.digest, "record": written(live)}
        connection.execute(sa.insert(pointers).values(row))

    def variants(self, target: str | None = None) -> tuple[Variant, ...]:
        """All that were registered, or those that a decision about ``target`` names; the latest first."""
        asked = sa.select(variants.c.record).order_by(variants.c.id.desc())
        if target is not None:
            same = sa.and_(variants.c.artifact == verdicts.c.artifact, variants.c.engine == verdicts.c.engine)
            asked = asked.where(sa.exists().where(same, verdicts.c.target == target))
        with reading(self.engine, self.url) as connection:
            texts = connection.scalars(asked).all()
        return tuple(read(Variant, text, where=f"registry {self.name}, variants") for text in texts)

    def latest(self, target: str, name: str) -> tuple[str, str] | None:
        """Artifact and engine of what the latest decision on ``target`` that knows ``name`` calls so."""
        asked = (
            sa.select(verdicts.c.artifact, verdicts.c.engine)
            .where(verdicts.c.target == target, verdicts.c.variant == name)
            .order_by(verdicts.c.decision.desc())
            .limit(1)
        )
        with reading(self.engine, self.url) as connection:
            row = connection.execute(asked).first()
        return None if row is None else (row.artifact, row.engine)

    def decided(self, target: str, artifact: str, engine: str) -> Decided | None:
        """The latest decision on ``target`` about exactly these bytes in this engine; None: nobody decided."""
        asked = (
            sa.select(verdicts.c.variant, decisions.c.record, decisions.c.digest, decisions.c.at, decisions.c.who)
            .join(decisions, verdicts.c.decision == decisions.c.id)
            .where(verdicts.c.target == target, verdicts.c.artifact == artifact, verdicts.c.engine == engine)
            .order_by(decisions.c.id.desc())
            .limit(1)
        )
        with reading(self.engine, self.url) as connection:
            row = connection.execute(asked).first()
        if row is None:
            return None
        where = f"registry {self.name}, decision {row.digest[:19]} on {target}"
        told = read_plain(row.record, where=where)["body"]
        found = next(one for one in told["verdicts"] if one["variant"] == row.variant)
        if (found["artifact"], found["engine"]) != (artifact, engine):
            raise RecordError(f"{where}: {row.variant} is of other bytes there; restore the registry from a backup")
        more = {"baseline": told["baseline"], "chosen": told["chosen"] == row.variant, "at": row.at, "who": row.who}
        own = {key: found[key] for key in ("variant", "verdict", "eligible", "sentence")}
        return parse(Decided, own | more | {"target": target, "decision": row.digest}, where=where, error=RecordError)

    def decisions(self, target: str) -> tuple[AnyDecision, ...]:
        """All about a target, the latest first."""
        asked = sa.select(decisions.c.record).where(decisions.c.target == target).order_by(decisions.c.id.desc())
        with reading(self.engine, self.url) as connection:
            texts = connection.scalars(asked).all()
        return tuple(read_decision(text, where=f"registry {self.name}, decisions on {target}") for text in texts)

    def evidence(self, artifact: str, engine: str) -> tuple[Evidence, ...]:
        """Of exactly these bytes in this engine, the latest first."""
        from quantgate.evaluate.evidence import Evidence

        same = (evidence.c.artifact == artifact, evidence.c.engine == engine)
        asked = sa.select(evidence.c.record).where(*same).order_by(evidence.c.id.desc())
        with reading(self.engine, self.url) as connection:
            texts = connection.scalars(asked).all()
        return tuple(read(Evidence, text, where=f"registry {self.name}, evidence") for text in texts)

    def move(
        self,
        before: Live,
        live: Live,
        what: What,
        *,
        why: str = "",
        decision: str = "",
        capacity: str = "",
        details: Mapping[str, JsonValue] = {},
    ) -> Move:
        """Move a target's pointer from ``before`` to ``live``: when this returns, it is on the disk.

        Raises Moved where somebody else was faster, ReleaseError and DiskFull with the pointer where it was, and says
        so where the database went away before it could tell.
        """
        told: dict[str, Any] = {"why": why, "decision": decision, "capacity": capacity, "details": dict(details)}

        def plan(now: Live, _: Moves) -> tuple[Live, What, dict[str, Any]]:
            if now.revision != before.revision:
                raise Moved(
                    f"{before.target}: somebody else moved it since revision {before.revision}; look with: quantgate "
                    f"releases {before.target}, and decide again"
                )
            return live, what, told

        move = self.move_from(before.target, plan)
        assert move is not None  # the plan always has one
        return move

    def move_from(self, target: str, plan: Plan) -> Move | None:
        """Ask ``plan`` where to move ``target`` from what is live now, while nobody else can move it; None: nowhere.

        On the disk when this returns. Raises what ``plan`` raises, and as ``move`` does.
        """
        move = None
        try:
            with writing(self.engine, self.url) as connection:
                before = live_of(connection, target, alone=True)
                if before is None:
                    raise UnknownName("target", target, self.targets(), where=f"registry {self.name}")
                planned = plan(before, partial(moves_of, connection, target))
                if planned is None:
                    return None
                live, what, told = planned
                previous = digest_of_move(connection, target, before.revision)
                move = self._move(before, live, what, previous=previous, **told)
                swap(connection, before, live)
                add_move(connection, move)
        except Unreachable as lost:
            if move is None or not self._kept(move, lost):
                raise
        return move

    def _move(self, before: Live | None, live: Live, what: What, *, previous: str, **told: Any) -> Move:
        return Move(
            target=live.target,
            revision=live.revision,
            at=self.now().isoformat(),
            who=self.actor,
            what=what,
            before=before,
            live=live,
            previous=previous,
            **told,
        )

    def _kept(self, move: Move, lost: Unreachable) -> bool:
        """Whether a move whose acknowledgement was lost is there after all."""
        try:
            with reading(self.engine, self.url) as connection:
                return digest_of_move(connection, move.target, move.revision) == move.digest
        except ReleaseError:
            told = f"{lost}; whether {move.target} was moved is not known, look with: quantgate releases {move.target}"
            raise ReleaseError(told) from None
