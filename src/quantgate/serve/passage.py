"""One request on its way through the gateway: what it is held to, what has happened to it, and its record."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from quantgate.guard import Contract, Fault
from quantgate.guard.known import mean_logprob
from quantgate.serve import Arm, Body, Choice, Exchange, Request, Reservation
from quantgate.serve.settings import Headers, RoutePolicy
from quantgate.serve.stages import Clock

Counts = tuple[int | None, int | None]  # tokens of prompts, tokens of answers; None: nobody told
MOST_TOKENS = 2**31  # of one answer: more are none


def count_of(told: Any) -> TypeGuard[int]:
    """Whether it is a number of tokens.

    >>> [count_of(one) for one in (0, 7, -1, True, 2.0, "7", 2**40)]
    [True, True, False, False, False, False, False]
    """
    return isinstance(told, int) and not isinstance(told, bool) and 0 <= told < MOST_TOKENS


def text_of(body: Body, messages: Iterable[Mapping[str, Any]], logprobs: Any = None) -> dict[str, Any]:
    """What an exchange's text holds: prompt, answers, whether tools were offered, mean log probability where told."""
    tools = bool(body.get("tools")) and body.get("tool_choice") != "none"
    text = {"prompt": body["messages"], "answer": list(messages), "tools": tools}
    mean = mean_logprob(logprobs)
    return text if mean is None else {**text, "logprob": mean}


@dataclass(slots=True)
class Passage:
    """``asked`` is the arm that is asked now; ``answered_by`` the one whose answer left."""

    request: Request
    choice: Choice
    policy: RoutePolicy
    contract: Contract
    clock: Clock
    validators: Sequence[Any] = ()
    reservation: Reservation | None = None
    approved: Body | None = None  # a held message that a person approved: delivered without asking anybody
    body: Body = field(default_factory=dict)  # that goes upstream
    asked: Arm | None = None

    answered_by: str = ""
    status: int = 0
    error: str = ""
    finish: str = ""
    step: str = ""
    faults: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    refusal: bool = False
    began: bool = False  # whether the head has left
    released: bool = False  # whether anything of an answer has left
    disconnected: bool = False
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    pieces: int = 0  # chunks of a stream, or tokens by its bytes: what an answer is charged by that nobody counted
    ttft_s: float | None = None
    keep_text: bool = False  # whether the operator, or a sink that reads and forgets it, asked for prompts and answers
    text: dict[str, Any] | None = None

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Who is asked, in this order, until one answers."""
        fallback = self.choice.fallback
        return (self.choice.arm,) if fallback is None else (self.choice.arm, fallback)

    def found(self, fault: Fault) -> None:
        self.faults.append(fault.kind)

    def used(self, usage: Any, before: Counts | None = None) -> None:
        """Add what an upstream says that it read and wrote; numbers that are none are not there. ``before``: what was
        used before an answer that tells it again and again, as streams of some servers do."""
        if not isinstance(usage, Mapping):
            return
        read, wrote = before if before is not None else (self.prompt_tokens, self.answer_tokens)
        prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if count_of(prompt):
            self.prompt_tokens = (read or 0) + prompt
        if count_of(answer):
            self.answer_tokens = (wrote or 0) + answer

    def __post_init__(self) -> None:
        self.said(())

    def said(self, messages: Iterable[Mapping[str, Any]], logprobs: Any = None) -> None:
        """Keep prompt and answer, where that was asked for: the prompt from the beginning, of an answer what came."""
        if self.keep_text:
            self.text = text_of(self.request.body, messages, logprobs)

    def charge(self) -> tuple[int, int]:
        """Tokens to settle the budget with. Where the upstream did not tell: of an answer that began, what was
        reserved for the prompt and a token for each piece that came; nothing of one that never did."""
        held = self.reservation.tokens if self.reservation is not None else 0
        begun = self.answered_by or self.pieces or self.disconnected
        prompt = min(held, prompt_bound(self.request.size)) if begun else 0
        answer = min(self.pieces, held - prompt)
        return (
            prompt if self.prompt_tokens is None else self.prompt_tokens,
            answer if self.answer_tokens is None else self.answer_tokens,
        )

    def exchange(self, target: str) -> Exchange:
        """The record. Called once, when all is over."""
        request, choice, clock = self.request, self.choice, self.clock
        now = clock.enter("done")
        return Exchange(
            id=request.id,
            at=time.time() - (now - clock.started),
            target=target,
            variant=choice.arm.name,
            artifact=choice.arm.digest,
            answered_by=self.answered_by,
            cohort=choice.cohort,
            share=choice.share,
            side=choice.side,
            odds=choice.odds,
            against=choice.against,
            draw=choice.draw,
            revision=choice.revision,
            rule=choice.rule,
            route=request.route,
            key=request.caller.key,
            session=request.session,
            told_session=request.told_session,
            stream=request.stream,
            structured=self.contract.structured,
            status=self.status,
            error=self.error,
            finish=self.finish,
            step=self.step,
            faults=tuple(self.faults),
            repairs=tuple(self.repairs),
            refusal=self.refusal,
            disconnected=self.disconnected,
            retry=request.retry,
            prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens,
            stages=clock.spent,
            broke=clock.broke,
            ttft_s=self.ttft_s,
            total_s=now - clock.started,
            overhead_s=clock.overhead(),
            text=self.text,
        )

    def headers(self) -> Headers:
        """What every answer says of who gave it: the arm that is asked now, which is the one that answers."""
        arm = self.asked or self.choice.arm
        return [(b"x-request-id", self.request.id.encode()), *identity(arm, self.choice)]


_identities: dict[tuple[str, str, str, int], Headers] = {}


def identity(arm: Arm, choice: Choice) -> Headers:
    """Headers of an arm and a choice, made once."""
    key = (arm.name, arm.digest, choice.cohort, choice.revision)
    found = _identities.get(key)
    if found is None:
        if len(_identities) > 256:
            _identities.clear()
        found = _identities[key] = [
            (b"x-quantgate-variant", _field(arm.digest)),
            (b"x-quantgate-variant-name", _field(arm.name)),
            (b"x-quantgate-cohort", choice.cohort.encode()),
            (b"x-quantgate-revision", b"%d" % choice.revision),
        ]
    return found


def _field(text: str) -> bytes:
    """A text as a header may hold it.

    >>> _field("W4\\r\\nset-cookie: a")
    b'W4??set-cookie: a'
    """
    return "".join(sign if " " <= sign <= "~" else "?" for sign in text).encode()


def prompt_bound(size: int) -> int:
    """Tokens that a prompt of so many bytes has at most: no token is less than a byte, and the body is longer than
    its prompt by more than a chat template adds."""
    return size


def upstream_body(passage: Passage, answer_tokens: int) -> Body:
    """The copy that goes upstream; an answer that a budget pays for is never longer than what was reserved."""
    body = dict(passage.request.body)
    if passage.reservation is not None and not (body.get("max_completion_tokens") or body.get("max_tokens")):
        body["max_tokens"] = answer_tokens
    return body
