"""What the judge may count on, of every signal in the room: forms, bounds, and that no signal sees a side."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.watch.signals.made import exchange

from quantgate.serve import Exchange
from quantgate.watch import Talk, signals
from quantgate.watch._talks import talk_of

EVERY = signals.names()
ROOM = [signals.get(name) for name in EVERY]
hostile = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])

texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["", " " * 500, "ab" * 400, "a" * 3000, "No, that is wrong.", "I'm sorry, but I can't help.", "{" * 300, "\x00"]
    ),
    st.text(alphabet="\ud800\udfff\u0000\u202e\u200bae ", max_size=40),
)
things = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
parts = st.one_of(texts, st.lists(st.fixed_dictionaries({"type": texts, "text": texts}), max_size=3), things)
call = st.one_of(
    things, st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": texts, "arguments": parts})})
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | things, "content": parts},
    optional={"refusal": parts, "reasoning_content": parts, "tool_calls": things | st.lists(call, max_size=3)},
)
many = st.lists(message | things, max_size=4)
told = st.fixed_dictionaries(
    {"prompt": many | things, "answer": many | st.lists(st.fixed_dictionaries({"message": message}), max_size=2)},
    optional={"tools": st.booleans(), "logprob": st.floats() | things},
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
tokens = st.none() | st.integers(min_value=-(2**40), max_value=2**40)
exchanges = st.builds(
    exchange,
    at=numbers, answered_by=st.sampled_from(["", "W4A16", "BF16"]), stream=st.booleans(), structured=st.booleans(),
    told_session=st.booleans(), shadow=st.booleans(), status=st.sampled_from([0, 200, 400, 404, 422, 429, 502, 504]),
    error=st.sampled_from(["", "upstream_cut", "budget_exceeded", "invalid_answer"]) | texts,
    finish=st.sampled_from(["", "stop", "length", "tool_calls", "content_filter"]) | texts,
    step=st.sampled_from(["", "passed", "repaired", "corrected", "escalated", "failed"]),
    faults=st.lists(st.sampled_from(["schema", "cut", "validator"]) | texts, max_size=3),
    repairs=st.lists(texts, max_size=2), refusal=st.booleans(), disconnected=st.booleans(),
    retry=st.integers(-1, 2**40), prompt_tokens=tokens, answer_tokens=tokens, ttft_s=st.none() | numbers,
    total_s=numbers, stages=st.dictionaries(st.sampled_from(["decode", "prefill"]), numbers),
    prompt_hash=st.none() | st.integers(-(2**63), 2**63 - 1),
    marks=st.dictionaries(st.sampled_from(EVERY), st.sampled_from([0.0, 1.0, 0.5, -1.0]), max_size=8),
)  # fmt: skip


each_signal = pytest.mark.parametrize("name", EVERY)


@each_signal
def test_a_signal_says_what_it_is(name: str) -> None:
    signal = signals.get(name)
    assert signal.name == name
    assert signal.about and signal.about[0].islower() and not signal.about.endswith(".")
    assert signal.kind in ("event", "quantity", "graded", "pair") and signal.worse in ("more", "less", "either")
    assert bool(signal.unit) is (signal.kind == "quantity")
    assert signal.each in ("session", "request")
    assert signal.weight > 0 and signal.margin > 1 and 0 <= signal.floor < 1
    assert inspect.getdoc(inspect.getmodule(signal.read if signal.mark is None else signal.mark))


@given(one=exchanges, before=st.lists(exchanges, max_size=3))
@hostile
def test_what_is_read_is_a_number_of_its_kind_or_nothing(one: Exchange, before: list[Exchange]) -> None:
    for signal in ROOM:
        value = signal.read(one, before)
        assert value is None or (isinstance(value, float) and math.isfinite(value)), signal.name
        if value is not None and signal.unit in ("s", "tokens"):
            assert 0 <= value < 2**31, signal.name
        elif value is not None and signal.kind != "quantity" and one.marks.get(signal.name, 1.0) in (0.0, 1.0):
            assert value in (0.0, 1.0) or (signal.kind == "graded" and 0 <= value <= 1), signal.name
        assert isinstance(signal.stratum(one), str) and len(signal.stratum(one)) < 64, signal.name


SIDES: list[dict[str, Any]] = [
    {"side": "control", "odds": 0.95, "against": "sha256:c", "cohort": "holdback", "share": 0.5, "revision": 9},
    {"side": "", "odds": 0.0, "against": "", "cohort": "pinned", "share": 0.0, "rule": "a rule"},
]
NAMES = {"W4A16": "the-other", "BF16": "W4A16", "": ""}


def moved(one: Exchange, side: dict[str, Any]) -> Exchange:
    """The same exchange of the other side's variant."""
    named = {"variant": NAMES[one.variant], "answered_by": NAMES[one.answered_by], "artifact": "sha256:d"}
    return one.model_copy(update=side | named)


@given(one=exchanges, before=st.lists(exchanges, max_size=3), side=st.sampled_from(SIDES))
@hostile
def test_no_signal_sees_the_side(one: Exchange, before: list[Exchange], side: dict[str, Any]) -> None:
    other, others = moved(one, side), [moved(each, side) for each in before]
    for signal in ROOM:
        assert signal.read(other, others) == signal.read(one, before), signal.name
        assert signal.stratum(other) == signal.stratum(one), signal.name


@given(text=told, finish=texts, structured=st.booleans())
@hostile
def test_marks_survive_any_text_and_are_finite(text: dict[str, Any], finish: str, structured: bool) -> None:
    talk = talk_of(exchange(finish=finish, structured=structured, text=text))
    before = repr(talk)
    for signal in ROOM:
        if signal.mark is None:
            continue
        for each in (talk, Talk(talk.prompt, talk.answers, shadow=talk), Talk([], []), Talk([], [], faulty=True)):
            value = signal.mark(each)
            assert value is None or (isinstance(value, int | float) and math.isfinite(value)), signal.name
            assert value is None or signal.kind == "quantity" or 0 <= value <= 1, signal.name
            assert signal.mark(each) == value, signal.name
    assert repr(talk) == before


@each_signal
def test_nothing_is_read_from_a_text_at_the_watch(name: str) -> None:
    signal = signals.get(name)
    text = {"prompt": [{"role": "user", "content": "a"}], "answer": [{"content": ""}], "tools": True}
    assert signal.read(exchange(text=text), []) == signal.read(exchange(), [])


@each_signal
def test_no_mark_without_an_answer_says_that_the_answer_is_bad(name: str) -> None:
    signal = signals.get(name)
    if signal.mark is not None and signal.name not in ("correction",):
        assert signal.mark(Talk([{"role": "user", "content": "Which train leaves Ulm?"}], [])) is None


def test_weights_seed_the_share_of_each_in_the_error_rate() -> None:
    weights = {name: signals.get(name).weight for name in EVERY}
    whole = sum(weights.values())
    assert 0.35 < weights["validation_failure"] / whole < 0.5
    assert 0.15 < (weights["ttft"] + weights["per_token"] + weights["end_to_end"]) / whole < 0.25
    assert 80 < whole < 120
