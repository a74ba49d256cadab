"""The gateway as a raw ASGI application: one function per route, the path of a request from first byte to last.

    begin    key, body, model, route, contract, budget       -> a Passage, or an error object
    answer   whole.py, or relay.py for a stream; a watcher beside it cancels the work when the client leaves
    end      settle the budget, count, hand the Exchange to the sink

A request is parsed once. What goes upstream is a copy with other keys, and bytes that need no change leave unchanged.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from quantgate.serve import Caller, Request, Route, wire
from quantgate.serve.asked import check_bounded, check_chat
from quantgate.serve.asking import Lanes
from quantgate.serve.forms import original_of, renamed, stream_form, whole_form
from quantgate.serve.metrics import Metrics
from quantgate.serve.passage import Passage, prompt_bound, upstream_body
from quantgate.serve.refusals import Refused, bad, of
from quantgate.serve.relay import Out, relay
from quantgate.serve.settings import Settings
from quantgate.serve.stages import Clock
from quantgate.serve.surface import Surface
from quantgate.serve.upstreams import TRACE
from quantgate.serve.whole import answer

log = logging.getLogger("quantgate.serve")
ANYONE = Caller("anonymous")
ANSWERS: Mapping[str, Route] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
}


class Gateway:
    """``uvicorn.run(Gateway(settings))``. One per process and loop."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.settings, self.metrics = settings, metrics or Metrics()
        self.lanes = Lanes(settings.upstreams, settings.limits, self.metrics)
        self.surface = Surface(settings, self.metrics)
        self.in_flight = 0
        self.draining = False  # told by /ready; requests that come all the same are answered
        own = {} if settings.admin is None else {"admin": settings.admin}
        self._apps = {**settings.apps, **own}
        self._streams: dict[Out, Leaving] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._boot, self._count = os.urandom(6).hex(), 0
        self._pulse: asyncio.Task[None] | None = None

    async def __call__(self, scope: wire.Scope, receive: wire.Receive, send: wire.Send) -> None:
        if scope["type"] == "http":
            route = ANSWERS.get(scope["path"])
            if route is not None and scope["method"] == "POST":
                await self._turn(route, scope, receive, send)
            else:
                await self._aside(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def start(self) -> None:
        """Open the upstreams, and begin to keep silent streams alive."""
        for upstream in self.settings.upstreams.values():
            await upstream.start()
        self._pulse = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Answers in flight have their time of grace, and are cut after it."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.limits.grace_s):
                await self._idle.wait()
        if self._pulse is not None:
            self._pulse.cancel()
        for upstream in self.settings.upstreams.values():
            await upstream.close()

    async def _lifespan(self, receive: wire.Receive, send: wire.Send) -> None:
        while True:
            message = await receive()
            try:
                await (self.start() if message["type"] == "lifespan.startup" else self.stop())
            except Exception as error:
                await send({"type": message["type"] + ".failed", "message": str(error)})
                raise
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _aside(self, scope: wire.Scope, receive: wire.Receive, send: wire.Send) -> None:
        """Everything but answers: models, health, metrics, operators' and others' pages, and what is not there."""
        id = self._id()
        try:
            path = scope["path"]
            app = self._apps.get(path[1:].partition("/")[0])
            if app is not None:
                await app(scope, receive, send)
                return
            headers = wire.headers_of(scope)
            if path.startswith("/v1/"):
                self._caller(headers)
            status, body, fields = await self.surface.page(scope, draining=self.draining, answers=ANSWERS)
            await wire.respond(send, status, body, [*fields, (b"x-request-id", id.encode())])
        except Exception as error:
            await self._refuse(send, id, error)

    async def _refuse(self, send: wire.Send, id: str, error: Exception, passage: Passage | None = None) -> None:
        refused = self._told(error, id)
        fields = passage.headers() if passage is not None else [(b"x-request-id", id.encode())]
        if passage is not None:
            passage.status, passage.error, passage.began = refused.status, refused.code, True
            fields.append((b"server-timing", passage.clock.header(monotonic()).encode()))
        await wire.refuse(send, refused, fields)

    def _told(self, error: Exception, id: str) -> Refused:
        refused = of(error)
        if refused.code == "internal_error":
            log.error("request %s failed", id, exc_info=error)
        self.metrics.error(refused.counted)
        if refused.code in ("budget_exceeded", "ledger_unreachable"):
            self.metrics.budget_refusals.labels(refused.code).inc()
        return refused

    def _id(self) -> str:
        self._count += 1
        return f"req_{self._boot}{self._count:08x}"

    def _caller(self, headers: Mapping[str, str]) -> Caller:
        """Whose key it is. Raises Refused, 401; OpenAI's clients send ``Authorization: Bearer``."""
        keys = self.settings.keys
        if keys is None:
            return ANYONE
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        caller = keys.find(secret.strip()) if scheme.lower() == "bearer" and secret else None
        if caller is None:
            said = "missing: send Authorization: Bearer and a key" if not secret else "unknown or revoked"
            raise Refused(
                401, "invalid_api_key", f"API key: {said}", headers=((b"www-authenticate", b"Bearer"),), retry=False
            )
        if "use" not in caller.scopes and "admin" not in caller.scopes:
            raise Refused(403, "scope_missing", "this key may not ask for answers; it has no scope 'use'")
        return caller

    async def _turn(self, route: Route, scope: wire.Scope, receive: wire.Receive, send: wire.Send) -> None:
        """One request for an answer."""
        started, id = monotonic(), self._id()
        if self.in_flight >= self.settings.limits.in_flight:
            self.metrics.shed.labels("gateway").inc()
            await self._refuse(send, id, Refused(503, "overloaded", "too many requests are in flight", after_s=1.0))
            return
        self.in_flight += 1
        self._idle.clear()
        self.metrics.in_flight.inc()
        try:
            try:
                passage = await self._begin(route, scope, receive, id, started)
            except wire.Gone:
                return
            except Exception as error:
                await self._refuse(send, id, renamed(route, error))
                return
            await self._watched(passage, receive, send)
        finally:
            self.in_flight -= 1
            self.metrics.in_flight.dec()
            if not self.in_flight:
                self._idle.set()

    async def _begin(self, route: Route, scope: wire.Scope, receive: wire.Receive, id: str, started: float) -> Passage:
        """Everything before somebody is asked. Raises Refused, SchemaRefused, OverBudget, LedgerClosed, wire.Gone."""
        settings, headers = self.settings, wire.headers_of(scope)
        caller = self._caller(headers)
        raw = await wire.read_body(headers, receive, settings.limits.body_bytes, settings.limits.body_s)
        body = wire.parse(raw, headers, settings.limits.depth)
        original, body = original_of(route, body)
        check_chat(body)
        session, told = settings.sessions.name(original or body, headers, caller, id)
        request = Request(
            id=id, route=route, body=body, caller=caller, session=session, told_session=told, headers=headers,
            size=len(raw), retry=wire.retries(headers), arrived_s=started,
            deadline_s=wire.deadline(headers, started, settings.limits.timeout_s), original=original,
        )  # fmt: skip
        if settings.ledger is not None and caller.budget:
            check_bounded(original or body)
        contract = settings.admit(body)
        choice = settings.router.choose(request)
        policy = settings.policy(request)
        canary = choice.arm.role == "canary" and policy.canary_validators is not None
        passage = Passage(
            request, choice, policy, contract, Clock(policy.budgets_ms, request.deadline_s, started=started),
            validators=policy.canary_validators or () if canary else policy.validators, asked=choice.arm,
            keep_text=settings.keep_text,
        )  # fmt: skip
        await self._reserve(passage)
        passage.clock.enter("context")
        try:
            self._approval(passage)
        except BaseException:
            self._settle(passage)
            raise
        passage.body = upstream_body(passage, settings.limits.answer_tokens)
        if settings.watch is not None:
            TRACE.set(getattr(settings.watch.begin(request), "traceparent", ""))
        return passage

    async def _reserve(self, passage: Passage) -> None:
        ledger, request = self.settings.ledger, passage.request
        if ledger is None:
            return
        body = request.body
        told = [body[key] for key in ("max_completion_tokens", "max_tokens") if body.get(key)]
        most = max(told, default=self.settings.limits.answer_tokens)
        answers = most * (body.get("n") or 1)
        name = passage.choice.arm.name
        passage.reservation = await ledger.admit(request.caller, prompt_bound(request.size), answers, name)

    def _approval(self, passage: Passage) -> None:
        id, gate = passage.request.headers.get("x-quantgate-approval"), passage.policy.gate
        if id is None:
            return
        if gate is None:
            raise bad(None, "x-quantgate-approval: no tool call of this route needs approval", "approval_refused")
        passage.approved = gate.redeem(id, caller=passage.request.caller.key)

    async def _watched(self, passage: Passage, receive: wire.Receive, send: wire.Send) -> None:
        """The answer, with an eye on the client: when it leaves, the work is cancelled, in whatever stage it is."""
        task = asyncio.current_task()
        assert task is not None  # ASGI servers run an application in a task
        left = Leaving(task)
        watcher = asyncio.create_task(left.watch(receive))
        try:
            await self._answered(passage, send, left)
        except asyncio.CancelledError:
            if not left.gone:
                raise
            task.uncancel()
            passage.disconnected = True
        finally:
            watcher.cancel()
            self._end(passage)

    async def _answered(self, passage: Passage, send: wire.Send, left: Leaving) -> None:
        request, settings = passage.request, self.settings
        if settings.shadow is not None:
            settings.shadow.offer(request, passage.choice)
        if request.stream:
            await self._streamed(passage, send, left)
            return
        try:
            body, raw = await answer(passage, self.lanes, self.metrics)
            data = whole_form(request, body, raw)
        except Exception as error:
            await self._refuse(send, request.id, renamed(request.route, error), passage)
            return
        passage.status = 200
        now = passage.clock.enter("stream")
        timing = (b"server-timing", passage.clock.header(now).encode())
        await wire.respond(send, 200, data, [wire.JSON, *passage.headers(), timing])

    async def _streamed(self, passage: Passage, send: wire.Send, left: Leaving) -> None:
        out = Out(passage, send, stream_form(passage.request), self.settings.limits.answer_chars)
        self._streams[out] = left
        try:
            await relay(passage, out, self.lanes, self.metrics)
            passage.status = 200
        except Exception as error:
            if not passage.began:
                await self._refuse(send, passage.request.id, renamed(passage.request.route, error), passage)
                return
            refused = self._told(error, passage.request.id)
            passage.error = refused.code
            await out.put(out.form.error(refused), last=True)
        finally:
            del self._streams[out]

    def _end(self, passage: Passage) -> None:
        """Nothing here waits, and nothing of it may fail a request that is over."""
        settings = self.settings
        self._settle(passage)
        exchange = passage.exchange(settings.target)
        self.metrics.of(passage.choice.arm.name, passage.choice.cohort).saw(exchange)
        try:
            if settings.sink is not None:
                settings.sink.put(exchange)
            if settings.watch is not None:
                settings.watch.end(exchange)
        except Exception:
            self.metrics.sink_errors.labels().inc()
            log.exception("request %s: its exchange could not be handed on", passage.request.id)

    def _settle(self, passage: Passage) -> None:
        """What was used is charged, at the price of who answered; the rest of what was reserved is given back."""
        ledger = self.settings.ledger
        if passage.reservation is None or ledger is None:
            return
        prompt, written = passage.charge()
        try:
            ledger.settle(passage.reservation, prompt, written, passage.answered_by or passage.choice.arm.name)
        except Exception:
            log.exception("request %s: its budget could not be settled", passage.request.id)

    async def _beat(self) -> None:
        """A comment into every stream that was silent too long, and an end to those that nobody reads; one task for
        all of them."""
        waiting = set[asyncio.Task[None]]()
        while True:
            await asyncio.sleep(0.25)
            now, patience = monotonic(), self.settings.limits.unread_s
            for left in [left for out, left in self._streams.items() if out.stuck(now, patience)]:
                left.leave()
            for out in [out for out in self._streams if out.silent(now)]:
                out.last_s = now
                task = asyncio.create_task(out.ping())
                waiting.add(task)
                task.add_done_callback(waiting.discard)


class Leaving:
    """Whether the client has left, and the task that is cancelled then."""

    __slots__ = ("_task", "gone")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task, self.gone = task, False

    async def watch(self, receive: wire.Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.leave()

    def leave(self) -> None:
        self.gone = True
        self._task.cancel()
