"""Budgets and quotas: reserved in memory at admission, out of leases that the database granted, settled at the end.

    database: spent = 700 of 1000 --- lease of 100 ---> this gateway: free = 60, reserved = 40
                      (charged when it is lent)          (a request takes from ``free``; what it did not use goes back)

So no sum of gateways spends more than the limit, whatever dies: a lease that is lost is spent. What is near its end is
lent in small pieces, what lies idle is given back, and a window's end takes its leases with it. Where the database is
out of reach a lease is spent to its end and then nothing is (LedgerClosed).
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from quantgate.serve import Caller, LedgerClosed, OverBudget, Reservation
from quantgate.serve import _ledger_sql as sql
from quantgate.serve._ledger_slots import Slots, left_behind
from quantgate.serve._ledger_time import SteadyClock, boot_s, span_of
from quantgate.serve_config import NANO, Allowance, Budget, PriceConfig

PARTS = 64  # a lease is this part of its limit, or ...
ROUND = 8  # ... so many requests like those that wait
IDLE_S = 5.0  # a lease that nobody takes from is given back
WAIT_S = 3.0  # for a lease; longer, and the ledger counts as closed
AGAIN_S = 0.25  # what the database just refused is not asked again at once
KEPT_S = 40 * 86400.0  # what windows of the past spent can be looked up for so long
Units = Mapping[str, int]


@dataclass(slots=True, eq=False)
class Pot:
    """What this gateway holds of one window of one limit of one account."""

    account: str
    unit: str
    span: str
    limit: Allowance
    ends: float  # boot clock
    slot: int
    granted: int = 0
    free: int = 0  # less than 0: an answer was longer than foreseen, and the rest is to be charged
    open: int = 0  # reservations
    used_at: float = 0.0
    refused: int = 0  # the database had less than this ...
    refused_until: float = 0.0  # ... and is not asked again before


@dataclass(slots=True)
class Asked:
    """Leases that an account waits for."""

    least: dict[str, int] = field(default_factory=dict)  # by unit: the smallest request that waits
    want: dict[str, int] = field(default_factory=dict)  # all of them together
    done: Future[None] = field(default_factory=Future)


class LeaseLedger:
    """See ``serve.Ledger``. Any thread may reserve and settle; the database is one thread's affair."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        budgets: Callable[[str], Budget | None],
        prices: Mapping[str, PriceConfig] | None = None,
        *,
        clock: Callable[[], float] = boot_s,
        idle_s: float = IDLE_S,
        wait_s: float = WAIT_S,
    ) -> None:
        """``folder``: of this machine, for what survives this process; ``prices`` by variant."""
        self._engine, self._folder, self._budgets = engine, folder, budgets
        self._prices = dict(prices or {})
        self._dearest = (
            max((one.prompt for one in self._prices.values()), default=0.0),
            max((one.answer for one in self._prices.values()), default=0.0),
        )
        self._clock, self._idle_s, self._wait_s = clock, idle_s, wait_s
        self._steady = SteadyClock()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._end = False
        self._pots: dict[str, dict[str, Pot]] = {}
        self._past: list[Pot] = []  # to be given back
        self._asked: dict[str, Asked] = {}
        self._open: dict[int, list[tuple[Pot, int]]] = {}
        self._next = 0
        self._lost: tuple[str, float] | None = None  # why the database cannot be reached, and since when
        self._slots: Slots | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        """Takes back what dead gateways of this folder left. Raises QuantgateError when the database is not there."""
        sql.create(self._engine, where="ledger")
        sql.begun(self._engine, self._take_back, what="leases of before cannot be given back")
        self._slots = Slots(self._folder)
        self._thread.start()

    def _take_back(self) -> None:
        for holder, taken in left_behind(self._folder):
            with self._engine.begin() as link:
                for row in sql.held_by(link, holder):
                    left = row.amount - taken[row.slot] if taken is not None and row.slot >= 0 else 0
                    back = left if 0 <= left <= row.amount else 0
                    sql.release(link, holder, row.slot, row.account, row.unit, row.span, back)

    def close(self) -> None:
        """Gives all leases back; what is still reserved counts as spent."""
        self._end = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            left = [pot for pots in self._pots.values() for pot in pots.values()] + self._past
            self._pots, self._past = {}, left
            for asked in self._asked.values():
                asked.done.set_exception(LedgerClosed("the gateway ends; ask again"))
            self._asked = {}
        self._work(self._give_back)
        if self._slots is not None:
            self._slots.close(keep=bool(self._past))
        self._engine.dispose()

    @property
    def trouble(self) -> str | None:
        """Why budgets cannot be served as they should."""
        return self._lost[0] if self._lost is not None else self._steady.trouble

    def reserve(self, caller: Caller, prompt_tokens: int, answer_tokens: int, variant: str = "") -> Reservation | None:
        if not caller.budget:
            return None
        found = self._take(caller.budget, self._units(prompt_tokens, answer_tokens))
        if isinstance(found, Reservation):
            return found
        raise OverBudget("the budget of this key is being fetched; ask again in a moment", retry_after_s=0.1)

    async def admit(
        self, caller: Caller, prompt_tokens: int, answer_tokens: int, variant: str = ""
    ) -> Reservation | None:
        if not caller.budget:
            return None
        units = self._units(prompt_tokens, answer_tokens)
        until = self._clock() + self._wait_s
        while True:
            found = self._take(caller.budget, units)
            if isinstance(found, Reservation):
                return found
            try:
                waits = asyncio.shield(asyncio.wrap_future(found))
                await asyncio.wait_for(waits, max(0.0, until - self._clock()))
            except TimeoutError:
                raise LedgerClosed("budgets cannot be checked: the ledger does not answer; ask again later") from None

    def settle(self, reservation: Reservation, prompt_tokens: int, answer_tokens: int, variant: str = "") -> None:
        """What was spent in truth; more than was reserved is charged as well. A second time changes nothing."""
        units = self._units(prompt_tokens, answer_tokens, variant)
        with self._lock:
            for pot, amount in self._open.pop(reservation.id, ()):
                back = amount - units.get(pot.unit, 0)
                pot.free += back
                pot.open -= 1
                self._note(pot)
                if pot.free < 0:
                    self._wake.set()

    def _units(self, prompt: int, answer: int, variant: str | None = None) -> Units:
        """``variant`` None: nobody knows yet whose price it will be, so the dearest."""
        price = self._prices.get(variant) if variant else None
        per = (price.prompt, price.answer) if price is not None else self._dearest
        money = math.ceil((prompt * per[0] + answer * per[1]) * (NANO / 1e6))
        return {"tokens": prompt + answer, "money": money, "requests": 1}

    def _note(self, pot: Pot) -> None:
        if self._slots is not None:
            self._slots.put(pot.slot, pot.granted - pot.free)

    def _take(self, account: str, units: Units) -> Reservation | Future[None]:
        """A reservation, or what to wait for. Raises OverBudget, LedgerClosed."""
        now = self._clock()
        with self._lock:
            pots = self._pots.get(account)
            lacking = None
            if pots is None:
                lacking = dict(units)
            else:
                for unit, pot in pots.items():
                    need = units[unit]
                    if pot.free < need or now >= pot.ends:
                        lacking = lacking or {}
                        lacking[unit] = need
            if lacking:
                return self._ask(account, lacking, pots or {}, now)
            assert pots is not None
            taken = []
            for unit, pot in pots.items():
                amount = units[unit]
                pot.free -= amount
                pot.open += 1
                pot.used_at = now
                self._note(pot)
                taken.append((pot, amount))
                if pot.free < 2 * amount and now >= pot.refused_until and account not in self._asked:
                    self._asked[account] = Asked({unit: 1}, {unit: amount})  # fetched before it is missed
                    self._wake.set()
            self._next += 1
            self._open[self._next] = taken
            return Reservation(account, units["tokens"], units["money"] / NANO, self._next)

    def _ask(self, account: str, lacking: Units, pots: Mapping[str, Pot], now: float) -> Future[None]:
        if self._end:
            raise LedgerClosed("the gateway ends; ask again")
        for unit, need in lacking.items():
            pot = pots.get(unit)
            if pot is None or now >= pot.ends:
                continue
            if need > pot.limit.amount:
                raise OverBudget(_never(unit, need, pot.limit))
            if now < pot.refused_until and need - max(pot.free, 0) >= pot.refused:
                raise OverBudget(_spent(unit, pot.limit), retry_after_s=_again(pot, now))
        if self._lost is not None and now - self._lost[1] < AGAIN_S:
            raise LedgerClosed(f"budgets cannot be checked: {self._lost[0]}; ask again later")
        asked = self._asked.setdefault(account, Asked())
        for unit, need in lacking.items():
            asked.least[unit] = min(need, asked.least.get(unit, need))
            asked.want[unit] = asked.want.get(unit, 0) + need
        self._wake.set()
        return asked.done

    def _run(self) -> None:
        forgot = -math.inf
        while not self._end:
            self._wake.wait(min(1.0, self._idle_s / 4))
            self._wake.clear()
            self._fetch()
            self._gather()
            self._work(self._give_back)
            if self._clock() - forgot > 3600:
                forgot = self._clock()
                self._work(lambda link: sql.forget(link, sql.now(link) - KEPT_S))

    def _work(self, job: Callable[[Connection], Callable[[], None] | None]) -> Exception | None:
        """One transaction; what it returns is done in memory once it is kept. None: it went well."""
        try:
            with self._engine.begin() as link:
                after = job(link)
        except sa.exc.SQLAlchemyError as problem:
            self._lost = (f"the ledger's database cannot be reached ({sql.plain(problem)})", self._clock())
            return problem
        self._lost = None
        if after is not None:
            with self._lock:
                after()
        return None

    def _fetch(self) -> None:
        with self._lock:
            waiting = list(self._asked.items())
        for account, _ in waiting:
            with self._lock:
                asked = self._asked.pop(account)  # who asks from here on waits for the next
            budget = self._budgets(account)
            if budget is None or not budget.limits:  # a key that is gone has nothing to spend
                asked.done.set_exception(LedgerClosed("the budget of this key is not known; ask again later"))
                continue
            problem = self._work(partial(self._lend, account, asked, budget))
            if problem is not None and self._lost is not None:
                asked.done.set_exception(LedgerClosed(f"budgets cannot be checked: {self._lost[0]}; ask again later"))
            else:
                asked.done.set_result(None)

    def _lend(self, account: str, asked: Asked, budget: Budget, link: Connection) -> Callable[[], None]:
        assert self._slots is not None
        before = self._clock()  # a window then ends here no later than it does in the database
        at = self._steady.read(sql.now(link), before)
        given: list[tuple[Pot, int, int]] = []
        for unit, limit in sorted(budget.limits.items()):  # everybody in one order: no deadlock
            span, ends_at = span_of(limit.window, at)
            pot = self._pots.get(account, {}).get(unit)
            if pot is None or pot.span != span or pot.limit != limit:
                pot = Pot(account, unit, span, limit, before + ends_at - at, self._slots.take(), used_at=before)
            debt = max(0, -pot.free)
            least = max(1, asked.least.get(unit, 1) - max(0, pot.free))
            want = max(least, limit.amount // PARTS, ROUND * asked.want.get(unit, 0) - max(0, pot.free))
            fresh = pot.granted == 0
            amount = 0
            if fresh or unit in asked.least:
                amount = sql.grant(
                    link,
                    account,
                    unit,
                    span,
                    least=least,
                    want=want,
                    limit=limit.amount - debt,
                    ends_at=_finite(ends_at),
                )
            if debt:
                sql.charge(link, account, unit, span, debt)
            if amount + debt:
                sql.lease(link, self._slots.holder, pot.slot, account, unit, span, amount + debt, at)
            given.append((pot, amount + debt, 0 if amount else least))
        return lambda: self._lent(account, given)

    def _lent(self, account: str, given: list[tuple[Pot, int, int]]) -> None:
        """Under the lock."""
        now = self._clock()
        before = self._pots.get(account, {})
        for pot, amount, refused in given:
            pot.granted += amount
            pot.free += amount
            pot.refused, pot.refused_until = refused, (now + AGAIN_S if refused else 0.0)
            self._note(pot)
        pots = {pot.unit: pot for pot, _, _ in given}
        self._past += [pot for unit, pot in before.items() if pots.get(unit) is not pot]
        self._pots[account] = pots

    def _gather(self) -> None:
        """Takes from memory what lies idle or is of a window that ended; asks for what is owed."""
        now = self._clock()
        with self._lock:
            for account, pots in list(self._pots.items()):
                if any(pot.free < 0 for pot in pots.values()) and account not in self._asked:
                    self._asked[account] = Asked()
                    self._wake.set()
                idle = all(now - pot.used_at > self._idle_s or now >= pot.ends for pot in pots.values())
                if idle and not any(pot.open for pot in pots.values()) and account not in self._asked:
                    self._past += pots.values()
                    del self._pots[account]

    def _give_back(self, link: Connection) -> Callable[[], None] | None:
        assert self._slots is not None
        with self._lock:
            done = [pot for pot in self._past if not pot.open or self._end]
            rows = sorted(((pot, pot.free) for pot in done), key=lambda one: (one[0].account, one[0].unit))
        for pot, free in rows:
            if pot.granted or free:
                if free < 0:
                    sql.charge(link, pot.account, pot.unit, pot.span, -free)
                sql.release(link, self._slots.holder, pot.slot, pot.account, pot.unit, pot.span, max(0, free))
        return (lambda: self._gone(done)) if done else None

    def _gone(self, done: list[Pot]) -> None:
        assert self._slots is not None
        for pot in done:
            self._slots.give(pot.slot)
        gone = {id(pot) for pot in done}
        self._past = [pot for pot in self._past if id(pot) not in gone]


def _finite(ends_at: float) -> float | None:
    return ends_at if math.isfinite(ends_at) else None


def _again(pot: Pot, now: float) -> float | None:
    """When there may be more: soon where answers are still under way, at the window's end otherwise."""
    if pot.open:
        return 1.0
    return max(0.1, pot.ends - now) if math.isfinite(pot.ends) else None


def _shown(unit: str, amount: int) -> str:
    return f"{amount / NANO:g}" if unit == "money" else f"{amount} {unit}"


def _each(limit: Allowance) -> str:
    return "in all" if limit.window == "ever" else f"a {'minute' if limit.window == 'min' else limit.window}"


def _spent(unit: str, limit: Allowance) -> str:
    what = "money" if unit == "money" else unit
    return (
        f"this key has spent its {what}: {_shown(unit, limit.amount)} {_each(limit)}; wait, or ask for a larger budget"
    )


def _never(unit: str, need: int, limit: Allowance) -> str:
    return (
        f"this request may take {_shown(unit, need)} and the key has {_shown(unit, limit.amount)} {_each(limit)}; "
        "lower max_tokens, or ask for a larger budget"
    )
