"""Copies of requests to a variant whose answers nobody hears: what it would have said, at no risk.

A copy is taken after its request was placed, waits in a queue of its own and is dropped first: a full queue, a spent
budget, a gateway that ends. It bills no caller, has its own concurrency, is never streamed, and leaves one Exchange
with ``shadow=True``, in the words of every other one: nothing is compared here. The exchange has its original's id, and
``against`` is the digest of the variant that the original was given to.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from quantgate.guard import Contract, Fault
from quantgate.serve import (
    Arm,
    Body,
    Caller,
    Choice,
    Exchange,
    Ledger,
    LedgerClosed,
    OverBudget,
    Reply,
    Request,
    Sink,
    Upstream,
    UpstreamFault,
)
from quantgate.serve.passage import text_of
from quantgate.serve.refusals import word
from quantgate.serve.routing import place
from quantgate.serve.sound import usage_sound
from quantgate.serve_config import ShadowConfig

ACCOUNT = "shadow"  # no key's account: those begin with k
CALLER = Caller("shadow", budget=ACCOUNT)
NEVER = ("stream", "stream_options")
ANSWER_TOKENS = 1024


class Copies:
    """See ``settings.Shadow``. All of it happens in the gateway's loop."""

    def __init__(
        self,
        config: ShadowConfig,
        arm: Arm,
        upstream: Callable[[], Upstream | None],
        sink: Sink,
        admit: Callable[[Mapping[str, Any]], Contract],
        *,
        target: str = "",
        ledger: Ledger | None = None,
        keep_text: bool = False,
    ) -> None:
        """``upstream``: of the shadow variant, None while it is not up; ``ledger`` where copies have a budget."""
        self.config, self.arm, self.target = config, arm, target
        self._upstream, self._sink, self._admit, self._keep_text = upstream, sink, admit, keep_text
        self._ledger = ledger if config.budget.limits else None
        self._queue: deque[tuple[Request, Choice]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.asked = self.dropped = 0

    def offer(self, request: Request, choice: Choice) -> None:
        """Never waits, never raises."""
        if choice.arm.name == self.arm.name or place(request.session, "shadow") >= self.config.share:
            return
        if self._closed or len(self._queue) >= self.config.queue:
            self.dropped += 1
            return
        self._queue.append((request, choice))
        if len(self._tasks) < self.config.concurrency:
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Copies that wait or are under way are dropped."""
        self._closed = True
        self.dropped += len(self._queue) + len(self._tasks)
        self._queue.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self) -> None:
        while self._queue and not self._closed:
            request, choice = self._queue.popleft()
            upstream = self._upstream()
            if upstream is None:
                self.dropped += 1
                continue
            # one copy that goes wrong in a way nobody foresaw is one copy dropped
            try:
                await self._copy(upstream, request, choice)
            except Exception:
                self.dropped += 1

    async def _copy(self, upstream: Upstream, request: Request, choice: Choice) -> None:
        body = {key: value for key, value in request.body.items() if key not in NEVER}
        most = max([body[key] for key in ("max_completion_tokens", "max_tokens") if body.get(key)] or [ANSWER_TOKENS])
        held = None
        if self._ledger is not None:
            try:
                held = await self._ledger.admit(CALLER, request.size, most * (body.get("n") or 1), self.arm.name)
            except (OverBudget, LedgerClosed):
                self.dropped += 1
                return
        began, at = time.monotonic(), time.time()
        reply: Reply | None = None
        fault: UpstreamFault | None = None
        self.asked += 1
        try:
            reply = await upstream.ask(body, timeout_s=self.config.timeout)
        except UpstreamFault as told:
            fault = told
        finally:
            usage = _usage(reply)
            if held is not None and self._ledger is not None:
                self._ledger.settle(held, *_tokens(usage), self.arm.name)
        self._sink.put(self._exchange(request, choice, at, time.monotonic() - began, reply, fault))

    def _exchange(
        self,
        request: Request,
        choice: Choice,
        at: float,
        took_s: float,
        reply: Reply | None,
        fault: UpstreamFault | None,
    ) -> Exchange:
        contract = self._admit(request.body)
        choices = reply.body.get("choices") if reply is not None else None
        faults = _faults(contract, choices) if reply is not None else ()
        first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        usage = _usage(reply)
        prompt, answer = _tokens(usage) if usage else (None, None)
        message = first.get("message") or {}
        return Exchange(
            id=request.id,
            at=at,
            target=self.target,
            variant=self.arm.name,
            artifact=self.arm.digest,
            answered_by=self.arm.name if reply is not None and not faults else "",
            cohort="pinned",
            share=choice.share,
            against=choice.arm.digest,
            revision=choice.revision,
            rule="shadow",
            shadow=True,
            route=request.route,
            key=request.caller.key,
            session=request.session,
            told_session=request.told_session,
            stream=False,
            structured=contract.structured,
            status=reply.status if reply is not None else fault.status if fault is not None else 0,
            error=fault.kind if fault is not None else "",
            finish=word(first.get("finish_reason")),
            step="" if reply is None else "failed" if faults else "passed",
            faults=faults,
            refusal=isinstance(message, dict) and bool(message.get("refusal")),
            retry=request.retry,
            prompt_tokens=prompt,
            answer_tokens=answer,
            stages=dict(reply.stages) if reply is not None else {},
            total_s=took_s,
            text=text_of(request.body, _messages(choices), first.get("logprobs")) if self._keep_text else None,
        )


def _messages(choices: Any) -> list[Any]:
    """What each choice says, as an exchange's text has it.

    >>> _messages([{"message": {"content": "a"}}, "broken"]), _messages(None)
    ([{'content': 'a'}], [])
    """
    listed = choices if isinstance(choices, list) else []
    return [one["message"] for one in listed if isinstance(one, dict) and isinstance(one.get("message"), dict)]


def _faults(contract: Contract, choices: Any) -> tuple[str, ...]:
    """Kinds of fault, of every choice of an answer."""
    if not isinstance(choices, list) or not choices:
        return ("malformed",)
    found: list[str] = []
    for one in choices:
        fault: Fault | None = Fault("malformed", "choices", "not a choice")
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            fault = contract.check(one["message"], one.get("finish_reason"))
        if fault is not None:
            found.append(fault.kind)
    return tuple(found)


def _usage(reply: Reply | None) -> Body:
    told = reply.body.get("usage") if reply is not None else None
    return dict(told) if told is not None and usage_sound(told) else {}


def _tokens(usage: Body) -> tuple[int, int]:
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, answer = (one if isinstance(one, int) and one >= 0 else 0 for one in counts)
    return prompt, answer
