"""A whole message against what was asked: content, tool calls, refusals, and ends that were cut."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.guard.admission import admit

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
TOOLS = [
    {"type": "function", "function": {"name": "add", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
ADD = {"type": "function", "function": {"name": "add"}}


def call(name: Any = "add", arguments: Any = '{"n": 1}', **more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def kind(body: dict[str, Any], message: dict[str, Any], finish: str | None = "stop") -> str | None:
    fault = admit(body).check({"role": "assistant", **message}, finish)
    assert fault is None or (fault.sentence and len(fault.sentence) < 300)
    return fault.kind if fault else None


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({"content": '{"n": 1}'}, "stop", None),
        ({"content": ' {"n":\n1} '}, "stop", None),
        ({"content": '{"n": 1}'}, None, None),
        ({"content": '{"n": 1.0}'}, "stop", None),
        ({"content": '{"n": 1.5}'}, "stop", "schema"),
        ({"content": '{"n": "1"}'}, "stop", "schema"),
        ({"content": '{"n": 1, "m": 2}'}, "stop", "schema"),
        ({"content": "{}"}, "stop", "schema"),
        ({"content": '{"n": 1'}, "stop", "not_json"),
        ({"content": '{"n": 1}'}, "length", "cut"),
        ({"content": '{"n": 1'}, "length", "cut"),
        ({"content": '{"n": 1}'}, "content_filter", "cut"),
        ({"content": '```json\n{"n": 1}\n```'}, "stop", "not_json"),
        ({"content": 'Sure: {"n": 1}'}, "stop", "not_json"),
        ({"content": '{"n": 1, "n": 2}'}, "stop", "not_json"),
        ({"content": '{"n":' + " " * 400 + "1}"}, "stop", "whitespace"),
        ({"content": ""}, "stop", "empty"),
        ({"content": "\n"}, "stop", "empty"),
        ({"content": None}, "stop", "empty"),
        ({}, "stop", "empty"),
        ({"content": ["x"]}, "stop", "malformed"),
        ({"content": {"n": 1}}, "stop", "malformed"),
        ({"content": None, "refusal": "I will not."}, "stop", None),
        ({"content": "", "refusal": "I will not."}, "stop", None),
        ({"content": "no", "refusal": "I will not."}, "stop", "not_json"),
        ({"content": None, "refusal": ""}, "stop", "empty"),
        ({"content": None, "refusal": 3}, "stop", "malformed"),
        ({"content": '{"n": 1}', "tool_calls": []}, "stop", None),
        ({"content": '{"n": 1}', "tool_calls": None, "function_call": None}, "stop", None),
        ({"content": '{"n": 1}', "function_call": {"name": "f", "arguments": "{}"}}, "stop", "malformed"),
        ({"content": '{"n": 1}', "tool_calls": [call()]}, "tool_calls", "unknown_tool"),
    ],
)
def test_content_is_held_to_the_response_format(message, finish, expected):
    assert kind({"response_format": FORMAT}, message, finish) == expected


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({"content": "no tool is needed"}, "stop", None),
        ({"content": None}, "stop", None),
        ({"content": "let me see", "tool_calls": [call()]}, "tool_calls", None),
        ({"content": None, "tool_calls": [call(), call("now", "{}", id="call_2")]}, "tool_calls", None),
        ({"tool_calls": [call("now", '{"any": [1]}')]}, "tool_calls", None),
        ({"tool_calls": [call("now", "[]")]}, "tool_calls", "schema"),
        ({"tool_calls": [call("now", "")]}, "tool_calls", "empty"),
        ({"tool_calls": [call(arguments='{"n": "1"}')]}, "tool_calls", "schema"),
        ({"tool_calls": [call(), call(arguments="{", id="b")]}, "tool_calls", "not_json"),
        ({"tool_calls": [call()]}, "length", "cut"),
        ({"tool_calls": [call("subtract")]}, "tool_calls", "unknown_tool"),
        ({"tool_calls": [call("")]}, "tool_calls", "malformed"),
        ({"tool_calls": [call(None)]}, "tool_calls", "malformed"),
        ({"tool_calls": [call(arguments={"n": 1})]}, "tool_calls", "malformed"),
        ({"tool_calls": [call(arguments=None)]}, "tool_calls", "malformed"),
        ({"tool_calls": [{"id": "x", "type": "function"}]}, "tool_calls", "malformed"),
        ({"tool_calls": ["add"]}, "tool_calls", "malformed"),
        ({"tool_calls": {"0": call()}}, "tool_calls", "malformed"),
        ({"tool_calls": [{**call(), "type": "custom"}]}, "tool_calls", "malformed"),
        ({"tool_calls": [call(), call()]}, "tool_calls", "malformed"),
        ({"tool_calls": [call(index=0), call(index=0, id="b")]}, "tool_calls", "malformed"),
    ],
)
def test_calls_are_held_to_the_tools_parameters(message, finish, expected):
    assert kind({"tools": TOOLS}, message, finish) == expected


@pytest.mark.parametrize(
    ("more", "message", "expected"),
    [
        ({"tool_choice": "none"}, {"content": "x"}, None),
        ({"tool_choice": "none"}, {"tool_calls": [call()]}, "tool_choice"),
        ({"tool_choice": "required"}, {"tool_calls": [call()]}, None),
        ({"tool_choice": "required"}, {"content": "x"}, "tool_choice"),
        ({"tool_choice": "required"}, {}, "tool_choice"),
        ({"tool_choice": "required"}, {"refusal": "I will not."}, None),
        ({"tool_choice": ADD}, {"tool_calls": [call()]}, None),
        ({"tool_choice": ADD}, {"tool_calls": [call("now", "{}")]}, "tool_choice"),
        ({"tool_choice": ADD}, {"tool_calls": [call(), call("now", "{}", id="b")]}, "tool_choice"),
        ({"parallel_tool_calls": False}, {"tool_calls": [call(), call(id="b")]}, "tool_choice"),
        ({"parallel_tool_calls": False}, {"tool_calls": [call()]}, None),
        ({"response_format": FORMAT}, {"tool_calls": [call()]}, None),
        ({"response_format": FORMAT}, {"content": "", "tool_calls": [call()]}, None),
        ({"response_format": FORMAT}, {"content": "words", "tool_calls": [call()]}, "not_json"),
        ({"response_format": FORMAT}, {"content": "words"}, "not_json"),
    ],
)
def test_the_choice_of_tools_is_kept(more, message, expected):
    assert kind({"tools": TOOLS, **more}, message, "tool_calls" if "tool_calls" in message else "stop") == expected


def test_free_text_may_end_by_its_length_but_calls_nobody_asked_for_may_not_leave():
    assert kind({}, {"content": "and so"}, "length") is None
    assert kind({"tools": TOOLS}, {"content": "and so"}, "length") is None
    assert kind({}, {"tool_calls": [call()]}) == "unknown_tool"
    assert kind({}, {"function_call": {"name": "add", "arguments": "{}"}}) == "malformed"


def test_prefixes_are_those_of_content_and_of_each_tool():
    contract = admit({"tools": TOOLS, "response_format": FORMAT})
    content = contract.prefix()
    assert content is not None and content.feed('{"n": "') is not None  # type: ignore[union-attr]
    arguments = contract.prefix("add")
    assert arguments.feed('{"n": 1') is None  # type: ignore[union-attr]
    assert arguments.feed(".5}").where == "tool_calls"  # type: ignore[union-attr]
    assert contract.prefix("other").kind == "unknown_tool"  # type: ignore[union-attr]
    assert admit({"tools": TOOLS}).prefix() is None
    assert admit({"tools": TOOLS, "tool_choice": ADD}).prefix("now").kind == "tool_choice"  # type: ignore[union-attr]
    assert admit({"tools": TOOLS, "tool_choice": "none"}).prefix("add").kind == "tool_choice"  # type: ignore[union-attr]


def test_two_readers_of_one_contract_know_nothing_of_each_other():
    contract = admit({"response_format": FORMAT})
    one, other = contract.prefix(), contract.prefix()
    assert one.feed("[") is not None and other.feed('{"n"') is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "message", "content", "names"),
    [
        ({"response_format": FORMAT}, {"content": '```json\n{"n": 1}\n```'}, '{"n": 1}', ("fence",)),
        ({"response_format": FORMAT}, {"content": "{'n': 1,}"}, '{"n": 1}', ("quotes", "trailing_comma")),
        (
            {"response_format": FORMAT, "tools": TOOLS},
            {"content": "I add.", "tool_calls": [call()]},
            None,
            ("words_beside_calls",),
        ),
    ],
)
def test_content_is_mended(body, message, content, names):
    contract = admit(body)
    mended, told = contract.repair(message, "stop")  # type: ignore[misc]
    assert (mended["content"], tuple(told)) == (content, names)
    assert contract.check(mended, "stop") is None


@pytest.mark.parametrize(
    ("broken", "whole", "name"),
    [
        ("{'n': 1}", '{"n": 1}', "quotes"),
        ('{"n": 1', '{"n": 1}', "brackets"),
        ({"n": 1}, '{"n": 1}', "arguments_as_text"),
    ],
)
def test_arguments_are_mended_and_the_message_that_came_is_left_alone(broken, whole, name):
    contract = admit({"tools": TOOLS})
    message = {"role": "assistant", "content": None, "tool_calls": [call(arguments=broken), call("now", "", id="b")]}
    mended, told = contract.repair(message, "tool_calls")  # type: ignore[misc]
    assert [one["function"]["arguments"] for one in mended["tool_calls"]] == [whole, "{}"]
    assert set(told) == {name, "empty_arguments"}
    assert message["tool_calls"][0]["function"]["arguments"] == broken  # type: ignore[index]


@pytest.mark.parametrize(
    ("message", "finish"),
    [
        ({"content": '{"n": 1'}, "length"),
        ({"content": '{"n": 1'}, None),
        ({"content": '{"n": 1,}'}, "content_filter"),
        ({"content": '{"n": "1"}'}, "stop"),
        ({"content": "{'n': '1'}"}, "stop"),
        ({"content": '{"n": 1} or {"n": 2}'}, "stop"),
        ({"content": ""}, "stop"),
        ({"content": {"n": 1}}, "stop"),
        ({"content": '{"n": 1}'}, "stop"),
        ({"content": '```\n{"n": 1}```', "tool_calls": [call("other")]}, "stop"),
    ],
)
def test_what_was_cut_or_is_wrong_or_right_is_not_mended(message, finish):
    assert admit({"response_format": FORMAT}).repair(message, finish) is None
