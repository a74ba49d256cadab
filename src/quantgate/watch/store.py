"""Evidence on the disk: counts and their place in the journal in one transaction, so nothing counts twice or never.

Any process reads; one writes, who leads: each save names the fence that its leadership got, and a save under an older
fence than the row's fails whole. See ``watch.Standings`` for what is read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from quantgate.errors import QuantgateError, RecordError
from quantgate.records import Record, parse
from quantgate.serve._ledger_sql import begun
from quantgate.serve.exchanges import Reader
from quantgate.watch import Alarm, Point, Verdict
from quantgate.watch._tables import ALARMS, DELIVERIES, POINTS, STATES, create, put

R = TypeVar("R", bound=Record)
T = TypeVar("T")
MINUTE_S = 60
DAY_MINUTES = 24 * 60
COARSE = 10  # minutes, of points that are older than a day
KEPT_MINUTES = 90 * DAY_MINUTES
MOMENTS = 500  # of a chart


class Deposed(QuantgateError):
    """Somebody else leads by now: nothing of this save was kept."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a leader left: the fold's state and the number in the journal that it goes up to."""

    number: int
    state: dict[str, Any] | None  # None: nothing was folded yet
    trial: str = ""
    broken: str = ""  # why there is no state, where there was one


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alarm for one webhook."""

    id: str  # the same however often it is sent
    alarm: str
    hook: str  # digest of its address
    host: str
    next_at: float  # seconds since 1970
    tries: int = 0
    done: bool = False
    told: str = "waits"


@dataclass(frozen=True, slots=True)
class Step:
    """What is saved at once."""

    evidence: Evidence | None = None
    verdict: Verdict | None = None
    points: Sequence[Point] = ()
    alarms: Sequence[Alarm] = ()
    deliveries: Sequence[Delivery] = ()


@dataclass(slots=True)
class Store:
    """``watch.Standings``, and what the watcher writes. Its methods raise QuantgateError where the database fails."""

    engine: Engine
    reader: Reader | None = None  # of the exchanges: how far the evidence is behind them
    clock: Callable[[], float] = time.time
    _reads: Engine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._reads = self.engine.execution_options(reads=True)

    def create(self) -> None:
        """The tables, where there are none."""
        create(self.engine)

    def close(self) -> None:
        self.engine.dispose()

    def claim(self, target: str, leader: str, begins: int = 0) -> int:
        """The fence of who leads from now on. ``begins``: the place in the journal where there is no evidence yet."""

        def work(link: Connection) -> int:
            link.execute(put(link, STATES, target=target, fence=0, leader="", trial="", number=begins))
            own = STATES.c.target == target
            link.execute(sa.update(STATES).where(own).values(fence=STATES.c.fence + 1, leader=leader))
            return int(link.execute(sa.select(STATES.c.fence).where(own)).scalar_one())

        return self._write(work)

    def load(self, target: str) -> Evidence | None:
        """None where nobody ever led."""
        columns = (STATES.c.number, STATES.c.trial, STATES.c.state)
        row = self._one(sa.select(*columns).where(STATES.c.target == target))
        if row is None:
            return None
        state, broken = None, ""
        try:
            state = None if row.state is None else json.loads(row.state)
        except ValueError as problem:
            broken = f"not a record ({problem})"
        return Evidence(int(row.number), state, str(row.trial), broken)

    def save(self, target: str, fence: int, step: Step) -> None:
        """All of it or nothing, on the disk when this returns. Raises Deposed."""
        values = dict[str, Any](fence=fence)
        if step.evidence is not None:
            state = None if step.evidence.state is None else json.dumps(step.evidence.state, allow_nan=False)
            values |= {"number": step.evidence.number, "state": state, "trial": step.evidence.trial}
        if step.verdict is not None:
            values["verdict"] = _text(step.verdict)

        def work(link: Connection) -> None:
            mine = (STATES.c.target == target, STATES.c.fence == fence)
            if link.execute(sa.update(STATES).where(*mine).values(values)).rowcount != 1:
                raise Deposed(f"watch: another process leads {target} by now; this one follows")
            if step.points:
                rows = [_point(one, step.evidence) for one in step.points]
                link.execute(put(link, POINTS, over=("record",)), rows)
            for alarm in step.alarms:
                row = {"id": alarm.id, "target": target, "done": alarm.done, "record": _text(alarm)}
                link.execute(put(link, ALARMS, over=("done", "record"), **row))
            for delivery in step.deliveries:
                row = {name: getattr(delivery, name) for name in Delivery.__slots__}
                over = ("tries", "next_at", "done", "told")
                link.execute(put(link, DELIVERIES, over=over, target=target, **row))

        self._write(work)

    def thin(self) -> int:
        """Forget points that nobody needs: one for each ten minutes of what is older than a day, 90 days of them."""
        newest = int(self.clock()) // MINUTE_S
        place = (POINTS.c.trial, POINTS.c.signal, POINTS.c.direction)
        ten = POINTS.c.slot // COARSE
        old = POINTS.c.slot < newest - DAY_MINUTES
        last = sa.select(*place, sa.func.max(POINTS.c.slot).label("slot")).where(old).group_by(*place, ten).subquery()
        same = [last.c[column.name] == column for column in (*place, POINTS.c.slot)]
        kept = sa.exists(sa.select(sa.literal(1)).select_from(last).where(*same).correlate(POINTS))

        def work(link: Connection) -> int:
            gone: int = link.execute(sa.delete(POINTS).where(POINTS.c.slot < newest - KEPT_MINUTES)).rowcount
            return gone + int(link.execute(sa.delete(POINTS).where(old, ~kept)).rowcount)

        return self._write(work)

    def verdict(self, target: str) -> Verdict | None:
        row = self._one(sa.select(STATES.c.verdict).where(STATES.c.target == target))
        return None if row is None or row.verdict is None else _read(Verdict, row.verdict, f"verdict on {target}")

    def leader(self, target: str) -> str:
        """Who leads, for people; empty where nobody ever did."""
        row = self._one(sa.select(STATES.c.leader).where(STATES.c.target == target))
        return "" if row is None else str(row.leader)

    def points(self, trial: str, *, since: float = 0.0, signal: str | None = None) -> list[Point]:
        asked = [POINTS.c.trial == trial, POINTS.c.slot >= int(since) // MINUTE_S]
        if signal is not None:
            asked.append(POINTS.c.signal == signal)
        slots = [int(row.slot) for row in self._all(sa.select(POINTS.c.slot).where(*asked).distinct())]
        slots.sort()
        every = -(-len(slots) // MOMENTS) or 1
        wanted = slots[::-1][::every]  # the newest is always there
        rows = sa.select(POINTS.c.record).where(*asked).order_by(POINTS.c.slot, POINTS.c.signal, POINTS.c.direction)
        if every > 1:
            rows = rows.where(POINTS.c.slot.in_(wanted))
        return [_read(Point, row.record, "point") for row in self._all(rows)]

    def alarms(self, target: str, *, limit: int = 50) -> list[Alarm]:
        asked = sa.select(ALARMS.c.record).where(ALARMS.c.target == target).order_by(ALARMS.c.seq.desc()).limit(limit)
        return self._alarms(asked)

    def alarm(self, id: str) -> Alarm | None:
        found = self._alarms(sa.select(ALARMS.c.record).where(ALARMS.c.id == id))
        return found[0] if found else None

    def pending(self, target: str) -> list[Alarm]:
        """What was decided and not settled, the oldest first."""
        asked = sa.select(ALARMS.c.record).where(ALARMS.c.target == target, ALARMS.c.done == "pending")
        return self._alarms(asked.order_by(ALARMS.c.seq))

    def due(self, target: str) -> list[Delivery]:
        """What is not delivered yet, the next first."""
        asked = sa.select(DELIVERIES).where(DELIVERIES.c.target == target, DELIVERIES.c.done.is_(False))
        return [_delivery(row) for row in self._all(asked.order_by(DELIVERIES.c.next_at))]

    def behind_s(self, target: str) -> float | None:
        if self.reader is None:
            return None
        row = self._one(sa.select(STATES.c.number).where(STATES.c.target == target))
        number = self.reader.begins() if row is None else int(row.number)
        waits = self.reader.waits_since(number, target)
        if waits is None:
            return 0.0 if self.verdict(target) is not None else None
        return max(0.0, self.clock() - waits)

    def _alarms(self, asked: sa.Select[Any]) -> list[Alarm]:
        found = [_read(Alarm, row.record, "alarm") for row in self._all(asked)]
        ids = [one.id for one in found]
        told: dict[str, list[str]] = {}
        for row in self._all(sa.select(DELIVERIES).where(DELIVERIES.c.alarm.in_(ids)).order_by(DELIVERIES.c.id)):
            told.setdefault(row.alarm, []).append(f"{row.host}: {row.told}")
        return [one.model_copy(update={"webhooks": tuple(told.get(one.id, ()))}) for one in found]

    def _write(self, work: Callable[[Connection], T]) -> T:
        def job() -> T:
            with self.engine.begin() as link:
                return work(link)

        return begun(self.engine, job, what="watch")

    def _all(self, asked: sa.Select[Any]) -> Sequence[Any]:
        def job() -> Sequence[Any]:
            with self._reads.begin() as link:
                return link.execute(asked).all()

        return begun(self.engine, job, what="watch")

    def _one(self, asked: sa.Select[Any]) -> Any:
        found = self._all(asked)
        return found[0] if found else None


def _point(one: Point, evidence: Evidence | None) -> Mapping[str, Any]:
    slot = int(one.at) // MINUTE_S
    own = {"signal": one.signal, "direction": one.direction, "slot": slot, "record": _text(one)}
    return own | {"trial": evidence.trial if evidence else ""}


def _delivery(row: Any) -> Delivery:
    return Delivery(**{name: getattr(row, name) for name in Delivery.__slots__})


def _text(record: Record) -> str:
    return json.dumps(record.body(), allow_nan=False)


def _read(model: type[R], text: str, where: str) -> R:
    """Without what this version does not know at its top: rows stay for months, and releases come and go."""
    try:
        said = json.loads(text)
    except ValueError as broken:
        raise RecordError(f"watch, {where}: not a record ({broken}); delete the row") from None
    known = {key: said[key] for key in said if key in model.model_fields} if isinstance(said, dict) else said
    return parse(model, known, where=f"watch, {where}", error=RecordError)
