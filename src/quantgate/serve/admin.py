"""Routes of operators, under /admin: what is live, ramps and rollbacks, keys, approvals, draining.

Each demands a key of scope admin, on this machine too: a page in a browser may reach loopback, and a key it has not.
They lie on the gateway's own port, so that they see its own state; whoever puts a proxy before it forwards /v1 and not
/admin. Moves go through the registry, which demands of them what the command line is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from quantgate.errors import ApprovalRefused, Moved, NotPromoted, QuantgateError, UsageError
from quantgate.guard.confirm import Gate
from quantgate.guard.proposals import State
from quantgate.records import Record, parse
from quantgate.release import Live, Variant
from quantgate.serve import Caller, OverBudget, wire
from quantgate.serve.keys import KeyRow
from quantgate.serve.refusals import Refused, bad, of
from quantgate.serve_config import Budget, Count, Money

if TYPE_CHECKING:
    from quantgate.serve.open import Parts

log = logging.getLogger("quantgate.serve")
Json = dict[str, Any]
MOST = 2**16  # bytes of a body


class Ramp(Record):
    share: float = Field(gt=0, le=1)
    why: str = ""


class Rollback(Record):
    why: str = Field(min_length=1)
    to: str | None = None
    force: bool = False


class Hold(Record):
    why: str = ""
    off: bool = False


class NewKey(Record):
    name: str
    scopes: frozenset[str] = frozenset({"use"})
    tokens: Count | None = None
    money: Money | None = None
    requests: Count | None = None


class Decide(Record):
    decision: str = Field(pattern="^(approve|deny)$")
    hash: str = ""  # of what was read; needed to approve


class Drain(Record):
    on: bool = True


class Admin:
    """An ASGI application for what begins with /admin."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.drain: Callable[[bool], None] = lambda _on: None  # the gateway's own, once there is one
        self._routes: Mapping[tuple[str, str], Callable[..., Awaitable[Any]]] = {
            ("GET", "live"): self._live,
            ("GET", "releases"): self._releases,
            ("POST", "ramp"): self._ramp,
            ("POST", "rollback"): self._rollback,
            ("POST", "hold"): self._hold,
            ("GET", "keys"): self._keys,
            ("POST", "keys"): self._new_key,
            ("DELETE", "keys/*"): self._revoke,
            ("POST", "keys/*/rotate"): self._rotate,
            ("GET", "approvals"): self._approvals,
            ("POST", "approvals/*"): self._decide,
            ("POST", "drain"): self._draining,
        }

    async def __call__(self, scope: wire.Scope, receive: wire.Receive, send: wire.Send) -> None:
        try:
            headers = wire.headers_of(scope)
            caller = self._caller(headers)
            action, words = self._found(scope["method"], scope["path"])
            body: Json = {}
            if scope["method"] == "POST":
                raw = await wire.read_body(headers, receive, MOST)
                body = wire.parse(raw, headers, 8) if raw else {}
            answer = await action(caller, body, *words)
            log.info("admin: %s %s by %s", scope["method"], scope["path"], caller.key)
            await wire.respond(send, 200, wire.dumps(answer))
        except wire.Gone:
            return
        except Exception as problem:
            await wire.refuse(send, _refused(problem))

    def _caller(self, headers: Mapping[str, str]) -> Caller:
        """Raises Refused: 401 without a key, 403 without the scope."""
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        caller: Caller | None = self._parts.ring.find(secret.strip()) if scheme.lower() == "bearer" and secret else None
        if caller is None:
            raise Refused(
                401,
                "invalid_api_key",
                "a key of scope admin is needed; make one with: quantgate keys new --name NAME --scope admin",
                headers=((b"www-authenticate", b"Bearer"),),
                retry=False,
            )
        if "admin" not in caller.scopes:
            raise Refused(403, "scope_missing", "this key has no scope 'admin'")
        return caller

    def _found(self, method: str, path: str) -> tuple[Callable[..., Awaitable[Any]], list[str]]:
        parts = path.removeprefix("/admin").strip("/").split("/")
        shape = "/".join("*" if at == 1 else part for at, part in enumerate(parts))
        allowed = [verb for verb, known in self._routes if known == shape]
        if method in allowed:
            return self._routes[method, shape], parts[1:2]
        if allowed:
            raise Refused(
                405,
                "method_not_allowed",
                f"{path[:200]}: {method} is not for this path; allowed: {', '.join(allowed)}",
                headers=((b"allow", ", ".join(allowed).encode()),),
            )
        raise Refused(404, "not_found", f"{path[:200]}: there is no such path here")

    async def _live(self, _caller: Caller, _body: Json) -> Json:
        parts = self._parts
        now = parts.router.now
        return {
            "live": parts.live.body(),
            "serving": {"revision": now.revision, "share": now.share, "holdback": now.holdback},
            "up": sorted(parts.fleet.upstreams),
            "warnings": parts.warnings(),
            "proofs": [{"guard": one.guard, "fired": one.fired} for one in parts.proofs],
            "exchanges": {"written": parts.journal.written, "dropped": parts.journal.dropped},
            "shadow": None if parts.shadow is None else {"asked": parts.shadow.asked, "dropped": parts.shadow.dropped},
        }

    async def _releases(self, caller: Caller, _body: Json) -> Json:
        registry = self._registry(caller)
        moves = await asyncio.to_thread(registry.history, self._parts.config.target, limit=100)
        return {"moves": [one.body() for one in moves]}

    async def _ramp(self, caller: Caller, body: Json) -> Json:
        from quantgate.release.lifecycle import ramp

        asked = parse(Ramp, body, where="ramp")
        return await self._moved(ramp, self._registry(caller), self._parts.config.target, asked.share, why=asked.why)

    async def _rollback(self, caller: Caller, body: Json) -> Json:
        from quantgate.release.lifecycle import rollback

        asked = parse(Rollback, body, where="rollback")
        target, registry = self._parts.config.target, self._registry(caller)

        def back() -> Live:
            rollback(registry, target, to=asked.to, why=asked.why, capacity=self._capacity, force=asked.force)
            live: Live = registry.live(target)
            return live

        return await self._moved(back)

    async def _hold(self, caller: Caller, body: Json) -> Json:
        from quantgate.release.lifecycle import hold

        asked = parse(Hold, body, where="hold")
        return await self._moved(hold, self._registry(caller), self._parts.config.target, why=asked.why, off=asked.off)

    async def _moved(self, move: Callable[..., Live], *given: Any, **named: Any) -> Json:
        """A move, and the feed asked at once, so that what is answered is what is served."""
        live = await asyncio.to_thread(move, *given, **named)
        if self._parts.feed is not None:
            await asyncio.to_thread(self._parts.feed.ask)
        return {"live": live.body(), "serving": {"revision": self._parts.router.now.revision}}

    def _capacity(self, variant: Variant) -> str:
        return "" if variant.name in self._parts.fleet.upstreams else "this gateway has no upstream for it"

    def _registry(self, caller: Caller) -> Any:
        registry = self._parts.registry
        if registry is None:
            raise Refused(
                409, "no_registry", "what is live stands in serve.yaml here; serve from a registry to move it"
            )
        return replace(registry.get(), actor=f"key {caller.key}")

    async def _keys(self, _caller: Caller, _body: Json) -> Json:
        rows = await asyncio.to_thread(self._parts.book.rows)
        spent = await asyncio.to_thread(self._parts.book.spent)
        return {"keys": [key_told(row, spent) for row in rows]}

    async def _new_key(self, _caller: Caller, body: Json) -> Json:
        asked = parse(NewKey, body, where="key")
        budget = Budget(tokens=asked.tokens, money=asked.money, requests=asked.requests)
        row, secret = await asyncio.to_thread(self._parts.book.new, asked.name, asked.scopes, budget)
        return key_told(row) | {"secret": secret}

    async def _revoke(self, _caller: Caller, _body: Json, id: str) -> Json:
        return key_told(await asyncio.to_thread(self._parts.book.revoke, id))

    async def _rotate(self, _caller: Caller, _body: Json, id: str) -> Json:
        row, secret = await asyncio.to_thread(self._parts.book.rotate, id)
        return key_told(row) | {"secret": secret}

    async def _approvals(self, _caller: Caller, _body: Json) -> Json:
        waiting = await asyncio.to_thread(self._waiting)
        return {"approvals": [_approval(one) for one in waiting]}

    async def _decide(self, caller: Caller, body: Json, id: str) -> Json:
        asked = parse(Decide, body, where="approval")
        if asked.decision == "approve" and not asked.hash:
            raise bad("hash", "hash: is missing; send the one that was read with the calls")

        def decide() -> State:
            gate = self._gate(id)
            if asked.decision == "deny":
                return gate.deny(id, by=caller.key)
            return gate.approve(id, by=caller.key, hash=asked.hash)

        return _approval(await asyncio.to_thread(decide))

    def _waiting(self) -> list[State]:
        return self._parts.gates[0].waiting() if self._parts.gates else []

    def _gate(self, id: str) -> Gate:
        """The gate by whose rules a proposal was made; all gates share their proposals."""
        gates = self._parts.gates
        if not gates:
            raise Refused(404, "not_found", "no route of this gateway asks for approvals")
        policies = {one.proposal.id: one.proposal.policy for one in gates[0].proposals.all()}
        return next((gate for gate in gates if gate.version == policies.get(id)), gates[0])

    async def _draining(self, _caller: Caller, body: Json) -> Json:
        asked = parse(Drain, body, where="drain")
        self.drain(asked.on)
        return {"draining": asked.on}


def key_told(row: KeyRow, spent: Mapping[tuple[str, str, str], tuple[int, int]] | None = None) -> Json:
    """A key without its secret; ``spent`` by account, unit and window: charged, and of that held by gateways."""
    found: Json = {
        "id": row.id,
        "name": row.name,
        "scopes": sorted(row.scopes),
        "account": row.account,
        "budget": row.budget.body(),
        "created_at": row.created_at,
        "ends_at": row.ends_at,
    }
    if spent is not None:
        found["spent"] = [
            {"unit": unit, "window": span, "charged": charged, "held": held}
            for (account, unit, span), (charged, held) in sorted(spent.items())
            if account == row.account
        ]
    return found


def _approval(state: State) -> Json:
    proposed = state.proposal.body()
    return {**proposed, "proposed_at": proposed["at"], "status": state.status, "by": state.by, "at": state.at}


def _refused(problem: Exception) -> Refused:
    """Operators are told what the command line would tell them."""
    match problem:
        case Refused() | ApprovalRefused() | OverBudget():
            return of(problem)
        case UsageError():
            return bad(None, str(problem))
        case NotPromoted() | Moved():
            return Refused(409, "not_moved", str(problem))
        case QuantgateError():
            return Refused(503, "unavailable", str(problem))
        case _:
            log.error("an operator's request failed", exc_info=problem)
            return of(problem)
