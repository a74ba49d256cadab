"""An upstream's stream -> what may leave, under the route's policy.

Until a first piece of the answer has left, the caller has seen nothing of it, and a stream that breaks is begun again
at the baseline. Afterwards nothing changes hands: it ends with an error object as an event, and without ``[DONE]``.
A chunk that the guard hands back as it came leaves as the very bytes that came.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import AsyncGenerator, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol, cast

from quantgate.guard.assembly import Broken, replay
from quantgate.guard.streams import StreamGuard
from quantgate.guard.validators import Context
from quantgate.serve import Arm, Body, Chunk, UpstreamFault, wire
from quantgate.serve.asking import Fault, Lanes, all_failed, cause, elsewhere
from quantgate.serve.lanes import Lane
from quantgate.serve.metrics import Metrics
from quantgate.serve.passage import Counts, Passage, identity
from quantgate.serve.refusals import Refused, StageTimeout, word
from quantgate.serve.sound import usage_sound
from quantgate.serve.whole import OWN, answer, holding


class Form(Protocol):
    """How a route writes its stream."""

    def chunk(self, body: Body, raw: bytes | None) -> bytes:
        """The bytes of one chunk, ``raw`` where it is untouched; b"" where the client gets none."""
        ...

    def end(self) -> bytes:
        """What stands behind the last chunk: ``[DONE]``, or the events that complete a response."""
        ...

    def error(self, refused: Refused) -> bytes: ...


class Chat:
    """The chunks as they are; the usage only for a client that asked for it, and then in a chunk of its own."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._asked = bool((body.get("stream_options") or {}).get("include_usage"))
        self._usage: Body | None = None

    def chunk(self, body: Body, raw: bytes | None) -> bytes:
        if body.get("usage"):
            self._usage = body
            if not body.get("choices"):
                return b""
            body, raw = {**body, "usage": None}, None
        return raw + b"\n\n" if raw is not None else wire.event(body)

    def end(self) -> bytes:
        last = self._usage
        if not self._asked or last is None:
            return wire.DONE
        return wire.event({**last, "choices": []}) + wire.DONE

    def error(self, refused: Refused) -> bytes:
        return wire.event(refused.body())


class Out:
    """What the client gets: the head before the first bytes, and a comment whenever nothing came for long."""

    __slots__ = ("_send", "form", "last_s", "most", "named", "passage", "since")

    def __init__(self, passage: Passage, send: wire.Send, form: Form, most: int = 4 << 20) -> None:
        """``most``: characters of an answer."""
        self.passage, self._send, self.form, self.most = passage, send, form, most
        self.last_s, self.named = monotonic(), passage.asked
        self.since = 0.0  # the client has taken nothing; 0: it takes what comes

    async def put(self, data: bytes, *, last: bool = False) -> None:
        passage = self.passage
        if not passage.began:
            await self._head()
        self.last_s = self.since = monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        self.since = 0.0

    async def _head(self) -> None:
        passage = self.passage
        passage.began, passage.status, self.named = True, 200, passage.asked
        timing = (b"server-timing", passage.clock.header(monotonic()).encode())
        fields = [*wire.STREAM, *passage.headers(), timing]
        await self._send({"type": "http.response.start", "status": 200, "headers": fields})

    async def ping(self) -> None:
        await self.put(wire.PING)

    def silent(self, now: float) -> bool:
        after = self.passage.policy.keep_alive_s
        return after is not None and not self.since and now - self.last_s >= after

    def stuck(self, now: float, after: float) -> bool:
        """Whether the client has read nothing for so long that it holds a place which others wait for."""
        return bool(self.since) and now - self.since >= after

    async def end(self, data: bytes) -> None:
        """The last bytes, behind comments that tell what the head could not."""
        passage = self.passage
        timing = b": server-timing " + passage.clock.header(monotonic()).encode() + b"\n"
        if passage.asked is not self.named and passage.asked is not None:
            told = identity(passage.asked, passage.choice)
            timing += b"".join(b": " + name + b" " + value + b"\n" for name, value in told)
        await self.put(timing + b": x-quantgate-step " + passage.step.encode() + b"\n\n" + data, last=True)


async def relay(passage: Passage, out: Out, lanes: Lanes, metrics: Metrics) -> None:
    """The whole way of a streamed answer. Raises Refused, UpstreamFault, InvalidAnswer."""
    if passage.approved is not None or must_buffer(passage):
        return await _replayed(passage, out, lanes, metrics)
    faults: list[Fault | Broken] = []
    for arm in passage.arms:
        passage.asked = arm
        try:
            await _pump(passage, out, lanes.of(arm), arm)
            passage.step = passage.step or "passed"
            await out.end(out.form.end())
            return None
        except (UpstreamFault, StageTimeout, Broken) as fault:
            faults.append(fault)
            if not _goes_on(passage, fault):
                raise
            if arm is not passage.arms[-1]:
                kind = fault.fault.kind if isinstance(fault, Broken) else cause(fault)
                metrics.of(arm.name, passage.choice.cohort).count(metrics.fallbacks, kind)
                passage.clock.again()
    last = faults[-1]
    if isinstance(last, Broken):
        raise last
    raise all_failed([one for one in faults if not isinstance(one, Broken)], [arm.name for arm in passage.arms])


def must_buffer(passage: Passage) -> bool:
    """Whether nothing may leave before the whole answer was checked: by the policy, or because a guard needs it."""
    contract = passage.contract
    if passage.policy.stream == "buffer" or (contract.structured and not contract.checks_prefixes):
        return True
    return any(one.reach is None for one in passage.validators)


def _goes_on(passage: Passage, fault: Fault | Broken) -> bool:
    """Whether the baseline may answer in place of what broke."""
    if isinstance(fault, Broken):
        passage.found(fault.fault)
        passage.step = "failed" if passage.released or not passage.policy.escalate else "escalated"
        if passage.asked is passage.arms[-1]:
            passage.step = "failed"
        return not passage.released and passage.policy.escalate
    return not passage.released and elsewhere(fault)


async def _replayed(passage: Passage, out: Out, lanes: Lanes, metrics: Metrics) -> None:
    """A whole answer that was checked, as a stream."""
    body, _ = await answer(passage, lanes, metrics)
    passage.clock.enter("stream")
    passage.released = True
    passage.ttft_s = monotonic() - passage.clock.started
    chunks = b"".join(out.form.chunk(chunk, None) for chunk in _marked(body))
    await out.end(chunks + out.form.end())


def _marked(body: Body) -> Sequence[Body]:
    """The chunks of a whole answer; of a held call, the first one with a word for clients that know of it."""
    chunks = list(replay(body))
    if OWN in body:
        chunks[0] = {**chunks[0], OWN: body[OWN]}
    return chunks


async def _pump(passage: Passage, out: Out, lane: Lane, arm: Arm) -> None:
    """One upstream's stream, up to the end of its check. Raises UpstreamFault, StageTimeout, Broken, Refused."""
    clock, policy = passage.clock, passage.policy
    guard = StreamGuard(
        passage.contract,
        policy.stream,
        window=policy.window,
        validators=passage.validators,
        context=Context(passage.request.body.get("messages", ())),
        hold=holding(passage),
        max_chars=out.most,
        choices=passage.request.body.get("n") or 1,
    )
    try:
        async with clock:
            begun = await lane.enter(clock, "prefill")
            stream = cast(AsyncGenerator[Chunk, None], lane.upstream.stream(passage.body, timeout_s=None))
            try:
                await _each(passage, out, guard, stream)
            finally:
                lane.leave(begun)
                _heard(passage, guard)
                await stream.aclose()
            clock.enter("validate")
            last = guard.end()
            _concluded(passage, guard)
            clock.enter("stream")
    except TimeoutError:
        raise clock.late() from None
    passage.answered_by = arm.name
    if last:
        await out.put(b"".join(out.form.chunk(body, None) for body in last))
        _seen(passage, True)


async def _each(passage: Passage, out: Out, guard: StreamGuard, stream: AsyncGenerator[Chunk, None]) -> None:
    """Chunk by chunk. Times are kept in locals: entering a stage for each chunk would cost more than the check."""
    clock, form = passage.clock, out.form
    checked = sent = 0.0
    silent, waiting, before = True, b"", (passage.prompt_tokens, passage.answer_tokens)
    try:
        async for chunk in stream:
            body = chunk.body
            passage.pieces += 1
            if silent and _says(body):
                silent = False
                clock.add("validate", checked)
                clock.add("stream", sent)
                checked = sent = 0.0
                clock.enter("decode")
            begun = monotonic()
            if "usage" in body or OWN in body:
                body = _noted(passage, body, before)
            leaving = guard.feed(body)
            if leaving:
                waiting += _bytes(form, leaving, chunk)
            done = monotonic()
            checked += done - begun
            if waiting and not (chunk.more and passage.released):  # the first words never wait for others
                await out.put(waiting)
                _seen(passage, guard.released)
                waiting = b""
                if chunk.more:
                    await sleep(0)  # uvloop writes when the loop comes round
                sent += monotonic() - done
        if waiting:
            await out.put(waiting)
            _seen(passage, guard.released)
    finally:
        clock.add("validate", checked)
        clock.add("stream", sent)


def _concluded(passage: Passage, guard: StreamGuard) -> None:
    """What the whole answer says of itself."""
    drafts = guard.assembly.drafts.values()
    passage.finish = word(next((draft.finish for draft in drafts if draft.finish), ""))
    passage.refusal = any("refusal" in draft.texts for draft in drafts)


def _heard(passage: Passage, guard: StreamGuard) -> None:
    """What came of an answer, also of one that was broken off."""
    drafts = guard.assembly.drafts
    first = drafts.get(0)
    passage.said((draft.message() for draft in drafts.values()), first.logprobs if first is not None else None)


def _bytes(form: Form, leaving: Sequence[Body], chunk: Chunk) -> bytes:
    if len(leaving) == 1:
        body = leaving[0]
        return form.chunk(body, chunk.raw if body is chunk.body else None)
    return b"".join(form.chunk(body, None) for body in leaving)


def _seen(passage: Passage, released: bool) -> None:
    if released and not passage.released:
        passage.released = True
        passage.ttft_s = monotonic() - passage.clock.started


def _noted(passage: Passage, body: Body, before: Counts) -> Body:
    """Take down usage and what the upstream says of its stages; the body without the latter, and without a usage that
    is none."""
    if body.get("usage"):
        passage.used(body["usage"], before)
        if not usage_sound(body["usage"]):
            body = {**body, "usage": None}
    if OWN in body:
        told = body[OWN].get("stages") if isinstance(body[OWN], dict) else None
        if isinstance(told, dict):
            passage.clock.told({name: took for name, took in told.items() if name in ("queue", "cache", "context")})
        body = {key: value for key, value in body.items() if key != OWN}
    return body


def _says(body: Mapping[str, Any]) -> bool:
    """Whether a chunk holds the first of an answer, beyond the role that some servers send at once."""
    for choice in body.get("choices") or ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if isinstance(delta, dict) and any(value for key, value in delta.items() if key != "role"):
            return True
    return False
