"""The ladder: the cheapest step that brings a valid answer, told and counted; none is an error of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from tests.guard.answers import BODIES, Body, Said, bad, good

from quantgate.errors import EngineError
from quantgate.guard import Fault, validators
from quantgate.guard.admission import admit
from quantgate.guard.ladder import SHOWN, Answer, Settled, Times, Tokens, Unfit, settle, turn

CONTRACT = admit(BODIES["object"])
GOOD, BAD, FENCED = '{"n": 1}', '{"n": "one"}', '```json\n{"n": 1}\n```'


def said(content: str) -> Body:
    return {"role": "assistant", "content": content}


class Asked:
    """Answers one text after the other, each with its usage, and keeps what it was asked."""

    def __init__(self, *texts: str, raises: Exception | None = None) -> None:
        self.texts, self.raises, self.turns = list(texts), raises, list[list[Body]]()

    async def __call__(self, more: list[Body] | None = None) -> Answer:
        self.turns.append(more or [])
        if self.raises is not None:
            raise self.raises
        return said(self.texts.pop(0)), "stop", {"prompt_tokens": 10, "completion_tokens": 2}


def climb(content: str, **more: Any) -> Settled:
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    return asyncio.run(settle(CONTRACT, said(content), "stop", usage=usage, **more))


def test_a_good_answer_passes_as_the_object_that_came() -> None:
    message = said(GOOD)
    settled = asyncio.run(settle(CONTRACT, message, "stop"))
    assert (settled.step, settled.faults, settled.repairs, settled.answered_by) == ("passed", (), (), "variant")
    assert settled.message is message


def test_a_repair_costs_no_token_and_nobody_is_asked() -> None:
    again = Asked()
    settled = climb(FENCED, again=again, escalate=again)
    assert (settled.step, settled.message["content"], again.turns) == ("repaired", GOOD, [])
    assert settled.repairs
    assert [one.kind for one in settled.faults] == ["not_json"]
    assert (settled.used.prompt, settled.used.answer) == (5, 1)


def test_the_variant_is_asked_once_more_and_told_what_was_wrong() -> None:
    again, baseline = Asked(GOOD), Asked()
    settled = climb(BAD, again=again, escalate=baseline)
    assert (settled.step, settled.answered_by, baseline.turns) == ("corrected", "variant", [])
    ((answer, wish),) = again.turns
    assert (answer["role"], answer["content"], wish["role"]) == ("assistant", BAD, "user")
    assert settled.faults[0].sentence in wish["content"]
    assert (settled.used.prompt, settled.used.answer) == (15, 3)


def test_a_corrected_answer_may_be_repaired() -> None:
    settled = climb(BAD, again=Asked(FENCED))
    assert (settled.step, settled.message["content"], bool(settled.repairs)) == ("corrected", GOOD, True)


def test_the_baseline_answers_where_the_variant_cannot() -> None:
    settled = climb(BAD, again=Asked(BAD), escalate=Asked(GOOD))
    assert (settled.step, settled.answered_by, len(settled.faults)) == ("escalated", "baseline", 2)
    assert (settled.used.prompt, settled.used.answer) == (25, 5)


@pytest.mark.parametrize("corrections", [0, 1, 3])
def test_no_valid_answer_is_a_typed_error_with_all_faults_and_tokens(corrections: int) -> None:
    again = Asked(*[BAD] * corrections)
    with pytest.raises(Unfit, match="no valid answer: content: 'n'") as unfit:
        climb(BAD, again=again, escalate=Asked(BAD), corrections=corrections)
    assert (unfit.value.code, len(again.turns)) == ("invalid_answer", corrections)
    assert [one.kind for one in unfit.value.faults] == ["schema"] * (corrections + 2)
    assert unfit.value.used.prompt == 5 + 10 * (corrections + 1)


def test_a_step_that_fails_is_told_and_the_next_one_taken() -> None:
    settled = climb(BAD, again=Asked(raises=EngineError("the variant is gone")), escalate=Asked(GOOD))
    assert (settled.step, settled.skipped) == ("escalated", ("corrective turn: the variant is gone",))
    with pytest.raises(Unfit, match="baseline: connection refused"):
        climb(BAD, escalate=Asked(raises=ConnectionRefusedError("connection refused")))


def test_what_is_no_trouble_of_an_upstream_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        climb(BAD, again=Asked(raises=ZeroDivisionError()))


def clock(*times: float) -> Callable[[], float]:
    left = list(times)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_a_step_that_cannot_end_in_time_is_left_out_and_told() -> None:
    again = Asked(GOOD)
    settled = climb(BAD, again=again, escalate=Asked(GOOD), times=Times(10.0, 2.0, 3.0, clock(6.0)))
    assert (settled.step, again.turns) == ("escalated", [])
    assert settled.skipped == ("corrective turn: left out, 4.00 s are left and it needs 5.00 s",)
    with pytest.raises(Unfit, match=r"baseline: left out, 1.00 s are left and it needs 3.00 s"):
        climb(BAD, escalate=Asked(GOOD), times=Times(10.0, 2.0, 3.0, clock(9.0)))


def test_a_step_that_does_not_end_is_broken_off() -> None:
    ended = []

    async def never(more: list[Body]) -> Answer:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
        return said(BAD), "stop", None

    settled = climb(BAD, again=never, escalate=Asked(GOOD), times=Times(100.0, now=clock(99.98, 98.0)))
    assert (settled.step, ended) == ("escalated", [True])
    assert settled.skipped[0].startswith("corrective turn: broken off")


def test_a_call_that_is_cancelled_has_told_what_it_cost() -> None:
    used = Tokens()

    async def run() -> None:
        waits = asyncio.Event()

        async def escalate() -> Answer:
            waits.set()
            await asyncio.Event().wait()
            raise AssertionError

        usage = {"prompt_tokens": 5, "completion_tokens": 1}
        more: dict[str, Any] = {"again": Asked(BAD), "escalate": escalate, "used": used}
        task = asyncio.create_task(settle(CONTRACT, said(BAD), "stop", usage=usage, **more))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert (used.prompt, used.answer) == (15, 3)


def test_answers_without_usage_are_counted() -> None:
    settled = asyncio.run(settle(CONTRACT, said(GOOD), "stop"))
    assert (settled.used.prompt, settled.used.untold) == (0, 1)


def test_what_a_validator_refuses_is_asked_anew_and_never_repaired() -> None:
    words = validators.build({"forbidden": {"words": ["sesame"]}}, canary=False)
    free = admit({})
    message = said("It says sesame.")
    again = Asked("It says nothing.")
    settled = asyncio.run(settle(free, message, "stop", again=again, validators=words))
    assert (settled.step, settled.faults[0].validator) == ("corrected", "forbidden")
    with pytest.raises(Unfit, match="forbids"):
        asyncio.run(settle(free, message, "stop", escalate=Asked("Open sesame"), validators=words))
    fenced = '```json\n{"n": 1, "s": "sesame"}\n```'
    with pytest.raises(Unfit):
        asyncio.run(settle(CONTRACT, said(fenced), "stop", validators=words))


def test_the_corrective_turn_quotes_the_beginning_alone() -> None:
    answer, wish = turn(said("x" * 1000), Fault("cut", "content", "ended by its length"))
    assert answer["content"] == "x" * SHOWN + "..."
    assert "shorter" in wish["content"]
    calling = turn({"role": "assistant", "tool_calls": [{}]}, Fault("schema", "tool_calls", "wrong"))
    assert calling[0]["content"] == "(a tool call)"
    assert turn({}, Fault("empty", "content", "is empty"))[0]["content"] == "(no answer)"


@given(bad())
@settings(max_examples=60, deadline=None)
def test_what_leaves_keeps_its_contract_whatever_came(one: Said) -> None:
    async def worse(more: Any = None) -> Answer:
        return one.message, one.finish, None

    try:
        settled = asyncio.run(settle(one.contract, one.message, one.finish, again=worse, escalate=worse))
    except Unfit:
        return
    assert one.contract.check(settled.message, settled.finish) is None


@given(good())
@settings(max_examples=40, deadline=None)
def test_good_answers_pass_untouched(one: Said) -> None:
    settled = asyncio.run(settle(one.contract, one.message, one.finish))
    assert (settled.step, settled.message) == ("passed", one.message)
