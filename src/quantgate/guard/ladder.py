"""The ladder of a whole answer: check, repair, one corrective turn, the baseline, a typed error. Cheapest first.

    passed     it kept its contract as it came
    repaired   a repair that costs no token, on the variant's own answer
    corrected  the variant mended it in a further turn
    escalated  the baseline's answer left instead
    failed     none of these; ``Unfit`` is raised

Every answer on the way is held to the same contract and validators, and each may be repaired. A step that could not
end before the deadline is left out, and ``Settled.skipped`` says so; one that does not end by it is broken off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from quantgate.errors import InvalidAnswer, QuantgateError
from quantgate.guard import Contract, Fault, Message, Step
from quantgate.guard.validators import NOTHING, Context, Validator, plain
from quantgate.guard.validators import check as judge

SHOWN = 200  # characters of a bad answer that the corrective turn repeats
Answer = tuple[Message, str | None, Mapping[str, Any] | None]  # message, finish reason, usage
Again = Callable[[list[dict[str, Any]]], Awaitable[Answer]]
Escalate = Callable[[], Awaitable[Answer]]


@dataclass(slots=True)
class Tokens:
    """What all steps together have used, for the budget. A step that was broken off tells none."""

    prompt: int = 0
    answer: int = 0
    untold: int = 0  # answers without usage

    def add(self, usage: Mapping[str, Any] | None) -> None:
        prompt, answer = (usage or {}).get("prompt_tokens"), (usage or {}).get("completion_tokens")
        if not isinstance(prompt, int) or not isinstance(answer, int):
            self.untold += 1
            return
        self.prompt, self.answer = self.prompt + prompt, self.answer + answer


@dataclass(slots=True)
class Settled:
    """An answer that may leave, and how it came to that."""

    message: Message
    finish: str | None
    step: Step
    faults: tuple[Fault, ...]  # of the answers before it, in the order met
    repairs: tuple[str, ...]
    answered_by: Literal["variant", "baseline"]
    used: Tokens
    skipped: tuple[str, ...] = ()  # steps that were left out or broken off, and why


class Unfit(InvalidAnswer):
    """No answer that may leave. The same question again would cost as much and bring no more."""

    def __init__(self, faults: Sequence[Fault], used: Tokens, skipped: Sequence[str] = ()) -> None:
        last = faults[-1]
        told = f"; {'; '.join(skipped)}" if skipped else ""
        super().__init__(f"no valid answer: {last.where}: {last.sentence}{told}")
        self.faults, self.used, self.skipped = tuple(faults), used, tuple(skipped)


@dataclass(frozen=True, slots=True)
class Times:
    """When the answer must be there, and how long a step is known to take."""

    deadline_s: float | None = None  # monotonic; None: none
    again_s: float = 0.0  # what a corrective turn needs, at least; 0: not known
    escalate_s: float = 0.0  # what the baseline needs, at least
    now: Callable[[], float] = time.monotonic

    def left(self) -> float | None:
        return None if self.deadline_s is None else self.deadline_s - self.now()


@dataclass(slots=True)
class _Climb:
    """One answer's way up."""

    contract: Contract
    validators: Sequence[Validator]
    context: Context
    times: Times
    used: Tokens
    faults: list[Fault] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def judge(self, message: Message, finish: str | None) -> tuple[Message, tuple[str, ...]] | None:
        """The message, whole or repaired, and its repairs; None where it may not leave, whose fault is kept."""
        fault = self.contract.check(message, finish)
        if fault is None:
            fault = judge(self.validators, message, self.context)
            if fault is None:
                return message, ()
        self.faults.append(fault)
        if fault.kind == "validator":
            return None
        mended = self.contract.repair(message, finish)
        if mended is None:
            return None
        if fault := judge(self.validators, mended[0], self.context):
            self.faults.append(fault)
            return None
        return mended[0], tuple(mended[1])

    async def ask(self, name: str, question: Awaitable[Answer], limit_s: float | None) -> Answer | None:
        """What the question brings; None where it fails or does not end in time, which is told."""
        try:
            if limit_s is None:
                answer = await question
            else:
                async with asyncio.timeout(limit_s):
                    answer = await question
        except TimeoutError:
            self.skipped.append(f"{name}: broken off after {max(limit_s or 0.0, 0.0):.2f} s")
        except (QuantgateError, OSError) as problem:
            self.skipped.append(f"{name}: {problem}")
        else:
            self.used.add(answer[2])
            return answer
        return None

    def room(self, name: str, needs_s: float, kept_s: float = 0.0) -> tuple[bool, float | None]:
        """Whether a step can end in time, and how long it may take; ``kept_s`` is what the step behind it needs."""
        left = self.times.left()
        if left is None:
            return True, None
        if left - kept_s > max(needs_s, 0.0):
            return True, left - kept_s
        if kept_s:
            return self.room(name, needs_s + kept_s)
        self.skipped.append(f"{name}: left out, {max(left, 0.0):.2f} s are left and it needs {needs_s:.2f} s")
        return False, None


async def settle(
    contract: Contract,
    message: Message,
    finish: str | None,
    *,
    usage: Mapping[str, Any] | None = None,
    again: Again | None = None,
    escalate: Escalate | None = None,
    corrections: int = 1,
    validators: Sequence[Validator] = (),
    context: Context = NOTHING,
    times: Times = Times(),
    used: Tokens | None = None,
) -> Settled:
    """The answer that may leave, of the variant or of the baseline. Raises Unfit.

    ``again`` asks the variant once more, with these messages behind the request's own; ``escalate`` asks the baseline
    the request as it came. Both may raise a QuantgateError, which ends their step. ``used`` is added to as it goes, so
    that a call that is cancelled has still told what it cost.
    """
    climb = _Climb(contract, validators, context, times, used if used is not None else Tokens())
    climb.used.add(usage)
    if good := climb.judge(message, finish):
        return _settled(climb, good, finish, "repaired" if good[1] else "passed", "variant")
    for _ in range(corrections if again is not None else 0):
        may, limit = climb.room("corrective turn", times.again_s, times.escalate_s if escalate else 0.0)
        if not may or again is None:
            break
        answer = await climb.ask("corrective turn", again(turn(message, climb.faults[-1])), limit)
        if answer is None:
            break
        message, finish, _ = answer
        if good := climb.judge(message, finish):
            return _settled(climb, good, finish, "corrected", "variant")
    if escalate is not None:
        may, limit = climb.room("baseline", times.escalate_s)
        answer = await climb.ask("baseline", escalate(), limit) if may else None
        if answer is not None and (good := climb.judge(answer[0], answer[1])):
            return _settled(climb, good, answer[1], "escalated", "baseline")
    raise Unfit(climb.faults, climb.used, climb.skipped)


def turn(message: Message, fault: Fault) -> list[dict[str, Any]]:
    """What is put behind the request's messages: the beginning of the bad answer, and what was wrong with it.

    Two turns, because templates of many models allow no two turns of one side in a row.
    """
    said = plain(message.get("content")) or "(a tool call)" * bool(message.get("tool_calls"))
    shown = said[:SHOWN] + ("..." if len(said) > SHOWN else "")
    wish = "Answer again, shorter" if fault.kind == "cut" else "Answer again, from the beginning"
    sentence = f"This answer cannot be used ({fault.where}: {fault.sentence}). {wish}, and give the answer alone."
    return [{"role": "assistant", "content": shown or "(no answer)"}, {"role": "user", "content": sentence}]


def _settled(
    climb: _Climb,
    good: tuple[Message, tuple[str, ...]],
    finish: str | None,
    step: Step,
    by: Literal["variant", "baseline"],
) -> Settled:
    message, repairs = good
    return Settled(message, finish, step, tuple(climb.faults), repairs, by, climb.used, tuple(climb.skipped))
