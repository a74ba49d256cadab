"""Hundreds of schemas with values that they allow and refuse: the check agrees, the prefix never refuses too much.

The cases of the JSON Schema Test Suite, five drafts of them, lie in the source package of ``jsonschema``; ``make
schema-suite`` fetches it. Without it the schemas made here remain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.guard.made_schemas import MADE, Made, pieces, written

from quantgate.errors import SchemaRefused
from quantgate.guard.limits import Limits
from quantgate.guard.plain import kind_of
from quantgate.guard.schemas import Schema

SUITE = Path(__file__).parents[2] / "build" / "schema-suite" / "tests"
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
PATIENT = Limits(compile_s=10.0)
FORMATS = ("format.json", "format-assertion.json")  # here a format is a demand, as the drafts allow
REFUSED = {  # the most groups that admission may refuse, by draft; the drafts themselves would take them
    "draft4": 12,
    "draft6": 20,
    "draft7": 24,
    "draft2019-09": 34,
    "draft2020-12": 34,
}


def groups(draft: str) -> Iterator[tuple[str, Any, list[dict[str, Any]]]]:
    """File, schema with its draft, and cases. Optional behaviours are left out, but for big numbers and patterns."""
    for file in sorted((SUITE / draft).glob("*.json")):
        for group in json.loads(file.read_text(encoding="utf-8")):
            schema = group["schema"]
            if isinstance(schema, dict):
                schema = {"$schema": DRAFTS[draft], **schema}
            yield file.name, schema, group["tests"]


@pytest.mark.skipif(not SUITE.is_dir(), reason="make schema-suite fetches the JSON Schema Test Suite")
@pytest.mark.parametrize("draft", DRAFTS)
def test_the_check_agrees_with_the_json_schema_test_suite(draft):
    refused, cases, early, wrong = 0, 0, 0, 0
    for file, raw, tests in groups(draft):
        try:
            schema = Schema(raw, "p", PATIENT)
        except SchemaRefused:
            refused += 1
            assert not any(one["valid"] for one in tests) or "$ref" in json.dumps(raw) or "$schema" in raw, raw
            continue
        for one in tests:
            text = json.dumps(one["data"])
            fault = schema.fault(text, "content")
            if file not in FORMATS:
                assert (fault is None) == one["valid"], (file, raw, text, fault)
            told = refusal_in_pieces(schema, text)
            assert fault is not None or told is None, (file, raw, text, told)
            cases += 1
            wrong += fault is not None
            early += told is not None
    assert cases > 500 and refused <= REFUSED[draft], (cases, refused)
    assert early > 0.4 * wrong, "what can be told before the end is"


def refusal_in_pieces(schema: Schema, text: str) -> str | None:
    reader = schema.prefix("content")
    for piece in pieces(text, [1, 3]):
        fault = reader.feed(piece)
        if fault is not None:
            return fault.sentence
    return None


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1e300, "", "a", "zz", "name"]),
    lambda within: (
        st.lists(within, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "name"]), within, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """``value`` with one change somewhere within."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.booleans()):
            return {one: value[one] for one in value if one != key}
        return {**value, key: draw(changed(value[key]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place])), *value[place + 1 :]]
    return draw(JUNK)


@given(made=MADE, data=st.data())
@settings(max_examples=200)
def test_the_check_and_the_prefix_agree_about_values_that_are_nearly_right(made: Made, data: st.DataObject):
    """The validator, asked for the value alone, is the judge; the texts are written in all ways."""
    value = data.draw(changed(made.value))
    text = data.draw(written(value))
    schema = Schema(made.schema, "p", PATIENT)
    right = jsonschema_rs.validator_for(made.schema).is_valid(json.loads(text))
    assert (schema.fault(text, "content") is None) == right
    if right:
        assert refusal_in_pieces(schema, text) is None


@given(made=MADE, data=st.data())
@settings(max_examples=100)
def test_half_an_answer_is_never_whole(made: Made, data: st.DataObject):
    text = data.draw(written(made.value)).strip()
    if kind_of(made.value) in (8, 16, 32, 64):  # a number may be whole in the middle
        text = f"[{text}]"
    cut = data.draw(st.integers(0, len(text) - 1))
    assert Schema(True, "p").fault(text[:cut], "content") is not None


KNOWN: list[tuple[Any, list[str], list[str]]] = [
    ({"type": "integer"}, ["1", "1.0", "-0", "1e3"], ["1.5", '"1"', "true", "null", "1e-1"]),
    ({"type": "number", "multipleOf": 0.5}, ["1.5", "0"], ["1.3"]),
    ({"enum": [1, "a", None, [1], {"a": 1}]}, ["1", "1.0", '"\\u0061"', "null", "[1]", '{"a":1}'], ["2", '"b"', "[2]"]),
    ({"const": {"a": [True]}}, ['{"a":[true]}'], ['{"a":[1]}', "{}", "[]"]),
    ({"type": "string", "minLength": 2, "maxLength": 2}, ['"ab"', '"😀😀"', '"\\ud83d\\ude00x"'], ['"a"', '"abc"']),
    ({"pattern": "^\\d+$"}, ['"123"', "7"], ['"12a"', '"\u0661"', '""']),
    ({"format": "date-time"}, ['"2026-11-22T10:00:00Z"', "3"], ['"yesterday"', '"2026-13-01T00:00:00Z"']),
    ({"format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123"']),
    ({"type": "object", "propertyNames": {"maxLength": 2}}, ['{"ab":1}'], ['{"abc":1}']),
    ({"minProperties": 1, "maxProperties": 2, "type": "object"}, ['{"a":1}'], ["{}", '{"a":1,"b":1,"c":1}']),
    ({"items": {"type": "integer"}, "contains": {"const": 3}}, ["[1,3]"], ["[1]", '["3"]']),
    ({"uniqueItems": True}, ["[1,2]"], ["[1,1.0]", '[{"a":1,"b":2},{"b":2,"a":1}]']),
    ({"prefixItems": [{"const": 1}], "items": False}, ["[]", "[1]"], ["[2]", "[1,2]"]),
    ({"dependentRequired": {"a": ["b"]}}, ['{"a":1,"b":1}', '{"b":1}'], ['{"a":1}']),
    ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, ['{"a":1,"b":1}', "{}"], ['{"a":1}']),
    ({"not": {"type": "string"}}, ["1"], ['"a"']),
    ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}, ["2", "3"], ["6", "5"]),
    (
        {"properties": {"a": True}, "allOf": [{"properties": {"b": True}}], "unevaluatedProperties": False},
        ['{"b":1,"a":1}'],
        ['{"c":1}'],
    ),
    (
        {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
        ['{"x1":1,"y":"a"}', '{"\\u0078":1}'],
        ['{"x1":"a"}', '{"y":1}'],
    ),
    (
        {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"},
        ["[]", "[[],[[]]]"],
        ["[1]", "{}", "[[[[0]]]]"],
    ),
    (
        {"$schema": DRAFTS["draft4"], "type": "integer", "minimum": 1, "exclusiveMinimum": True},
        ["2"],
        ["1", "2.0", "0"],
    ),
    ({"$schema": DRAFTS["draft7"], "items": [{"const": 1}], "additionalItems": False}, ["[1]"], ["[1,2]", "[3]"]),
    ({"$anchor": "here", "properties": {"in": {"$ref": "#here"}}, "required": ["in"]}, ["1"], ['{"in":{}}', "{}"]),
]


@pytest.mark.parametrize(("raw", "right", "wrong"), KNOWN, ids=[json.dumps(one[0])[:40] for one in KNOWN])
def test_known_answers(raw, right, wrong):
    schema = Schema(raw, "p", PATIENT)
    for text in right:
        assert schema.fault(text, "content") is None, text
        assert refusal_in_pieces(schema, f" {text}\n") is None, text
    for text in wrong:
        assert schema.fault(text, "content") is not None, text
