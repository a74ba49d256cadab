"""A whole answer: asked, held to its contract, mended where it can be, and sent. Also for streams that are buffered."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from quantgate.guard import Step
from quantgate.guard.known import CHOICE, known
from quantgate.guard.ladder import Answer, Times, Unfit, settle
from quantgate.guard.streams import Hold
from quantgate.guard.validators import Context
from quantgate.serve import Body
from quantgate.serve.asking import Lanes, ask, first_answer
from quantgate.serve.metrics import Metrics
from quantgate.serve.passage import Passage
from quantgate.serve.refusals import word

OWN = "quantgate"  # key of this gateway's own words in a body; an upstream's under it are dropped


async def answer(passage: Passage, lanes: Lanes, metrics: Metrics) -> tuple[Body, bytes | None]:
    """A chat completion that may leave; with its bytes, where they are the upstream's own and untouched.

    Raises Refused, UpstreamFault, InvalidAnswer.
    """
    if passage.approved is not None:
        return _approved(passage), None
    reply = await first_answer(passage, lanes, metrics)
    body, same = reply.body, OWN not in reply.body and bool(reply.raw)
    asked = passage.asked
    assert asked is not None  # first_answer sets it
    passage.answered_by = asked.name
    settled = [await _settle(passage, lanes, choice) for choice in body["choices"]]
    choices = [one for one, _ in settled]
    if any(one is not was for one, was in zip(choices, body["choices"], strict=True)):
        body, same = {**body, "choices": choices, "usage": _usage(passage, body)}, False
    _finished(passage, choices, [step for _, step in settled])
    if not same:
        body = {key: value for key, value in body.items() if key != OWN} | _pending(choices)
    return _named(body, passage) if "id" not in body or "created" not in body else body, reply.raw if same else None


async def _settle(passage: Passage, lanes: Lanes, choice: Body) -> tuple[Body, Step]:
    """One choice as it may leave, and how it got through. The same object where nothing was done to it."""
    if passage.validators or passage.policy.gate is not None:
        choice = _bare(choice)
    message, finish = choice["message"], choice.get("finish_reason")
    if not passage.validators and passage.contract.check(message, finish) is None:
        return _held(passage, choice), "passed"
    clock, turns = passage.clock, Turns(passage, lanes)
    try:
        settled = await settle(
            passage.contract,
            message,
            finish,
            again=turns.again,
            escalate=turns.escalate if turns.higher is not None else None,
            corrections=passage.policy.corrections,
            validators=passage.validators,
            context=Context(passage.request.body["messages"]),
            times=Times(clock.deadline("validate", clock.enter("validate"))),
        )
    except Unfit as unfit:
        passage.faults += [one.kind for one in unfit.faults]
        passage.step = "failed"
        raise
    passage.faults += [one.kind for one in settled.faults]
    passage.repairs += settled.repairs
    if settled.step != "passed":
        choice = {**choice, "message": settled.message, "finish_reason": settled.finish, "logprobs": None}
    return _held(passage, choice), settled.step


class Turns:
    """What the ladder may do beyond looking: ask the variant once more, and ask the baseline."""

    def __init__(self, passage: Passage, lanes: Lanes) -> None:
        self.passage, self.lanes = passage, lanes
        fallback = passage.choice.fallback
        self.higher = fallback if passage.policy.escalate and fallback is not passage.asked else None

    async def again(self, more: list[dict[str, Any]]) -> Answer:
        messages = [*self.passage.body["messages"], *more]
        return await self._ask({**self.passage.body, "messages": messages, "n": 1})

    async def escalate(self) -> Answer:
        self.passage.asked = self.higher
        found = await self._ask({**self.passage.body, "n": 1})
        assert self.higher is not None  # escalate is given to the ladder only then
        self.passage.answered_by = self.higher.name
        return found

    async def _ask(self, body: Body) -> Answer:
        passage = self.passage
        assert passage.asked is not None  # an answer was given before
        passage.clock.again()
        reply = await ask(passage, self.lanes.of(passage.asked), body)
        first = reply.body["choices"][0]
        return first["message"], first.get("finish_reason"), reply.body.get("usage")


def holding(passage: Passage) -> Hold | None:
    """What puts another message in the place of one whose tool calls a person must approve."""
    gate = passage.policy.gate
    if gate is None:
        return None

    def hold(message: Body) -> Body | None:
        asked = passage.asked
        return gate.hold(
            message, caller=passage.request.caller.key, canary=asked is not None and asked.role == "canary"
        )

    return hold


def _held(passage: Passage, choice: Body) -> Body:
    """The choice, or what leaves in its place until a person approved its tool calls."""
    hold, message = holding(passage), choice["message"]
    if hold is None or not message.get("tool_calls"):
        return choice
    told = hold(message)
    if told is None:
        return choice
    finish = "tool_calls" if told.get("tool_calls") else "stop"
    return {**choice, "message": told, "finish_reason": finish, "logprobs": None}


def _bare(choice: Body) -> Body:
    """Without keys that no guard looks into, where something must be held back."""
    bare, message = known(choice, CHOICE), known(choice["message"])
    return bare if message is bare["message"] else {**bare, "message": message}


def _pending(choices: Sequence[Mapping[str, Any]]) -> Body:
    """The word of a held call stands in the message and, for clients that drop what they do not know, in the body."""
    found = [choice["message"][OWN] for choice in choices if OWN in choice["message"]]
    return {OWN: found[0]} if found else {}


def _approved(passage: Passage) -> Body:
    assert passage.approved is not None  # the caller looked
    passage.step, passage.finish = "passed", "tool_calls"
    choice = {"index": 0, "message": passage.approved, "logprobs": None, "finish_reason": "tool_calls"}
    return _named({"choices": [choice], "usage": _usage(passage, {})}, passage)


def _finished(passage: Passage, choices: Sequence[Mapping[str, Any]], steps: Sequence[str]) -> None:
    """The worst step of all choices, and the first finish."""
    order = ("passed", "repaired", "corrected", "escalated", "failed")
    passage.step = max(steps, key=order.index)
    passage.finish = word(choices[0].get("finish_reason"))
    passage.refusal = any(choice["message"].get("refusal") for choice in choices)
    passage.said((choice["message"] for choice in choices), choices[0].get("logprobs"))


def _usage(passage: Passage, body: Mapping[str, Any]) -> Body | None:
    """What all asks of this request took together."""
    if passage.prompt_tokens is None or passage.answer_tokens is None:
        return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0} if passage.approved else None
    own = body.get("usage") or {}
    prompt, answer = passage.prompt_tokens, passage.answer_tokens
    return {**own, "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _named(body: Body, passage: Passage) -> Body:
    """With what every chat completion has, where the upstream left it out."""
    head = {
        "id": "chatcmpl-" + passage.request.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": passage.request.body["model"],
    }
    return {**head, **{key: value for key, value in body.items() if value is not None}}
