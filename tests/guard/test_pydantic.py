"""Schemas as pydantic and the official client write them, and answers that their own models make."""

from __future__ import annotations

import json
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError
from tests.guard.made_schemas import SIZES, pieces

from quantgate.guard.admission import admit


class Mood(StrEnum):
    good = "good"
    bad = "bad"


class Circle(BaseModel):
    shape: Literal["circle"]
    radius: Annotated[float, Field(gt=0, le=1e6)]


class Square(BaseModel):
    shape: Literal["square"]
    side: Annotated[int, Field(ge=1, multiple_of=2)]
    label: Annotated[str, Field(pattern=r"^[a-z]{1,8}$")] = "a"


class Node(BaseModel, extra="forbid"):
    name: Annotated[str, Field(min_length=1, max_length=20)]
    mood: Mood | None = None
    born: date
    drawn: Annotated[Circle | Square, Field(discriminator="shape")] | None
    pair: tuple[int, str]
    counts: dict[str, int] = {}
    children: list[Node] = []


CIRCLES = st.builds(Circle, shape=st.just("circle"), radius=st.floats(0.5, 1e6))
SQUARES = st.builds(
    Square,
    shape=st.just("square"),
    side=st.integers(1, 50).map(lambda n: 2 * n),
    label=st.text("abcxyz", min_size=1, max_size=8),
)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


def nodes(children: st.SearchStrategy[list[Node]]) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        name=NAMES,
        mood=st.none() | st.sampled_from(Mood),
        born=st.dates(),
        drawn=st.none() | CIRCLES | SQUARES,
        pair=st.tuples(st.integers(-99, 99), st.text(max_size=3)),
        counts=st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
        children=children,
    )


NODES = st.recursive(nodes(st.just([])), lambda within: nodes(st.lists(within, max_size=2)), max_leaves=4)
BODY = {"response_format": {"type": "json_schema", "json_schema": {"name": "node", "schema": Node.model_json_schema()}}}


@given(NODES, SIZES, st.sampled_from([None, 2]))
@settings(max_examples=100)
def test_what_the_model_dumps_passes_in_pieces_and_whole(node, sizes, indent):
    contract = admit(BODY)
    text = node.model_dump_json(indent=indent)
    prefix = contract.prefix()
    assert prefix is not None
    assert [prefix.feed(piece) for piece in pieces(text, sizes)] == [None] * len(pieces(text, sizes))  # type: ignore[union-attr]
    assert contract.check({"content": text}, "stop") is None


@given(NODES, st.data())
@settings(max_examples=100)
def test_what_passes_the_check_is_what_the_model_takes(node, data):
    """One field exchanged: where the check is satisfied, so is pydantic."""
    found = node.model_dump(mode="json")
    key = data.draw(st.sampled_from(sorted(found)))
    found[key] = data.draw(st.sampled_from([None, 1, 1.5, "good", "2026-02-30", [], [1], [1, "a"], {}, {"a": 1.5}]))
    text = json.dumps(found)
    if admit(BODY).check({"content": text}, "stop") is None:
        Node.model_validate_json(text)


def test_the_official_clients_own_form_is_taken():
    parsing = pytest.importorskip("openai.lib._parsing")
    tools = pytest.importorskip("openai").pydantic_function_tool(Square)
    body = {"response_format": parsing.type_to_response_format_param(Node), "tools": [tools]}
    contract = admit(body)
    good = '{"shape": "square", "side": 4, "label": "ab"}'
    call = {"id": "a", "type": "function", "function": {"name": "Square", "arguments": good}}
    assert contract.check({"tool_calls": [call]}, "tool_calls") is None
    call["function"] = {"name": "Square", "arguments": good.replace("4", "3")}
    assert contract.check({"tool_calls": [call]}, "tool_calls") is not None
    with pytest.raises(ValidationError):
        Square.model_validate_json(good.replace("4", "3"))
