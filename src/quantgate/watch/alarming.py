"""Alarms of a leader between verdict and store: pending, settled, and what is not written down yet."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence

from quantgate.errors import QuantgateError
from quantgate.watch import Alarm, Verdict
from quantgate.watch.acting import Actor
from quantgate.watch.store import Delivery
from quantgate.watch.troubles import Troubles, sentence
from quantgate.watch.webhooks import Hook, deliveries

log = logging.getLogger("quantgate.watch")
AGAIN_S = 0.5  # until a move that could not be made is tried again
LONG_S = 10.0  # that an alarm may be pending before webhooks are told that it is
HELD_S = 1.0  # that the registry's log stays open after a move: all gateways have heard of it by then


class Alarms:
    """``moved`` is called right after each move."""

    def __init__(
        self,
        actor: Actor,
        hooks: Sequence[Hook],
        moved: Callable[[], None],
        troubles: Troubles,
        *,
        again_s: float = AGAIN_S,
        long_s: float = LONG_S,
    ) -> None:
        self._actor, self._hooks, self._moved, self._troubles = actor, hooks, moved, troubles
        self._again_s, self._long_s = again_s, long_s
        self.moves = 0
        self._unsaved: dict[str, Alarm] = {}
        self._unhold: Callable[[], None] | None = None
        self._held_s = 0.0
        self.forget()

    def forget(self) -> None:
        """Another may lead: what is known is in the store, but for moves that could not be written down."""
        self._pending: dict[str, tuple[Alarm, float]] = {}  # each with the time since when (monotonic)
        self._unsaved = {id: one for id, one in self._unsaved.items() if one.done == "moved"}
        self._known, self._late, self._fresh = set[str](), set[str](), set[str]()
        self._try_s = 0.0
        self._let_go()

    def begin(self, pending: Iterable[Alarm], known: Iterable[Alarm]) -> None:
        """As a leader before left it."""
        now = time.monotonic()
        self._pending = {one.id: (one, now) for one in pending}
        self._known = {one.id for one in known} | set(self._pending) | set(self._unsaved)

    def is_new(self, alarm: Alarm) -> bool:
        return alarm.id not in self._known

    def take(self, alarm: Alarm) -> None:
        """Decided: to be written down, and settled then."""
        log.warning("%s: %s: %s", self._actor.target, alarm.verdict.action, alarm.verdict.because)
        self._unsaved[alarm.id] = alarm
        self._known.add(alarm.id)
        self._fresh.add(alarm.id)
        self._pending[alarm.id] = (alarm, time.monotonic())

    def drop(self, alarm: Alarm) -> None:
        """Not decided after all: it could not be written down, and can wait."""
        self._unsaved.pop(alarm.id, None)
        self._pending.pop(alarm.id, None)
        self._known.discard(alarm.id)

    def settle(self, newest: Verdict | None) -> None:
        """Move what is to be moved; what cannot be now stays pending. A promotion needs the newest verdict, too."""
        now = time.monotonic()
        if self._unhold is not None and now - self._held_s > HELD_S:
            self._let_go()
        if now < self._try_s or not self._pending:
            return
        self._hold(now)
        for alarm, since_s in list(self._pending.values()):
            still = newest is None or newest.action == alarm.verdict.action
            try:
                settled = self._actor.settle(alarm, fresh=alarm.id in self._fresh, still=still)
            except (QuantgateError, OSError) as problem:
                self._waits(alarm, since_s, sentence(problem))
            else:
                self._settled(settled)
            finally:
                self._fresh.discard(alarm.id)

    def _hold(self, now: float) -> None:
        """Nothing is flushed between a move and who hears of it, but the move."""
        self._held_s = now
        if self._unhold is None:
            with contextlib.suppress(QuantgateError, OSError, sqlite3.Error):  # the move itself will tell
                self._unhold = self._actor.hold()

    def _let_go(self) -> None:
        unhold, self._unhold = self._unhold, None
        if unhold is not None:
            with contextlib.suppress(sqlite3.Error):
                unhold()

    def _settled(self, alarm: Alarm) -> None:
        self._troubles.well("move")
        del self._pending[alarm.id]
        self._unsaved[alarm.id] = alarm
        log.warning("%s: %s: %s, %s", self._actor.target, alarm.verdict.action, alarm.done, alarm.told)
        if alarm.done != "moved":
            return
        self.moves += 1
        try:
            self._moved()
        except Exception:
            log.exception("%s: the gateway could not be told of a move; it asks by itself", self._actor.target)

    def _waits(self, alarm: Alarm, since_s: float, why: str) -> None:
        now = time.monotonic()
        self._troubles.tell("move", f"{alarm.verdict.action} of {alarm.verdict.trial.variant} waits: {why}")
        self._try_s = now + self._again_s
        if now - since_s > self._long_s and alarm.id not in self._late:
            self._late.add(alarm.id)
            self._unsaved[alarm.id] = alarm.model_copy(update={"told": why})

    @property
    def news(self) -> bool:
        """Whether there is something to be written down now."""
        return bool(self._unsaved)

    def rows(self, now: float) -> tuple[list[Alarm], list[Delivery]]:
        """What is to be written: alarms, and what webhooks are told of those that are settled, or long pending."""
        alarms = list(self._unsaved.values())
        told = [one for one in alarms if one.done != "pending" or one.id in self._late]
        return alarms, [post for one in told for post in deliveries(self._hooks, one, now)]

    def written(self, alarms: Iterable[Alarm]) -> None:
        for one in alarms:
            if self._unsaved.get(one.id) is one:
                del self._unsaved[one.id]
