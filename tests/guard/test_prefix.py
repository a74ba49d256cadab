"""The prefix check refuses what cannot become valid, as early as it can be told, and never what can."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.guard.made_schemas import MADE, SIZES, Made, pieces, written

from quantgate.guard import Fault
from quantgate.guard.limits import DEFAULT, Limits
from quantgate.guard.schemas import Schema

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "maximum": 150},
        "kind": {"enum": ["cat", "dog"]},
        "code": {"type": "string", "maxLength": 3, "pattern": "^[A-Z]+$"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def fed(schema: Any, text: str, sizes: tuple[int, ...] = (1,), limits: Limits = DEFAULT) -> tuple[int, Fault | None]:
    """How many characters were taken before the fault, and the fault."""
    reader = Schema(schema, "p", limits).prefix("content")
    done = 0
    for piece in pieces(text, list(sizes)):
        fault = reader.feed(piece)
        if fault is not None:
            assert reader.feed("x") is fault, "a fault stays one for good"
            return done, fault
        done += len(piece)
    return done, None


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('{"', "nm"),
        ("", "["),
        ('{"name":', "1"),
        ('{"name":"x","age":', '"'),
        ('{"name":"x","age":15', "1}"),
        ('{"name":"x","age":3.', "5}"),
        ('{"name":"x","kind":"c', "ow"),
        ('{"name":"x","code":"AB', "CD"),
        ('{"name":"x","code":"A', 'b"'),
        ('{"name":"x","tags":["a","b"', ","),
        ('{"age":3', "}"),
        ('{"name":"a","name', '"'),
        ('{"name":"a"', ",}"),
        ('{"name":"a"}', "x"),
        ('{"name":"a"} ', "{"),
        ('{"name":"\\', "x"),
        ('{"name":"\\u00', "g"),
        ('{"name":"', "\n"),
        ('{"name":"\\ud800', '"'),
        ('{"age":0', "1"),
        ('{"age":-', "a"),
        ('{"age":', "+"),
        ('{"age":1.', ","),
        ('{"next":', "nil"),
        ('{"next":nul', " "),
        ('{"next":{"name":"b","next":{', '"x'),
        ("", "\ufeff"),
        ("", "NaN"),
        ("{", "'"),
        ('{"name"', ","),
    ],
)
def test_a_fault_is_told_within_the_piece_that_holds_it(good, bad):
    assert fed(PERSON, good)[1] is None
    taken, fault = fed(PERSON, good + bad)
    assert fault is not None and fault.kind == "prefix" and taken < len(good + bad)


@given(made=MADE, data=st.data(), sizes=SIZES)
@settings(max_examples=150)
def test_no_beginning_of_an_answer_that_the_check_passes_is_refused(made: Made, data: st.DataObject, sizes: list[int]):
    schema = Schema(made.schema, "p")
    text = data.draw(written(made.value))
    assume(schema.fault(text, "content") is None)
    assert fed(made.schema, text, tuple(sizes)) == (len(text), None)


@given(made=MADE, other=MADE, data=st.data(), sizes=SIZES)
@settings(max_examples=120)
def test_what_the_prefix_refuses_the_whole_check_refuses_too(made, other, data, sizes):
    """Values of other schemas, mostly wrong ones: a fault of the prefix must be one of the whole."""
    text = data.draw(written(other.value))
    schema = Schema(made.schema, "p")
    if fed(made.schema, text, tuple(sizes))[1] is not None:
        assert schema.fault(text, "content") is not None


@given(st.text('{}[]",:\\ue0123456789.-+truefalsn \n', max_size=30), SIZES)
@settings(max_examples=150)
def test_a_text_without_schema_is_read_as_python_reads_json(text, sizes):
    whole = Schema(True, "p").fault(text, "content") is None
    if whole:
        assert fed(True, text, tuple(sizes))[1] is None
    elif fed(True, text, tuple(sizes))[1] is None and text.strip():
        assert any(_reads(text + end) for end in _endings(text)) or "\\u" in text


def _reads(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _endings(text: str) -> list[str]:
    """Texts that may complete a prefix: a value, a closed text, and then the brackets that are open."""
    brackets = "".join({"{": "}", "[": "]"}[one] for one in _open(text)[::-1])
    values = ["", "0", "1", '"', '""', "null", '":1', ":1", '"x":1', "alse", "lse", "se", "e", "rue", "ue", "ull", "ll"]
    values += ["l", '\\"', 'u0000"', '"":1', '":1', 'n"', 'n":1', '0"', 'u0000":1', '"z":1']
    return [value + brackets for value in values]


def _open(text: str) -> list[str]:
    opened: list[str] = []
    within = escaped = False
    for char in text:
        if within:
            escaped, within = (char == "\\" and not escaped), char != '"' or escaped
        elif char == '"':
            within = True
        elif char in "{[":
            opened.append(char)
        elif char in "}]":
            opened.pop()
    return opened


def test_branches_die_one_by_one():
    schema = {
        "oneOf": [
            {"properties": {"kind": {"const": "circle"}, "radius": {"type": "number"}}, "additionalProperties": False},
            {"properties": {"kind": {"const": "square"}, "side": {"type": "number"}}, "additionalProperties": False},
        ],
        "type": "object",
    }
    assert fed(schema, '{"kind":"circle","radius":1}')[1] is None
    assert fed(schema, '{"side":1,"kind":"square"}')[1] is None
    _, fault = fed(schema, '{"kind":"circle","side":1}')
    assert fault is not None and fault.sentence == "no key that begins with 's' is allowed here"
    _, fault = fed(schema, '{"side":1,"kind":"circle"}')
    assert fault is not None and fault.kind == "prefix"


def test_a_run_of_blanks_ends_the_answer_even_where_json_allows_it():
    limits = Limits(whitespace=10)
    assert fed(PERSON, '{"name":' + " " * 10 + '"x"}', (3,), limits)[1] is None
    taken, fault = fed(PERSON, '{"name":' + " " * 11 + '"x"}', (3,), limits)
    assert fault is not None and fault.kind == "whitespace" and taken <= len('{"name":') + 11
    assert Schema(PERSON, "p", limits).fault('{"name":' + " " * 11 + '"x"}', "content") == fault
    assert fed(PERSON, '{"name":"' + " " * 50 + '"}', (3,), limits)[1] is None, "within a text blanks are text"
    _, endless = fed(PERSON, '{"name":"x"}' + "\n" * 11, (1,), limits)
    assert endless is not None and endless.kind == "whitespace"


def test_a_depth_bomb_is_refused_without_recursion():
    taken, fault = fed({}, "[" * 100_000, (4096,))
    assert fault is not None and taken == 0 and "nested deeper" in fault.sentence
    assert fed({}, "[" * 128 + "]" * 128)[1] is None
    assert Schema({}, "p").fault("[" * 128 + "]" * 128, "content") is None
    assert Schema({}, "p").fault("[" * 129 + "]" * 129, "content") is not None
    assert Schema({}, "p").fault("[" * 100_000, "content") is not None


def test_a_schema_whose_branches_refer_to_each_other_is_read_in_bounded_time():
    names = [f"n{number}" for number in range(14)]
    schema = {
        "$defs": {
            one: {"anyOf": [{"$ref": f"#/$defs/{other}"} for other in names] + [{"type": "string"}]} for one in names
        },
        "$ref": "#/$defs/n0",
    }
    reader = Schema(schema, "p", Limits(branches=10**40)).prefix("content")
    assert reader.feed('"a text"') is None


def test_a_sentence_never_quotes_an_answer_at_length():
    for text in ('{"name":"x","kind":"' + "z" * 5000 + '"', '{"' + "k" * 5000 + '":1', '{"age":' + "9" * 4000 + "}"):
        _, fault = fed(PERSON, text, (6000,))
        assert fault is not None and len(fault.sentence) < 200


@pytest.mark.parametrize("odd", ["a\u2028\x07", "\ud800", 'it\'s "so"'])
def test_a_sentence_is_one_line_that_can_be_sent(odd):
    for text in (f'{{"{odd}', f'{{"name":"x","kind":"{odd}"', f'{{"a":1,"{odd}":2,"{odd}":3}}', odd, f"[{odd}"):
        for schema in (PERSON, True):
            for fault in (fed(schema, text)[1], Schema(schema, "p").fault(text, "content")):
                assert fault is None or (fault.sentence.isprintable() and fault.sentence.encode())


def test_numbers_that_no_double_holds_are_refused_alike_by_prefix_and_whole():
    for text in ("[1e400]", "[" + "1" * 5000 + "]"):
        assert fed({}, text)[1] is not None
        assert Schema({}, "p").fault(text, "content") is not None
