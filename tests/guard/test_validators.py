"""Validators: each refuses what it is there to refuse, passes the rest, and proves both by its own example."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.guard.answers import content_of, head, pieces

from quantgate import plugins
from quantgate.calibrate.kinds import KINDS
from quantgate.calibrate.secrets import find
from quantgate.errors import UnknownName, UsageError
from quantgate.guard import validators
from quantgate.guard.admission import admit
from quantgate.guard.assembly import Broken
from quantgate.guard.streams import StreamGuard
from quantgate.guard.validators import NOTHING, Context, Validator
from quantgate.guard.validators._samples import sample
from quantgate.guard.validators.secrets import OVERLAP, slices

NEEDED: dict[str, Any] = {"forbidden": {"words": ["sesame"]}, "length": {"characters": 100}}
every = pytest.mark.parametrize("name", validators.names())


def one(name: str, settings: Any = None, canary: bool = False) -> Validator:
    (made,) = validators.build({name: settings or NEEDED.get(name)}, canary=canary)
    return made


def refuses(name: str, settings: Any, text: str, context: Context = NOTHING, **more: Any) -> bool:
    fault = one(name, settings).check({"role": "assistant", "content": text, **more}, context)
    return fault is not None and (fault.kind, fault.validator) == ("validator", name)


@every
def test_its_example_proves_it(name: str) -> None:
    validator = one(name)
    proof = validator.proof()
    fault = validator.check(proof.refuses, proof.context)
    assert fault is not None
    assert (fault.kind, fault.validator, validator.name) == ("validator", name, name)
    assert validator.check(proof.passes, proof.context) is None


@every
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_stream_is_refused_as_the_whole_is_however_it_is_cut(name: str, data: st.DataObject) -> None:
    validator = one(name)
    proof = validator.proof()
    text = proof.refuses.get("content") or ""
    text += " and so on and on, word by word" * 20 if validator.reach else ""  # a window would let go of it by then
    finds = validator.check({"role": "assistant", "content": text}, proof.context) is not None
    guard = StreamGuard(admit({}), "window", window=1, validators=(validator,), context=proof.context)
    left, broken = [], None
    try:
        for part in pieces(data.draw, text):
            left += guard.feed(head({"content": part}))
        left += [*guard.feed(head({}, "stop")), *guard.end()]
    except Broken as fault:
        broken = fault
    assert (broken is not None) == (finds or not text)
    if validator.reach and broken is not None:
        assert validator.check({"role": "assistant", "content": content_of(left)}, proof.context) is None


@every
def test_a_misspelt_setting_is_answered_with_the_nearest(name: str) -> None:
    plugin = plugins.get("validators", name)
    known = next(iter(plugin.settings.model_fields))
    with pytest.raises(UsageError, match=rf"serve\.yaml\.{name}: unknown key '{known}x'; did you mean '{known}'"):
        validators.build({name: {f"{known}x": 1}}, canary=False, where="serve.yaml")


def test_an_unknown_validator_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown validator 'secret'; did you mean 'secrets'"):
        validators.build({"secret": {}}, canary=False)


def test_a_canary_is_held_to_more() -> None:
    asked = {"length": {"characters": 100, "canary": {"characters": 10}}}
    (stable,), (canary,) = (validators.build(asked, canary=canary) for canary in (False, True))
    message = {"role": "assistant", "content": "x" * 50}
    assert stable.check(message, NOTHING) is None
    assert canary.check(message, NOTHING) is not None


@pytest.mark.parametrize("stricter", [{}, None, {"charactrs": 1}, {"characters": 0}])
def test_what_a_canary_is_held_to_is_read_at_start(stricter: Any) -> None:
    with pytest.raises(UsageError, match="length"):
        validators.build({"length": {"characters": 100, "canary": stricter}}, canary=False)


@pytest.mark.parametrize("kind", dict.fromkeys(one.name for one in KINDS))
def test_secrets_of_every_kind_are_found_alone_and_among_all(kind: str) -> None:
    text = f"is {sample(kind)} now"
    assert any(one.kind.name == kind for one in find(text))
    assert refuses("secrets", {}, text)
    assert refuses("secrets", {"kinds": [kind]}, text)
    others = [other for other in ("IBAN", "card number") if other != kind]
    assert not refuses("secrets", {"kinds": others}, text)


def test_secrets_that_the_user_wrote_may_be_repeated_unless_told_otherwise() -> None:
    mail = sample("e-mail address")
    asked = Context(({"role": "user", "content": [{"type": "text", "text": f"Is {mail} right?"}]},))
    assert not refuses("secrets", {}, f"Yes, {mail} is.", asked)
    assert refuses("secrets", {"asked": False}, f"Yes, {mail} is.", asked)
    assert refuses("secrets", {}, f"No, {sample('card number')} is.", asked)


def test_secrets_are_found_in_all_that_an_answer_says() -> None:
    text = sample("e-mail address")
    assert refuses("secrets", {}, "", refusal=text)
    assert refuses("secrets", {}, "", reasoning_content=text)
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": f'{{"to": "{text}"}}'}}
    assert refuses("secrets", {}, "", tool_calls=[call])


@pytest.mark.parametrize("before", [0, 6100, 6144, 8100, 8192, 20_000])
def test_a_secret_is_found_wherever_it_stands_in_a_long_answer(before: int) -> None:
    for kind in ("private key", "e-mail address", "web token"):
        assert refuses("secrets", {"kinds": [kind]}, "x " * (before // 2) + sample(kind) + " x" * 5000)


@given(st.integers(0, 60_000))
def test_the_parts_of_a_long_text_cover_it(size: int) -> None:
    text = "".join(chr(0x4E00 + at % 20_000) for at in range(size))
    at = 0
    for part in slices(text):
        start = text.index(part[:1], max(0, at - OVERLAP)) if part else 0
        assert text[start : start + len(part)] == part
        assert start <= max(0, at - OVERLAP) or at == 0
        at = start + len(part)
    assert at == len(text)


def test_an_unknown_kind_of_secret_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no kind of secret is named 'card'; did you mean 'card number'"):
        one("secrets", {"kinds": ["card"]})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Open Sesame!", True),
        ("sesamestreet", False),
        ("the bomb  \n plan", True),
        ("C++ it is", True),
        ("C# it is", False),
    ],
)
def test_forbidden_words_are_whole_words_in_any_case(text: str, found: bool) -> None:
    assert refuses("forbidden", {"words": ["sesame", "bomb plan", "c++"]}, text) is found


def test_a_forbidden_pattern_is_named_in_the_refusal_and_the_text_is_not() -> None:
    pattern = {"pattern": r"(?i)project\s+\w+bird", "example": "Project Blackbird", "name": "code names"}
    fault = one("forbidden", {"patterns": [pattern]}).check({"content": "It is project  SeaBird."}, NOTHING)
    assert fault is not None
    assert fault.sentence == "holds what this route forbids: code names"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "forbids nothing"),
        ({"words": [" "]}, "a word is empty"),
        ({"patterns": [{"pattern": "a(?=b)", "example": "ab"}]}, "no lookaround"),
        ({"patterns": [{"pattern": "(a", "example": "a"}]}, "is no pattern"),
        ({"patterns": [{"pattern": "((a{100}){100}){100}", "example": "a"}]}, "is no pattern"),
        ({"patterns": [{"pattern": "abc", "example": "abd"}]}, "does not find its own example"),
        ({"patterns": [{"pattern": "abc"}]}, "'patterns.0.example': is missing"),
    ],
)
def test_forbidden_patterns_are_tried_at_start(settings: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        validators.build({"forbidden": settings}, canary=False)


def test_a_pattern_that_hangs_other_engines_is_linear_here() -> None:
    begun = time.monotonic()
    pattern = {"pattern": "(a+)+$", "example": "aaa"}
    assert not refuses("forbidden", {"patterns": [pattern]}, "a" * 200_000 + "!")
    assert time.monotonic() - begun < 30  # a backtracking engine would not end at all


ENGLISH = "How many of the eggs does she sell, and what is it that they have on the table for me today?"
GERMAN = "Wie viele Eier verkauft sie, und was ist das auf dem Tisch für mich? Es ist nicht von den Leuten."


@pytest.mark.parametrize(
    ("settings", "asked", "text", "found"),
    [
        ({}, ENGLISH, GERMAN, True),
        ({}, GERMAN, GERMAN, False),
        ({}, "ok 42", GERMAN, False),
        ({"allowed": ["de"]}, ENGLISH, GERMAN, False),
        ({"allowed": ["en", "fr"]}, GERMAN, GERMAN, True),
        ({}, ENGLISH, "Ja, gut.", False),
        ({}, ENGLISH, "```\n" + GERMAN + "\n```", False),
        ({}, ENGLISH, '{"text": "' + GERMAN + '"}', False),
    ],
)
def test_language_is_that_of_the_question_or_of_the_route(settings: Any, asked: str, text: str, found: bool) -> None:
    context = Context(({"role": "user", "content": asked}, {"role": "assistant", "content": GERMAN}))
    assert refuses("language", settings, text, context) is found


@pytest.mark.parametrize(
    ("settings", "text", "found"),
    [
        ({"characters": 5}, "12345", False),
        ({"characters": 5}, "123456", True),
        ({"least": 3}, "12", True),
        ({"least": 3}, "123", False),
        ({"least": 3, "characters": 4}, "12345", True),
    ],
)
def test_length_has_two_ends(settings: Any, text: str, found: bool) -> None:
    assert refuses("length", settings, text) is found


@pytest.mark.parametrize("settings", [{}, {"least": 5, "characters": 4}])
def test_length_that_limits_nothing_is_refused(settings: Any) -> None:
    with pytest.raises(UsageError):
        validators.build({"length": settings}, canary=False)


def test_a_call_of_a_tool_need_not_say_anything() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert not refuses("length", {"least": 3}, "", tool_calls=[call])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ha" * 200, True),
        ("The answer is 4. " * 20, True),
        ("So it is. " + "\n" * 500, True),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, " * 2, False),
        (" ".join(str(number) for number in range(400)), False),
        ("| a | b |\n|---|---|\n" + "".join(f"| {n} | {n * n} |\n" for n in range(60)), False),
        ("=" * 80, False),
    ],
)
@pytest.mark.parametrize("behind", ["", " And then it went on with other things."])
def test_loops_are_found_wherever_they_end(text: str, found: bool, behind: str) -> None:
    assert refuses("degenerate", {}, "First of all: " + text + behind) is found


@given(st.text("abc def", min_size=1, max_size=40), st.integers(9, 30), st.text("xyz .", max_size=40), st.data())
@settings(max_examples=80, deadline=None)
def test_every_loop_of_a_short_stretch_is_found_in_a_stream_too(
    stretch: str, times: int, before: str, data: st.DataObject
) -> None:
    text = before + stretch * max(times, 240 // len(stretch)) if stretch.strip() else before + " " * 450
    validator = one("degenerate")
    assert validator.check({"content": text}, NOTHING) is not None
    watch = validator.watch("content", NOTHING)
    assert any(watch.feed(part) for part in pieces(data.draw, text + " " * 32))


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("settings", "message", "found"),
    [
        ({}, {"content": "I'm sorry, but I can't help with that."}, False),
        ({"allowed": False}, {"content": "I'm sorry, but I can't help with that."}, True),
        ({"allowed": False}, {"content": None, "refusal": "No."}, True),
        ({"allowed": False}, {"content": "Sure, here it is: 42."}, False),
        ({}, {"content": "I cannot help with that.", "tool_calls": [CALL]}, True),
        ({}, {"content": "", "refusal": "No.", "tool_calls": [CALL]}, True),
        ({}, {"content": "Sure, here it is: 42.", "refusal": "I cannot."}, True),
        ({}, {"content": "I look that up.", "tool_calls": [CALL]}, False),
        ({}, {"content": None, "tool_calls": [CALL]}, False),
    ],
)
def test_an_answer_declines_or_does_not(settings: Any, message: Any, found: bool) -> None:
    (validator,) = validators.build({"refusal": settings}, canary=False)
    assert (validator.check({"role": "assistant", **message}, NOTHING) is not None) is found
