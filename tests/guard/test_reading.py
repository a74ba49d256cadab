"""Strict JSON: what clients disagree about is no JSON here."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.guard.reading import DEPTH, NotJson, deeper, read

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda within: st.lists(within) | st.dictionaries(st.text(), within),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_json_is_read_back(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert json.dumps(read(text)) == json.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "{",
        "nul",
        "[1,]",
        '{"a":1,}',
        "{'a':1}",
        "[01]",
        "[.5]",
        "[1.]",
        "[+1]",
        "[0x1]",
        "NaN",
        "[Infinity]",
        "[-Infinity]",
        "[1e999]",
        "[-1e999]",
        "1" * 5000,
        '{"a":1,"a":1}',
        '{"a":{"b":1,"b":2}}',
        '{"a":1,"\\u0061":2}',
        '"\\ud800"',
        '["\\udc00x"]',
        '{"\\ud800":1}',
        '"\ud800"',
        '"a\nb"',
        '"a\tb"',
        '"\\x41"',
        "1 2",
        "{} x",
        "{}{}",
        "\ufeff{}",
        "\u00a0{}",
        "// c\n1",
        "[" * 100_000,
        "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
    ],
)
def test_this_is_no_json(text):
    with pytest.raises(NotJson) as told:
        read(text)
    assert len(str(told.value)) < 200


def test_pairs_of_surrogates_and_the_limit_of_depth_are_json():
    assert read('"\\ud83d\\ude00"') == "😀"
    assert deeper(read("[" * DEPTH + "]" * DEPTH), DEPTH - 1)
    assert read("[" + "[]," * 500 + "[]]") == [[]] * 501


def test_the_scorers_read_json_by_this_definition():
    from quantgate.evaluate.scorers import _json

    assert _json.read is read and _json.NotJson is NotJson
