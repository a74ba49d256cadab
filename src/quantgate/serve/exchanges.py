"""Exchanges on the disk: what became of each request, written by one thread, read by the watch.

Requests never wait for it: ``put`` appends to a bounded queue, and what does not fit is dropped and counted. A batch
is one transaction, of 500 rows or of 50 ms. On a full disk, or with the database gone, the gateway goes on: the queue
fills, drops are counted, ``trouble`` says why, and writing goes on by itself. A batch whose acknowledgement was lost is
written again, and an exchange is there once all the same. Rows have numbers that only grow in the order in which they
can be read, so a reader that remembers the last one misses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from quantgate.errors import RecordError
from quantgate.records import parse
from quantgate.serve import Exchange
from quantgate.serve._exchange_rows import ROWS, begins, insert, locked, make
from quantgate.serve._ledger_sql import begun, plain

log = logging.getLogger("quantgate.serve")
BATCH = 500
WAIT_S = 0.05  # that a row may wait for others
AGAIN_S = 0.5  # between tries while nothing can be written
HOURLY_S = 3600.0
KNOWN = frozenset(Exchange.model_fields)
SWEEP = 5000  # rows that one step of forgetting takes: writing goes on between them
COLUMNS = ("at", "target", "variant", "cohort", "shadow", "revision", "session")
WRITTEN = (*COLUMNS, "exchange", "record")


class Journal:
    """See ``serve.Sink``. ``start`` makes the table and the thread; ``close`` writes what waits, and ends."""

    def __init__(self, engine: Engine, *, days: int = 30, queue: int = 20_000, keep_text: bool = False) -> None:
        self._engine, self._days, self._limit, self._keep_text = engine, days, queue, keep_text
        self._queue: deque[Exchange] = deque()
        self._some, self._many, self._end = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="exchanges", daemon=True)
        self.dropped = self.written = 0
        self.trouble: str | None = None

    def start(self) -> None:
        """Raises QuantgateError when the database is not there, or of another release."""
        try:
            begun(self._engine, self._make, what="exchanges")
        except BaseException:
            self._engine.dispose()
            raise
        self._thread.start()

    def put(self, exchange: Exchange) -> None:
        queue = self._queue
        if len(queue) >= self._limit:
            self.dropped += 1
            return
        queue.append(exchange)
        if not self._some.is_set():
            self._some.set()
        if len(queue) >= BATCH and not self._many.is_set():
            self._many.set()

    def close(self, *, wait_s: float = 5.0) -> None:
        """What cannot be written within ``wait_s`` is dropped and counted."""
        self._last_s = time.monotonic() + wait_s
        self._end.set()
        self._some.set()
        self._many.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.dropped += len(self._queue)
        self._queue.clear()
        self._engine.dispose()

    def _make(self) -> None:
        with self._engine.begin() as link:
            make(link)

    def _run(self) -> None:
        forgot = -HOURLY_S
        batch: list[Exchange] = []
        while not self._end.is_set() or batch or self._queue:
            if not batch:
                self._some.wait(HOURLY_S)
                self._some.clear()
                self._many.wait(WAIT_S)
                self._many.clear()
            batch += [self._queue.popleft() for _ in range(min(BATCH - len(batch), len(self._queue)))]
            if batch and self._write(batch):
                batch = []
            elif batch and self._end.wait(AGAIN_S) and time.monotonic() > self._last_s:
                self.dropped += len(batch)
                return
            if self._queue:
                self._some.set()
            if time.monotonic() - forgot > HOURLY_S:
                forgot = time.monotonic()
                self._forget()

    def _write(self, batch: list[Exchange]) -> bool:
        made = [(one, row) for one in batch if (row := self._row(one)) is not None]
        batch[:] = [one for one, _ in made]  # what cannot be written is not tried again
        rows = [row for _, row in made]
        try:
            with self._engine.begin() as link:
                locked(link)
                link.exec_driver_sql(insert(link, WRITTEN), rows)
        except sa.exc.SQLAlchemyError as problem:
            if self.trouble is None:
                log.warning("exchanges cannot be written (%s); requests go on, and drops are counted", plain(problem))
            self.trouble = f"exchanges cannot be written ({plain(problem)})"
            return False
        if self.trouble is not None:
            log.warning("exchanges are written again; %d were dropped so far", self.dropped)
        self.trouble = None
        self.written += len(rows)
        return True

    def _row(self, one: Exchange) -> tuple[Any, ...] | None:
        """None, counted, for what cannot be written down: one such row must not hold up all others."""
        said = dict(one.__dict__)
        if not self._keep_text:
            said["text"] = None
        try:
            return (*(said[name] for name in COLUMNS), one.id, orjson.dumps(said).decode())
        except (TypeError, ValueError) as problem:
            self.dropped += 1
            log.warning("exchange %s cannot be written (%s)", one.id, problem)
            return None

    def _forget(self) -> None:
        """Rows beyond the days that they are kept for."""
        before = time.time() - self._days * 86400.0
        old = sa.select(ROWS.c.id).where(ROWS.c.at < before).limit(SWEEP)
        gone = SWEEP
        while gone == SWEEP and not self._end.is_set():
            try:
                with self._engine.begin() as link:
                    gone = link.execute(sa.delete(ROWS).where(ROWS.c.id.in_(old))).rowcount
            except sa.exc.SQLAlchemyError as problem:
                log.warning("old exchanges cannot be deleted (%s); tried again in an hour", plain(problem))
                return


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one target, in the order of their numbers."""

    rows: tuple[tuple[int, Exchange], ...]
    broken: tuple[str, ...]  # a sentence for each row that cannot be read
    number: int  # to go on from: of the last row, or of the journal's end where that is reached
    last: int  # the highest number of the whole journal

    @property
    def whole(self) -> bool:
        """Whether nothing was left to read."""
        return self.number >= self.last


class Reader:
    """Exchanges out of the database, in the order of their numbers; for any process, while gateways write."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(reads=True)

    def since(self, number: int = 0, *, target: str | None = None, most: int = 1000) -> Iterator[tuple[int, Exchange]]:
        """Each with its number, after ``number``. Raises QuantgateError, RecordError."""
        while True:
            rows = self._rows(number, target, most)
            for found, text in rows:
                number = found
                yield found, _read(found, text)
            if len(rows) < most:
                return

    def batch(self, number: int, *, target: str, most: int = 1000) -> Batch:
        """What comes after ``number``, at most ``most`` rows; a broken one is told and holds up no other.

        Raises QuantgateError.
        """
        last = self.last()  # before the rows are asked for: all up to it can be seen then
        if last <= number:
            return Batch((), (), number, last)
        rows = self._rows(number, target, most)
        found, broken = list[tuple[int, Exchange]](), list[str]()
        for at, text in rows:
            try:
                found.append((at, _read(at, text)))
            except RecordError as problem:
                broken.append(str(problem))
        return Batch(tuple(found), tuple(broken), rows[-1][0] if len(rows) == most else max(last, _end(rows)), last)

    def get(self, ids: Sequence[str]) -> list[Exchange]:
        """Exchanges by their ids, in the order of ``ids``, with their copies in the shadow after them; those that are
        there. Raises QuantgateError, RecordError."""
        asked = sa.select(ROWS.c.id, ROWS.c.record).where(ROWS.c.exchange.in_(list(ids))).order_by(ROWS.c.id)
        found = [_read(int(row.id), str(row.record)) for row in self._asked(asked)]
        place = {name: at for at, name in enumerate(ids)}
        return sorted(found, key=lambda one: (place[one.id], one.shadow))

    def last(self) -> int:
        """The highest number; 0 where there is none."""
        return int(self._asked(sa.select(sa.func.coalesce(sa.func.max(ROWS.c.id), 0)))[0][0])

    def begins(self) -> int:
        """The number after which gateways drew sides and named exchanges: a watch need not read what is before."""

        def ask() -> int:
            with self._engine.begin() as link:
                return begins(link)

        return begun(self._engine, ask, what="exchanges")

    def waits_since(self, number: int, target: str) -> float | None:
        """``at`` of the first exchange after ``number``: the oldest that is not counted yet."""
        asked = sa.select(ROWS.c.at).where(ROWS.c.id > number, ROWS.c.target == target).order_by(ROWS.c.id).limit(1)
        found = self._asked(asked)
        return float(found[0].at) if found else None

    def _rows(self, number: int, target: str | None, most: int) -> list[tuple[int, str]]:
        asked = sa.select(ROWS.c.id, ROWS.c.record).where(ROWS.c.id > number).order_by(ROWS.c.id).limit(most)
        rows = self._asked(asked if target is None else asked.where(ROWS.c.target == target))
        return [(int(row.id), str(row.record)) for row in rows]

    def _asked(self, statement: sa.Select[Any]) -> Sequence[Any]:
        def ask() -> Sequence[Any]:
            with self._engine.begin() as link:
                return link.execute(statement).all()

        return begun(self._engine, ask, what="exchanges")

    def close(self) -> None:
        self._engine.dispose()


def _end(rows: list[tuple[int, str]]) -> int:
    return rows[-1][0] if rows else 0


def _read(number: int, text: str) -> Exchange:
    """Without what this version does not know: rows stay for weeks, and releases come and go meanwhile."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError as broken:
        raise RecordError(f"exchange {number}: not a record ({broken}); delete the row") from None
    known = {key: said[key] for key in said if key in KNOWN} if isinstance(said, dict) else said
    return parse(Exchange, known, where=f"exchange {number}", error=RecordError)
