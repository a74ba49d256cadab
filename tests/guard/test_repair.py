"""Repairs change the writing and never the value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quantgate.guard.reading import NotJson, read
from quantgate.guard.repair import repair

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda within: st.lists(within, max_size=4) | st.dictionaries(st.text(max_size=6), within, max_size=4),
    max_leaves=15,
)
BRACKETS = st.lists(VALUES, max_size=4) | st.dictionaries(st.text(max_size=6), VALUES, max_size=4)


def reads(text: str) -> bool:
    try:
        read(text)
    except NotJson:
        return False
    return True


def mended(text: str) -> Any:
    found = repair(text, reads)
    return None if found is None else read(found[0])


def same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(BRACKETS)
@settings(max_examples=150)
def test_a_python_literal_becomes_the_json_of_its_value(value):
    text = repr(value)
    found = repair(text, reads)
    if found is not None:
        assert same(read(found[0]), value)
    else:  # JSON already, or a text that Python escapes as JSON cannot
        assert reads(text) or "\\x" in text or "\\U" in text or "\\u" not in text


@given(
    BRACKETS,
    st.sampled_from(
        ["```json\n%s\n```", "```\n%s```", "\ufeff%s", "Here it is:\n%s", "%s\nDone!", "A ```json\n%s\n``` b"]
    ),
)
@settings(max_examples=150)
def test_what_stands_around_one_value_is_dropped(value, frame):
    text = json.dumps(value)
    assume("```" not in text)
    assert same(mended(frame % text), value)


def commas(value: Any) -> str:
    """JSON with a comma before each closing bracket."""
    if isinstance(value, dict):
        return "{" + "".join(f"{json.dumps(key)}: {commas(one)}, " for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + "".join(f"{commas(one)}," for one in value) + "\n]"
    return json.dumps(value)


@given(BRACKETS)
@settings(max_examples=100)
def test_trailing_commas_go(value):
    text = commas(value)
    assert reads(text) or same(mended(text), value)


@given(BRACKETS)
@settings(max_examples=100)
def test_raw_line_ends_in_texts_are_escaped(value):
    text = json.dumps(value, ensure_ascii=False).replace("\\n", "\n").replace("\\t", "\t")
    assume("\\\n" not in text and "\\\t" not in text)
    assert reads(text) or same(mended(text), value)


@given(BRACKETS, st.integers(1, 6))
@settings(max_examples=150)
def test_missing_brackets_are_added_only_where_nothing_else_can_be_missing(value, cut):
    text = json.dumps(value)[:-cut]
    lost = json.dumps(value)[-cut:]
    found = repair(text, reads)
    if found is not None:
        assert found[1] == ("brackets",) and found[0].startswith(text) and set(found[0][len(text) :]) <= set("}]")
    if not lost.strip("]}") and text and text[-1] not in "[{":
        assert found is not None and same(read(found[0]), value)


@given(st.text("{}[]\"':,\\ntTrueFalsNo01.- \n`", max_size=40))
@settings(max_examples=300)
def test_any_text_is_mended_to_json_or_left_alone(text):
    found = repair(text, reads)
    if found is not None:
        assert reads(found[0]) and found[1]
        outer = repair(found[0], reads)
        assert outer is None, "what was mended needs no mending"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json here",
        '{"a": 1}',
        '{"a": 1} {"a": 2}',
        '```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```',
        '```\n{"a": 1}\n``` or {"a": 2}',
        '{"a": {"b": 1} oops',
        '{"a": "it was cut',
        '{"a": tru',
        '{"a": 12.',
        '{"a":',
        '{"a"',
        '{"a": 1,',
        "[1, 2,",
        '{"a": NaN}',
        '{"a": undefined}',
        "{a: 1}",
        "{'a': 'it's'}",
        '{"a": 1 "b": 2}',
        '{"a": 1}}',
        '{"a": 01}',
        '{"a": 1_000}',
        '{"a": +1}',
        '{"a": "\\x41"}',
        '{"a": 1, "a": 2,}',
        '{"a": [1}',
        "{,}",
        "[,]",
        "[1,,2]",
        '{"a": 1} // note {x}',
        "true",
        "'text'x",
    ],
)
def test_what_could_mean_two_things_is_left_alone(text):
    assert repair(text, reads) is None


def test_a_bracket_bomb_and_an_endless_text_are_left_alone():
    assert repair("[" * 500_000, reads) is None
    assert repair("x" * 2_000_000, reads) is None
