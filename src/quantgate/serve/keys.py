"""API keys: a secret is shown once and kept as a keyed hash. Asking whose key it is touches no database.

A secret reads ``qg_<id>_<256 bits>``; the id is public. All keys lie in memory and are read again when the database
says that they changed, so a new key works and a revoked one ends within a second, and a wrong one costs two hashes.
While the database is out of reach the known keys go on for a grace time, and then nobody's does.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from quantgate.errors import QuantgateError, UsageError, hint
from quantgate.records import canonical, parse
from quantgate.serve import Caller, OverBudget
from quantgate.serve._ledger_sql import ABOUT, KEYS, LEASES, SPENT, now, plain
from quantgate.serve_config import Budget

SCOPES = ("use", "admin", "watch")
POLL_S = 0.5
GRACE_S = 300.0  # how long keys that are known work while the database is out of reach
WRONG_A_SECOND = 100  # wrong keys that are told apart from no key; more are asked to wait


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key, without its secret."""

    id: str
    name: str
    scopes: frozenset[str]
    account: str
    budget: Budget
    created_at: float
    ends_at: float | None
    hash: str

    def caller(self) -> Caller:
        return Caller(self.id, self.scopes, self.account if self.budget.limits else "")


def hashed(secret: str, pepper: bytes) -> str:
    """BLAKE2b under the pepper as its key (RFC 7693, section 2.9): a MAC by itself.

    It keeps hold of the interpreter, so that a busy journal's thread does not come in between.
    """
    return hashlib.blake2b(secret.encode("utf-8", "surrogatepass"), key=pepper, digest_size=32).hexdigest()


class KeyBook:
    """The keys in the database: made, listed, revoked and changed here, by commands and by operators' routes."""

    def __init__(self, engine: Engine, pepper: bytes) -> None:
        self.engine, self.pepper = engine, pepper

    def new(
        self, name: str, scopes: frozenset[str] = frozenset({"use"}), budget: Budget | None = None
    ) -> tuple[KeyRow, str]:
        """The row, and the secret: the only time that it is seen. Raises UsageError."""
        for one in scopes:
            if one not in SCOPES:
                raise UsageError(f"--scope: '{one}' is no scope; {hint(one, SCOPES)}")
        if not scopes or not name.strip() or len(name) > 64:
            raise UsageError("a key has a name of 1 to 64 characters and at least one scope")
        return self._add(name.strip(), scopes, budget or Budget(), account="")

    def _add(self, name: str, scopes: frozenset[str], budget: Budget, account: str) -> tuple[KeyRow, str]:
        id = "k" + secrets.token_hex(5)
        secret = f"qg_{id}_{secrets.token_urlsafe(32)}"
        with self._writing() as link:
            row = KeyRow(id, name, scopes, account or id, budget, now(link), None, hashed(secret, self.pepper))
            kept = {name: getattr(row, name) for name in ("id", "name", "account", "created_at", "ends_at", "hash")}
            kept |= {"scopes": ",".join(sorted(scopes)), "budget": canonical(budget.body()).decode()}
            link.execute(sa.insert(KEYS).values(**kept))
        return row, secret

    def revoke(self, id: str, *, after_s: float = 0.0) -> KeyRow:
        """From now on, or from then. Raises UsageError for a key that is not there."""
        row = self.find(id)
        with self._writing() as link:
            ends = now(link) + after_s
            if row.ends_at is None or row.ends_at > ends:
                link.execute(sa.update(KEYS).where(KEYS.c.id == row.id).values(ends_at=ends))
        return self.find(id)

    def rotate(self, id: str, *, keep_s: float = 0.0) -> tuple[KeyRow, str]:
        """A new secret with the old one's scopes, budget and what it has spent; the old one ends after ``keep_s``."""
        row = self.find(id)
        if row.ends_at is not None:
            raise UsageError(f"key '{id}' is revoked; make a new one")
        made = self._add(row.name, row.scopes, row.budget, row.account)
        self.revoke(id, after_s=keep_s)
        return made

    def find(self, id: str) -> KeyRow:
        rows = {row.id: row for row in self.rows()}
        if id not in rows:
            raise UsageError(f"no key has the id '{id}'; {hint(id, rows)}")
        return rows[id]

    def rows(self) -> list[KeyRow]:
        with self._reading() as link:
            return [_row(one) for one in link.execute(sa.select(KEYS).order_by(KEYS.c.created_at))]

    def spent(self) -> dict[tuple[str, str, str], tuple[int, int]]:
        """By account, unit and window: what is charged, and how much of it gateways hold and may give back."""
        with self._reading() as link:
            rows = link.execute(sa.select(SPENT))
            charged = {(row.account, row.unit, row.span): int(row.amount) for row in rows}
            held: dict[tuple[str, str, str], int] = {}
            for row in link.execute(sa.select(LEASES)):
                at = (row.account, row.unit, row.span)
                held[at] = held.get(at, 0) + int(row.amount)
        return {at: (amount, held.get(at, 0)) for at, amount in charged.items()}

    def changes(self) -> tuple[int, float]:
        """How often the keys changed, and the database's time."""
        with self._reading() as link:
            count = link.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == "keys")).scalar_one()
            return int(count), now(link)

    def _reading(self) -> AbstractContextManager[Any]:
        return _told(self.engine.execution_options(reads=True).begin, "keys cannot be read")

    def _writing(self) -> AbstractContextManager[Any]:
        return _told(self.engine.begin, "keys cannot be written", mark=True)


@contextmanager
def _told(begin: Callable[[], AbstractContextManager[Connection]], what: str, *, mark: bool = False) -> Iterator[Any]:
    """A transaction whose failure is one sentence; ``mark`` counts the change, so that gateways read again."""
    try:
        with begin() as link:
            if mark:
                link.execute(sa.update(ABOUT).where(ABOUT.c.name == "keys").values(value=ABOUT.c.value + 1))
            yield link
    except sa.exc.SQLAlchemyError as problem:
        raise QuantgateError(f"{what}: {plain(problem)}; check that the database is up") from None


class KeyRing:
    """See ``serve.Keys``. ``start`` reads the keys and goes on reading; ``close`` ends that."""

    def __init__(self, book: KeyBook, *, poll_s: float = POLL_S, grace_s: float = GRACE_S) -> None:
        self._book, self._poll_s, self._grace_s = book, poll_s, grace_s
        self._known: Mapping[str, tuple[KeyRow, Caller]] = {}
        self._budgets: Mapping[str, Budget] = {}
        self._changes = -1
        self._ahead_s = self._read_at = self._wrong_at = 0.0  # ahead: the database's time less the monotonic one
        self._wrong = 0
        self.trouble: str | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    def start(self) -> None:
        """Raises QuantgateError when the keys cannot be read now."""
        self._refresh()
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, secret: str) -> Caller | None:
        """In constant time. Raises OverBudget when wrong keys come faster than anybody mistypes."""
        id = secret[3 : secret.find("_", 3)] if secret.startswith("qg_") else ""
        found = self._known.get(id)
        same = hmac.compare_digest(hashed(secret, self._book.pepper), found[0].hash if found is not None else "0" * 64)
        if found is None or not same:
            self._count_wrong()
            return None
        now_s, ends = time.monotonic(), found[0].ends_at
        if ends is not None and ends <= now_s + self._ahead_s:
            self._count_wrong()
            return None
        return found[1] if now_s - self._read_at <= self._grace_s else None

    def of(self, id: str) -> Caller | None:
        """Whose key has this public id, for who has shown its secret before; None: nobody's, or revoked."""
        found, now_s = self._known.get(id), time.monotonic()
        if found is None or now_s - self._read_at > self._grace_s:
            return None
        ends = found[0].ends_at
        return None if ends is not None and ends <= now_s + self._ahead_s else found[1]

    def budget(self, account: str) -> Budget | None:
        """The budget of an account: that of its newest key."""
        return self._budgets.get(account)

    def _count_wrong(self) -> None:
        now_s = time.monotonic()
        if now_s - self._wrong_at > 1.0:
            self._wrong_at, self._wrong = now_s, 0
        self._wrong += 1
        if self._wrong > WRONG_A_SECOND:
            raise OverBudget("too many requests with wrong keys; check the key and wait a second", retry_after_s=1.0)

    def _run(self) -> None:
        while not self._end.wait(self._poll_s):
            try:
                self._refresh()
                self.trouble = None
            except QuantgateError as problem:
                self.trouble = str(problem)

    def _refresh(self) -> None:
        asked = time.monotonic()
        changes, told_s = self._book.changes()
        if changes != self._changes:
            rows = self._book.rows()  # oldest first, so that an account's newest budget stands
            self._budgets = {row.account: row.budget for row in rows if row.budget.limits}
            self._known = {row.id: (row, row.caller()) for row in rows}
            self._changes = changes
        self._ahead_s, self._read_at = told_s - asked, asked


def _row(one: Any) -> KeyRow:
    budget = parse(Budget, json.loads(one.budget), where=f"key {one.id}")
    scopes = frozenset(one.scopes.split(","))
    return KeyRow(one.id, one.name, scopes, one.account, budget, one.created_at, one.ends_at, one.hash)
