"""Answers that keep a contract, answers that do not, and every way to cut them into chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from quantgate.guard import Contract
from quantgate.guard.admission import admit

Body = dict[str, Any]
POINT = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "s": {"type": "string"},
        "more": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": ["number", "null"]}}}},
    },
    "required": ["n"],
    "additionalProperties": False,
}
BODIES: dict[str, Body] = {
    "object": {"response_format": {"type": "json_schema", "json_schema": {"name": "point", "schema": POINT}}},
    "word": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": {"enum": ["yes", "no"]}}}
    },
    "any object": {"response_format": {"type": "json_object"}},
    "tools": {
        "tools": [
            {"type": "function", "function": {"name": "move", "parameters": POINT}},
            {"type": "function", "function": {"name": "stop"}},
        ]
    },
}
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
POINTS = st.fixed_dictionaries(
    {"n": st.integers(-(2**40), 2**40)},
    optional={
        "s": TEXT,
        "more": st.lists(
            st.fixed_dictionaries({"x": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))}),
            max_size=3,
        ),
    },
)
WRONG = st.one_of(
    st.builds(lambda one: one | {"n": "1"}, POINTS),
    st.builds(lambda one: one | {"other": 1}, POINTS),
    st.builds(lambda text: {"s": text}, TEXT),
    st.just([]),
    st.just(7),
)


@st.composite
def written(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> str:
    """A value as JSON text, in one of the ways that models write it."""
    ascii, indent = draw(st.booleans()), draw(st.sampled_from([None, 0, 2]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :\n")]))
    text = json.dumps(draw(values), ensure_ascii=ascii, indent=indent, separators=separators)
    return draw(st.sampled_from(["", "\n"])) + text + draw(st.sampled_from(["", " ", "\n\n"]))


@dataclass(frozen=True)
class Said:
    """A whole answer to what a contract asks."""

    contract: Contract
    message: Body
    finish: str


def calling(*calls: tuple[str, str]) -> Body:
    made = [
        {"id": f"id{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for at, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


@st.composite
def good(draw: st.DrawFn) -> Said:
    name = draw(st.sampled_from([*BODIES, "free"]))
    contract = admit(BODIES.get(name, {}))
    if name == "free":
        return Said(contract, {"role": "assistant", "content": draw(TEXT)}, draw(st.sampled_from(["stop", "length"])))
    if name == "tools":
        calls = st.one_of(st.tuples(st.just("move"), written(POINTS)), st.just(("stop", "{}")))
        return Said(contract, calling(*draw(st.lists(calls, min_size=1, max_size=3))), "tool_calls")
    values = st.sampled_from(["yes", "no"]) if name == "word" else POINTS
    return Said(contract, {"role": "assistant", "content": draw(written(values))}, "stop")


@st.composite
def bad(draw: st.DrawFn) -> Said:
    """The contract faults it; what is wrong may show at the beginning, in the middle, or only at the end."""
    name = draw(st.sampled_from(["object", "word", "any object", "tools"]))
    contract = admit(BODIES[name])
    if name == "tools":
        right = [("move", draw(written(POINTS)))] * draw(st.integers(0, 1))
        wrong = draw(st.sampled_from(["move", "go", "stop"]))
        arguments = draw(written(WRONG)) if wrong != "stop" else "[]"
        calls = draw(st.permutations([*right, (wrong, arguments)]))
        return Said(contract, calling(*calls), "tool_calls")
    text = draw(written({"word": st.sampled_from(["maybe", 1, "ye"]), "any object": st.just([1])}.get(name, WRONG)))
    whole = draw(written(POINTS if name != "word" else st.sampled_from(["yes", "no"])))
    text = draw(st.sampled_from([text, text + "!", whole.rstrip()[:-1], whole + whole, "Sure: " + whole]))
    return Said(contract, {"role": "assistant", "content": text}, draw(st.sampled_from(["stop", "length"])))


def head(delta: Body, finish: str | None = None, index: int = 0) -> Body:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def pieces(draw: Any, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(text))), max_size=12)))
    ends = [*cuts, len(text)]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


def in_chunks(draw: Any, said: Said, index: int = 0) -> Iterator[Body]:
    """One choice as chunks, the end among them."""
    if draw(st.booleans()):
        yield head({"role": "assistant", "content": ""}, index=index)
    for text in pieces(draw, said.message["content"] or ""):
        yield head({"content": text}, index=index)
    for at, call in enumerate(said.message.get("tool_calls") or ()):
        name, parts = call["function"]["name"], pieces(draw, call["function"]["arguments"])
        first = parts.pop(0) if parts and draw(st.booleans()) else ""
        begun = {"index": at, "id": call["id"], "type": "function", "function": {"name": name, "arguments": first}}
        yield head({"tool_calls": [begun]}, index=index)
        for part in parts:
            yield head({"tool_calls": [{"index": at, "function": {"arguments": part}}]}, index=index)
    yield head({}, said.finish, index)


def content_of(chunks: Sequence[Body], index: int = 0) -> str:
    deltas = [one["delta"] for chunk in chunks for one in chunk["choices"] if one["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)


def arguments_of(chunks: Sequence[Body]) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls") or ():
                found[call["index"]] = found.get(call["index"], "") + call["function"]["arguments"]
    return found


def ends(chunks: Sequence[Body]) -> list[str]:
    return [one["finish_reason"] for chunk in chunks for one in chunk["choices"] if one["finish_reason"]]


def parses(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
