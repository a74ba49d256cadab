"""Proof at start: every guard is given an answer that it must refuse and one that it must pass.

A guard that is configured and does not fire is worse than none, because people rely on it. So the gateway proves each
one with the very objects that requests will meet, and serves nothing (``GuardDead``) where one lets its answer through.
Nothing is asked of a model and nothing is written: proposals are kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from quantgate.errors import ApprovalRefused, GuardDead, SchemaRefused
from quantgate.guard import Contract, Policy
from quantgate.guard.assembly import Body, Broken, replay
from quantgate.guard.conditions import sample
from quantgate.guard.confirm import Gate, Rule, Rules
from quantgate.guard.ladder import Answer, Unfit, settle
from quantgate.guard.proposals import Memory
from quantgate.guard.streams import StreamGuard, usable
from quantgate.guard.validators import NOTHING, Context, Validator

T = TypeVar("T")
Admit = Callable[[Mapping[str, Any]], Contract]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
ASKED = {"response_format": {"type": "json_schema", "json_schema": {"name": "proof", "schema": SCHEMA}}}
TOOL = {"type": "function", "function": {"name": "proof", "parameters": SCHEMA}}
IMPOSSIBLE: Mapping[str, Any] = {
    "an impossible schema": {"not": {}},
    "a schema elsewhere": {"$ref": "http://127.0.0.1/"},
}
GOOD, BAD = '{"n": 1}', '{"n": "one", "m": 2}'
PIECE = 3  # characters of a piece in a proof's stream


@dataclass(frozen=True, slots=True)
class Guarded:
    """What the answers of one route are held to."""

    where: str  # the route's name
    stream: Policy
    window: int = 16
    validators: Sequence[Validator] = ()
    canary_validators: Sequence[Validator] = ()
    confirm: Rules | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """One guard that fired: what it refused."""

    guard: str
    fired: str


def prove(admit: Admit, routes: Sequence[Guarded]) -> tuple[Proof, ...]:
    """The proofs, in order. Raises GuardDead at the first guard that does not fire; UsageError (``streams.usable``)."""
    proofs = [*_admission(admit), *_contract(admit), *_ladder(admit)]
    for route in routes:
        every = (*route.validators, *route.canary_validators)
        usable(
            route.stream,
            window=route.window,
            validators=every,
            confirm=route.confirm is not None,
            where=route.where,
        )
        proofs += [*_stream(admit, route), *_validators(admit, route, every)]
        if route.confirm is not None:
            proofs += _confirmation(route.confirm, route.where)
    return tuple(proofs)


def _admission(admit: Admit) -> Iterator[Proof]:
    for name, schema in IMPOSSIBLE.items():
        asked = {"type": "json_schema", "json_schema": {"name": "proof", "schema": schema}}
        try:
            admit({"response_format": asked})
        except SchemaRefused as refused:
            yield Proof("admission", f"{name}: {refused}")
        else:
            raise _dead("admission", f"takes {name}")


def _contract(admit: Admit) -> Iterator[Proof]:
    contract = admit(ASKED)
    for name, content, finish in (("schema", BAD, "stop"), ("schema", "{", "stop"), ("length", GOOD[:4], "length")):
        fault = contract.check({"role": "assistant", "content": content}, finish)
        if fault is None:
            raise _dead(name, f"passes {content!r}")
        yield Proof(name, fault.sentence)
    if contract.check({"role": "assistant", "content": GOOD}, "stop") is not None:
        raise _dead("schema", f"refuses {GOOD!r}, which keeps the schema")
    tools = admit({"tools": [TOOL]})
    for name, arguments in (("another", GOOD), ("proof", BAD)):
        fault = tools.check(_calling(name, arguments), "tool_calls")
        if fault is None:
            raise _dead("tools", f"passes a call of {name} with {arguments}")
        yield Proof("tools", fault.sentence)
    if tools.check(_calling("proof", GOOD), "tool_calls") is not None:
        raise _dead("tools", "refuses a call that was offered")


def _ladder(admit: Admit) -> Iterator[Proof]:
    """Bad answers of variant and baseline are an error; a good one of the baseline leaves."""
    contract = admit(ASKED)
    bad: Body = {"role": "assistant", "content": BAD}

    async def worse() -> Answer:
        return bad, "stop", None

    async def better() -> Answer:
        return {"role": "assistant", "content": GOOD}, "stop", None

    try:
        _run(settle(contract, bad, "stop", again=lambda _: worse(), escalate=worse))
    except Unfit as unfit:
        yield Proof("ladder", str(unfit))
    else:
        raise _dead("ladder", "lets an answer leave that nothing mended")
    settled = _run(settle(contract, bad, "stop", escalate=better))
    if settled.step != "escalated":
        raise _dead("ladder", "does not take the baseline's answer")
    yield Proof("ladder", "the baseline's answer left instead")


def _stream(admit: Admit, route: Guarded) -> Iterator[Proof]:
    contract = admit(ASKED)
    at = f"{route.where}: stream ({route.stream})"
    left, broken = _streamed(contract, {"content": BAD}, route, ())
    if broken is None or _ended(left):
        raise _dead(at, f"lets {BAD} leave")
    if BAD in _said(left):
        raise _dead(at, "lets the whole of an invalid answer leave before it is refused")
    good, wrong = _streamed(contract, {"content": GOOD}, route, ())
    if wrong is not None or _said(good) != GOOD or not _ended(good):
        raise _dead(at, f"does not let {GOOD} leave")
    yield Proof(at, str(broken))


def _validators(admit: Admit, route: Guarded, validators: Sequence[Validator]) -> Iterator[Proof]:
    free = admit({})
    for one in validators:
        at, proof = f"{route.where}: {one.name}", one.proof()
        fault = one.check(proof.refuses, proof.context)
        if fault is None or fault.validator != one.name:
            raise _dead(at, "passes what it is there to refuse")
        if one.check(proof.passes, proof.context) is not None:
            raise _dead(at, "refuses what it is there to pass")
        text = str(proof.refuses.get("content") or "")
        left, broken = _streamed(free, {"content": text}, route, (one,), proof.context)
        if not proof.refuses.get("tool_calls") and (
            broken is None or _ended(left) or (one.reach and text in _said(left))
        ):
            raise _dead(at, "lets a stream leave that it is there to refuse")
        yield Proof(at, fault.sentence)


def _confirmation(rules: Rules, where: str) -> Iterator[Proof]:
    for rule in rules.rules:
        at = f"{where}: confirm {rule.tool}"
        gate, call = Gate(rules, Memory()), _example(rule)
        held = gate.hold(_calling(*call), caller="proof", canary=False)
        if held is None or held.get("tool_calls"):
            raise _dead(at, f"lets {call[0]} {call[1]} leave")
        (state,) = gate.waiting()
        fetch = partial(gate.redeem, state.proposal.id)
        _refuses(at, "before anybody approved it", partial(fetch, caller="proof"))
        gate.approve(state.proposal.id, by="a person", hash=state.proposal.hash)
        _refuses(at, "edited", partial(fetch, caller="proof", calls=[(call[0], {"edited": call[1]})]))
        _refuses(at, "to another caller", partial(fetch, caller="other"))
        if fetch(caller="proof")["tool_calls"][0]["function"]["arguments"] != call[1]:
            raise _dead(at, "does not let the approved call leave as it was")
        _refuses(at, "twice", partial(fetch, caller="proof"))
        yield Proof(at, f"{call[0]} {call[1]} waits for a person, and leaves once")


def _example(rule: Rule) -> tuple[str, str]:
    """A call that the rule holds."""
    name = rule.tool.replace("*", "").replace("?", "x") or "x"
    arguments: dict[str, Any] = {}
    for one in rule.when:
        sample(one, arguments)
    if not rule.holds(name, arguments, canary=False):
        arguments = {}  # conditions on values that are absent cannot be judged, and hold the call
    return name, json.dumps(arguments)


def _refuses(at: str, how: str, fetch: Callable[[], object]) -> None:
    try:
        fetch()
    except ApprovalRefused:
        return
    raise _dead(at, f"lets the call leave {how}")


def _streamed(
    contract: Contract, message: Body, route: Guarded, validators: Sequence[Validator], context: Context = NOTHING
) -> tuple[list[Body], Broken | None]:
    """What of a message leaves as a stream of small pieces, and how it broke."""
    guard = StreamGuard(
        contract,
        route.stream,
        window=route.window,
        validators=validators,
        context=context,
    )
    left: list[Body] = []
    try:
        for chunk in _pieces(message["content"]):
            left += guard.feed(chunk)
        left += guard.end()
    except Broken as broken:
        return left, broken
    return left, None


def _pieces(content: str) -> Iterator[Body]:
    head, *_, last = replay({"id": "proof", "choices": [{"index": 0, "message": {}, "finish_reason": "stop"}]})
    yield head
    for at in range(0, len(content), PIECE):
        delta = {"content": content[at : at + PIECE]}
        yield head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield last


def _said(chunks: Sequence[Body]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def _ended(chunks: Sequence[Body]) -> bool:
    return any(chunk["choices"][0]["finish_reason"] for chunk in chunks)


def _calling(name: str, arguments: str) -> Body:
    call = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _run(steps: Coroutine[Any, Any, T]) -> T:
    """A coroutine that waits for nothing, without an event loop."""
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    steps.close()
    raise GuardDead("ladder: waits for something in its proof; nothing is served")


def _dead(guard: str, how: str) -> GuardDead:
    return GuardDead(f"{guard}: the guard {how}; nothing is served, correct its settings or report this")
