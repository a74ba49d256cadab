"""Chunks of any shape: what a client puts together of what left is never whole and wrong."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantgate.guard import Policy, validators
from quantgate.guard.admission import Admission
from quantgate.guard.assembly import Broken
from quantgate.guard.reading import NotJson, read
from quantgate.guard.streams import StreamGuard

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "multipleOf": 7}, "b": {"type": "string", "maxLength": 3}},
    "required": ["a"],
    "not": {"required": ["b"], "properties": {"b": {"const": "no"}}},
    "additionalProperties": False,
}
VALID = jsonschema_rs.validator_for(SCHEMA)
TOOL = {"type": "function", "function": {"name": "pay", "parameters": SCHEMA}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
CONTRACT = Admission().admit({"response_format": FORMAT, "tools": [TOOL]})
TEXTS = (
    '{"a": 7}', '{"a": 8}', '{"a":7,"b":"no"}', '{"a": 14, "b": "yes"}', '{"a": 7}}', '{"a": 7} {"a": 8}', '{"b": "x"}',
    '{"a": 7, "a": 8}', "\ufeff{}", "[]", "7", '"x"', '{"a":7}\n```', '{"a": 7.0}', '{"a": -0}', '{"a": 7e0}', "{}",
)  # fmt: skip
cut = st.builds(
    lambda text, at, to: text[min(at, to) : max(at, to)], st.sampled_from(TEXTS), st.integers(0, 9), st.integers(0, 40)
)
text = st.one_of(
    st.sampled_from(TEXTS), cut, st.sampled_from(["}", "{", " ", "\n", "]", "7", "", '"', "\u00a0", "\x00"])
)
odd = st.sampled_from([None, True, False, 0, 1, 2, 7, -1, "0", 1.5, [], {}, ["x"], {"a": 1}, "x"])
index = st.sampled_from([0, 0, 0, 0, 1, None, True, 2, "0", -1])
function = st.one_of(
    st.fixed_dictionaries(
        {}, optional={"name": st.sampled_from(["pay", "pay", "steal", "", None]), "arguments": st.one_of(text, odd)}
    ),
    odd,
)
piece = st.fixed_dictionaries(
    {"function": function},
    optional={"index": index, "id": st.sampled_from(["c1", "c2", "", None, 3]), "type": st.just("function")},
)
delta = st.one_of(
    st.fixed_dictionaries({"content": text}),
    st.fixed_dictionaries({"content": text}),
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.just("assistant"), "content": st.one_of(text, odd), "refusal": st.sampled_from([None, "", "no"]),
            "tool_calls": st.one_of(st.lists(piece, max_size=3), odd), "reasoning": st.one_of(text, odd),
            "function_call": st.sampled_from([None, {}, {"name": "pay", "arguments": "{}"}]), "audio": odd,
        },
    ),
    odd,
)  # fmt: skip
choice = st.one_of(
    st.fixed_dictionaries({"index": st.just(0), "delta": delta}),
    st.fixed_dictionaries({"index": st.just(0), "delta": st.fixed_dictionaries({"content": text})}),
    st.fixed_dictionaries(
        {},
        optional={
            "index": index, "delta": delta, "logprobs": st.sampled_from([None, {"content": []}, "x"]), "message": odd,
            "finish_reason": st.sampled_from([None, "stop", "tool_calls", "length", "", 3, "content_filter"]),
        },
    ),
)  # fmt: skip
chunk = st.one_of(
    st.builds(lambda one: {"choices": [one]}, choice),
    st.fixed_dictionaries(
        {}, optional={"choices": st.one_of(st.lists(choice, max_size=2), odd), "usage": odd, "error": odd}
    ),
)
ends: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"choices": [{"index": 0, "delta": {}, "finish_reason": end}]} for end in ("stop", "tool_calls", "length")]
)


class Client:
    """What openai-python puts together: texts are joined, tool calls by their index; nothing is judged."""

    def __init__(self) -> None:
        self.contents: dict[Any, str] = {}
        self.calls: dict[Any, dict[str, str]] = {}

    def read(self, chunk: dict[str, Any]) -> None:
        assert isinstance(chunk["choices"], list)
        for one in chunk["choices"]:
            at, delta = one["index"], one["delta"]
            assert type(at) is int
            if delta.get("content"):
                self.contents[at] = self.contents.get(at, "") + delta["content"]
            for call in delta.get("tool_calls") or ():
                found = self.calls.setdefault((at, call["index"]), {"name": "", "arguments": ""})
                found["name"] += call["function"].get("name") or ""
                found["arguments"] += call["function"].get("arguments") or ""

    def whole(self) -> list[str]:
        """Texts that a client can take for an answer: they are JSON by themselves."""
        return [
            one
            for one in [*self.contents.values(), *(call["arguments"] for call in self.calls.values())]
            if is_json(one)
        ]


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def good(text: str) -> bool:
    try:
        return bool(VALID.is_valid(read(text)))
    except NotJson:
        return False


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("policy", ["passthrough", "holdback", "window", "buffer"])
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chunks=st.lists(chunk, max_size=12), last=st.lists(ends, max_size=1))
def test_what_left_is_never_whole_and_wrong(policy: Policy, strict: bool, chunks: list[Any], last: list[Any]) -> None:
    held = validators.build({"forbidden": {"words": ["FORBIDDEN"]}}, canary=False) if strict else ()
    guard = StreamGuard(CONTRACT, policy, validators=held, window=2, choices=2)
    client = Client()
    try:
        for one in [*json.loads(json.dumps(chunks)), *last]:
            for leaving in guard.feed(one):
                client.read(leaving)
                assert all(map(good, client.whole())), client.whole()
        for leaving in guard.end():
            client.read(leaving)
    except Broken:
        assert all(map(good, client.whole())), client.whole()
        return
    for content in client.contents.values():
        assert good(content) or not content.strip(), content
    for call in client.calls.values():
        assert call["name"] == "pay" and good(call["arguments"])
