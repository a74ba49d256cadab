"""Schemas with a value that each allows, drawn by hypothesis, and the many ways to write one value down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

KEYS = st.sampled_from(["a", "b", "name", "näme", "x y", 'q"', "", "ключ", "😀"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
DECOYS: list[Any] = [
    {"type": "null"},
    {"const": [1]},
    {"type": "string", "pattern": "^zz$"},
    False,
    {"required": ["qq"]},
]


@dataclass(frozen=True)
class Made:
    """A schema and a value that it allows (but for ``oneOf``, where a decoy may fit too)."""

    schema: Any
    value: Any


@st.composite
def _scalar(draw: st.DrawFn) -> Made:
    value = draw(st.one_of(st.none(), st.booleans(), st.integers(-(10**6), 10**6), FLOATS, TEXTS))
    schemas: list[Any] = [True, {}, {"const": value}, {"enum": ["other", value, 3]}]
    if isinstance(value, bool):
        schemas.append({"type": "boolean"})
    elif value is None:
        schemas.append({"type": ["null", "string"]})
    elif isinstance(value, int | float):
        schemas += [{"type": "number", "minimum": value, "maximum": value + 1}, {"exclusiveMaximum": value + 1}]
        schemas.append({"type": "integer"} if value == int(value) else {"type": "number"})
    else:
        schemas += [{"type": "string", "maxLength": len(value)}, {"minLength": len(value)}, {"pattern": "^[^\\n]*|.*"}]
    return Made(draw(st.sampled_from(schemas)), value)


@st.composite
def _array(draw: st.DrawFn, within: st.SearchStrategy[Made]) -> Made:
    items = draw(st.lists(within, max_size=4))
    first = draw(st.integers(0, len(items)))
    schema: dict[str, Any] = {"prefixItems": [one.schema for one in items[:first]]} if first else {}
    rest = [one.schema for one in items[first:]]
    schema["items"] = {"anyOf": rest} if rest else True
    if draw(st.booleans()):
        schema |= {"type": "array", "minItems": len(items), "maxItems": len(items) + draw(st.integers(0, 1))}
    return Made(schema, [one.value for one in items])


@st.composite
def _object(draw: st.DrawFn, within: st.SearchStrategy[Made]) -> Made:
    held = draw(st.dictionaries(KEYS, within, max_size=5))
    named = set(draw(st.lists(st.sampled_from(sorted(held))))) if held else set()
    schema: dict[str, Any] = {"properties": {key: held[key].schema for key in sorted(named)}}
    rest = [one.schema for key, one in held.items() if key not in named]
    if bool(rest) or draw(st.booleans()):
        schema["additionalProperties"] = {"anyOf": rest} if rest else False
    if draw(st.booleans()):
        schema |= {"type": "object", "required": sorted(held), "maxProperties": len(held)}
    if draw(st.booleans()):
        schema["patternProperties"] = {"^never": False, "": True}
        schema.pop("additionalProperties", None)
    return Made(schema, {key: one.value for key, one in held.items()})


@st.composite
def _joined(draw: st.DrawFn, within: st.SearchStrategy[Made]) -> Made:
    """The same value under branches, references and conditions."""
    made = draw(within)
    decoys = draw(st.lists(st.sampled_from(DECOYS), max_size=2))
    branches = draw(st.permutations([made.schema, *decoys]))
    way = draw(st.sampled_from(["anyOf", "oneOf", "allOf", "if", "not", "ref"]))
    if way == "allOf":
        return Made({"allOf": [made.schema, True, {"anyOf": branches}]}, made.value)
    if way == "if":
        return Made({"if": {"type": "object"}, "then": made.schema, "else": made.schema}, made.value)
    if way == "not":
        return Made({"allOf": [made.schema], "not": {"const": "no such value"}}, made.value)
    if way == "ref":
        return Made({"$ref": "#/$defs/any", "anyOf": branches}, made.value)
    return Made({way: branches}, made.value)


MADE = st.recursive(
    _scalar(), lambda within: st.one_of(_array(within), _object(within), _joined(within)), max_leaves=12
).map(
    lambda made: Made(
        {"$defs": {"any": {}}, "allOf": [made.schema]} if made.schema in (True, False) else with_defs(made.schema),
        made.value,
    )
)


def with_defs(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "$defs": {"any": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/any"}}, {}]}}}


BLANKS = st.text(" \t\r\n", max_size=3)


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    """One of the texts that stand for ``value``: keys in any order, blanks, escapes, numbers in any form."""
    if isinstance(value, dict):
        keys = draw(st.permutations(sorted(value)))
        pairs = [f"{draw(written(key))}{draw(BLANKS)}:{draw(written(value[key]))}" for key in keys]
        text = "{" + ",".join(draw(BLANKS) + pair for pair in pairs) + draw(BLANKS) + "}"
    elif isinstance(value, list):
        text = "[" + ",".join(draw(written(one)) for one in value) + draw(BLANKS) + "]"
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        if draw(st.booleans()):
            units = value.encode("utf-16-be")
            pairs = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
            text = '"' + "".join(f"\\u{pair}" for pair in pairs) + '"'
    elif isinstance(value, int) and not isinstance(value, bool):
        text = draw(st.sampled_from([str(value), f"{value}.0", f"{value}e0", f"{value}.00E+0"]))
    else:
        text = json.dumps(value)
    return draw(BLANKS) + text + draw(BLANKS)


def pieces(text: str, sizes: list[int]) -> list[str]:
    """``text`` cut into pieces of these sizes, again and again."""
    found, place, turn = [], 0, 0
    while place < len(text):
        found.append(text[place : place + sizes[turn % len(sizes)]])
        place += sizes[turn % len(sizes)]
        turn += 1
    return found


SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4)
