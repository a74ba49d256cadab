"""The loop: read what is new in the journal, fold, judge, save, act. One thread in one process; ``leading`` says which.

What was folded and not saved is folded again after a crash, from the saved place and in the same order, so evidence is
the same bit for bit. A verdict that moves something is written down before it is acted on, and its evidence after that.
While a database is away nothing is judged that was not read; ``warnings`` says so, and it goes on by itself. A rollback
alone does not wait for the evidence's database: where its alarm cannot be written down now, it is written afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from quantgate.errors import QuantgateError
from quantgate.release import Live
from quantgate.serve.exchanges import Reader
from quantgate.serve.live import RegistryLink
from quantgate.watch import Verdict
from quantgate.watch.acting import Actor, alarm_of, hurry
from quantgate.watch.alarming import Alarms
from quantgate.watch.counting import Counting
from quantgate.watch.judging import judge
from quantgate.watch.leading import HANGS_S, lead_of
from quantgate.watch.store import Delivery, Deposed, Evidence, Step, Store
from quantgate.watch.troubles import Troubles, sentence
from quantgate.watch.webhooks import Postman, hooks_of
from quantgate.watch_config import WatchConfig

if TYPE_CHECKING:
    from quantgate.release.capacity import Capacity
    from quantgate.watch.signals import Signal

log = logging.getLogger("quantgate.watch")
POLL_S = 0.05  # between two looks at the journal
JUDGE_S = 1.0  # between two judgements, which cost some 10 ms; a threshold that is crossed is judged at once
DOUBT_S = 0.25  # and so often again where it was crossed, and something spoke against acting on it
SAVE_S = 1.0
IDLE_SAVE_S = 30.0  # of a place alone, and of a hold that says the same in other words
FOLLOW_S = 0.25  # between two tries to lead
BEAT_S = 0.5  # between two signs of life of a leader
AGAIN_S = 0.5  # after something failed
CHART_S = 10.0  # between points of a chart; of each minute the last stays
THIN_S = 3600.0


class Watcher:
    """``start`` and ``close`` of one target's watch. ``moved`` is called right after each move, in the watch's thread.

    ``live`` tells what is live where there is no registry. Raises UsageError for webhooks that cannot be told.
    """

    def __init__(
        self,
        target: str,
        reader: Reader,
        store: Store,
        registry: RegistryLink | None,
        config: WatchConfig,
        *,
        moved: Callable[[], None] = lambda: None,
        live: Callable[[], Live | None] = lambda: None,
        environment: Mapping[str, str] = {},
        capacity: Capacity | None = None,
        signals: Sequence[Signal] | None = None,
        clock: Callable[[], float] = time.time,
        hangs_s: float = HANGS_S,
    ) -> None:
        self.target, self._reader, self._store, self._config, self._clock = target, reader, store, config, clock
        self._told_live, self._signals = live, signals
        self._hooks = hooks_of(config.webhooks, environment)
        self._troubles = Troubles(target)
        self._actor = Actor(target, config, registry, capacity, clock)
        self._alarms = Alarms(self._actor, self._hooks, moved, self._troubles)
        self._lead = lead_of(store.engine, target, hangs_s=hangs_s)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._live: Live | None = None
        self._postman: Postman | None = None
        self._follow()

    def start(self) -> None:
        self._thread.start()

    def close(self, *, wait_s: float = 15.0) -> None:
        """What was folded is saved, and another may lead; may be called twice."""
        self._end.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(wait_s)

    def warnings(self) -> list[str]:
        """What is not as it should be."""
        postman = self._postman
        unheard = postman.trouble if postman is not None else None
        return [*self._troubles.sentences(), *([unheard] if unheard else [])]

    @property
    def leads(self) -> bool:
        return self._counting is not None

    @property
    def moves(self) -> int:
        """Made by this process."""
        return self._alarms.moves

    @property
    def standing(self) -> Verdict | None:
        """The newest verdict: of this process where it leads, else as the leader saved it. Raises QuantgateError."""
        return self._verdict if self.leads else self._store.verdict(self.target)

    def _follow(self) -> None:
        """Nothing is known but what the store holds."""
        self._counting: Counting | None = None
        self._fence = self._saved_number = 0
        self._verdict: Verdict | None = None
        self._saved: Verdict | None = None
        self._dirty = self._crossed = False
        self._ended_s = self._judged_s = self._saved_s = self._beat_s = self._charted_s = -IDLE_SAVE_S
        self._thinned_s = time.monotonic()
        self._alarms.forget()
        if self._postman is not None:
            self._postman.stop()
            self._postman = None

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                pause_s = self._turn()
            except Deposed as lost:
                log.warning("%s", lost)
                self._lose()
                pause_s = AGAIN_S
            except (QuantgateError, sa.exc.SQLAlchemyError, OSError) as problem:
                self._troubles.tell("database", f"the watch stands still ({sentence(problem)}); it goes on by itself")
                pause_s = AGAIN_S
            except Exception as bug:  # evidence in memory may be half changed: it is taken from the store again
                log.exception("the watch of %s failed", self.target)
                self._troubles.tell("fault", f"the watch failed ({type(bug).__name__}: {bug}); it began again as saved")
                self._lose()
                pause_s = AGAIN_S
            else:
                self._troubles.well("database")
            self._end.wait(pause_s)
        self._finish()

    def _finish(self) -> None:
        with contextlib.suppress(QuantgateError, sa.exc.SQLAlchemyError, OSError):
            if self._counting is not None and (self._dirty or self._alarms.news):
                self._save(self._counting)
        postman = self._postman
        self._lose()
        if postman is not None:
            postman.close()

    def _lose(self) -> None:
        self._lead.give()
        self._follow()

    def _turn(self) -> float:
        """One look at everything; the seconds until the next."""
        counting = self._leading()
        if counting is None:
            return FOLLOW_S
        try:
            batch = counting.more()
        except QuantgateError:
            self._settle(counting)  # what was decided does not wait for what comes next
            raise
        self._dirty = self._dirty or bool(batch.rows)
        now = time.monotonic()
        if batch.whole:
            self._ended_s = now
        if now - self._judged_s >= self._judge_in(counting):
            self._judge(counting, now)
        self._settle(counting)
        self._keep(counting)
        return POLL_S if batch.whole else 0.0

    def _judge_in(self, counting: Counting) -> float:
        """Seconds after the last judgement at which the next is due; to ask for a crossing costs next to nothing."""
        if not counting.fresh:
            return JUDGE_S
        before, self._crossed = self._crossed, counting.fold.crossed() is not None
        if self._crossed and not before:
            return 0.0
        doubted = self._verdict is not None and self._verdict.action == "hold" and self._verdict.share > 0.0
        return DOUBT_S if self._crossed and doubted else JUDGE_S

    def _leading(self) -> Counting | None:
        """The evidence where this process leads; where it just began to, it is as the leader before saved it."""
        now = time.monotonic()
        if self._counting is not None:
            if now - self._beat_s < BEAT_S:
                return self._counting
            self._beat_s = now
            if self._lead.held():
                return self._counting
            log.warning("%s: the lead of the watch is lost", self.target)
            self._lose()
        elif self._lead.take():
            self._begin()
        return self._counting

    def _begin(self) -> None:
        store, target = self._store, self.target
        fence = store.claim(target, f"{socket.gethostname()} process {os.getpid()}", self._reader.begins())
        kept = store.load(target) or Evidence(0, None)
        counting = Counting(kept, self._reader, self._config, target, self._signals, self._troubles)
        self._actor.ready()
        counting.remember(self._alive)
        self._verdict = self._saved = store.verdict(target)
        self._alarms.begin(store.pending(target), store.alarms(target, limit=1000))
        self._ended_s = self._beat_s = time.monotonic()
        self._fence, self._saved_number, self._counting = fence, kept.number, counting
        if self._hooks:
            self._postman = Postman(target, self._hooks, store, self._delivered, clock=self._clock)
            self._postman.start()
        log.info("%s: this process leads the watch, from exchange %d on", target, kept.number)

    def _alive(self) -> bool:
        """Says so to the lock, too: to remember many rows takes a while."""
        return self._lead.held() and not self._end.is_set()

    def _judge(self, counting: Counting, now: float) -> None:
        self._judged_s, counting.fresh = now, 0
        live, behind_s = self._asked_live(), now - self._ended_s
        verdict = judge(counting.fold, live=live, config=self._config, now=self._clock(), behind_s=behind_s)
        if verdict is None:  # nothing is on trial
            return
        before, self._verdict = self._verdict, verdict
        if verdict.action == "hold" and not self._tells_hold(before, verdict):
            return
        if verdict.action == "promote" and verdict.next_share is None:
            return
        alarm = alarm_of(verdict, self._clock())
        if not self._alarms.is_new(alarm):
            return
        self._alarms.take(alarm)
        hurry()
        try:
            self._write_down()
        except Deposed:
            raise
        except QuantgateError as problem:
            if verdict.action != "rollback":
                self._alarms.drop(alarm)
                raise
            told = f"an alarm cannot be written down yet ({sentence(problem)}); it is acted on"
            self._troubles.tell("database", told)

    def _asked_live(self) -> Live | None:
        """What is live; as last known while the registry is away."""
        if self._actor.registry is None:
            return self._told_live()
        try:
            found = self._actor.changed(self._live.revision if self._live is not None else -1)
        except (QuantgateError, OSError) as problem:
            self._troubles.tell("registry", f"the watch cannot ask the registry ({sentence(problem)}); moves wait")
            return self._live
        self._troubles.well("registry")
        self._live = found if found is not None else self._live
        return self._live

    def _tells_hold(self, before: Verdict | None, verdict: Verdict) -> bool:
        """Whether somebody wants to be told of a hold, and it is a new one."""
        new = before is None or before.action != "hold" or before.trial != verdict.trial
        return new and any("hold" in one.config.alarms for one in self._hooks)

    def _settle(self, counting: Counting) -> None:
        try:
            self._alarms.settle(self._verdict)
        finally:
            hurry(over=True)
        if self._alarms.news:
            self._save(counting)

    def _keep(self, counting: Counting) -> None:
        """Save where it is time, and forget old points."""
        now = time.monotonic()
        if self._dirty or self._is_news():
            due = now - self._saved_s >= SAVE_S
        else:
            due = now - self._saved_s >= IDLE_SAVE_S and (
                self._verdict != self._saved or counting.number > self._saved_number
            )
        if due:
            self._save(counting)
        if now - self._thinned_s > THIN_S:
            self._thinned_s = now
            try:
                self._store.thin()
            except QuantgateError as problem:
                log.warning("%s: old points cannot be deleted (%s); tried again in an hour", self.target, problem)

    def _is_news(self) -> bool:
        """Whether others would read another verdict: of later exchanges, or that says something else."""
        one, saved = self._verdict, self._saved
        if one is None or saved is None:
            return one is not None
        return _gist(one) != _gist(saved)

    def _write_down(self) -> None:
        """Alarms and the verdict, as soon as can be: the evidence, a hundred times as much, is not waited for. Whoever
        goes on after a crash counts the same again. Raises Deposed, QuantgateError."""
        alarms, posts = self._alarms.rows(self._clock())
        self._store.save(self.target, self._fence, Step(None, self._verdict, (), alarms, posts))
        self._alarms.written(alarms)
        self._dirty = True

    def _save(self, counting: Counting) -> None:
        """Evidence, its place, the verdict, points and alarms at once. Raises Deposed, QuantgateError."""
        now = self._clock()
        alarms, posts = self._alarms.rows(now)
        self._saved_s = time.monotonic()
        settled = any(one.done != "pending" for one in alarms)  # before that, a move waits
        chart = counting.fold.trial is not None and (settled or self._saved_s - self._charted_s >= CHART_S)
        points = counting.fold.points(now) if chart else ()
        step = Step(counting.evidence, self._verdict, points, alarms, posts)
        self._store.save(self.target, self._fence, step)
        self._dirty, self._saved, self._saved_number = False, self._verdict, counting.number
        self._charted_s = self._saved_s if chart else self._charted_s
        self._alarms.written(alarms)
        if posts and self._postman is not None:
            self._postman.wake()

    def _delivered(self, one: Delivery) -> None:
        """In the postman's thread."""
        self._store.save(self.target, self._fence, Step(deliveries=[one]))


def _gist(verdict: Verdict) -> tuple[object, ...]:
    """What is worth a save. Of the sentence without its figures: how late something is changes all the time."""
    said = re.sub(r"\d[\d.,]*", "", verdict.because)
    return verdict.trial, verdict.action, verdict.number, verdict.revision, said
