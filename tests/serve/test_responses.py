"""Responses by conversion: the SDK's own models read them, and a stream says what the whole answer says."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.serve.refusals import Refused
from quantgate.serve.responses import Stream, from_chat, named, to_chat

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "of a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": True,
}
HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "m"}
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 2},
}


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "m", "input": "Hi", **more}


def answer(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **more}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}


def chunks(*deltas: dict[str, Any], finish: str = "stop", logprobs: Any = None) -> list[dict[str, Any]]:
    head = {**HEAD, "object": "chat.completion.chunk"}
    made = [{**head, "choices": [{"index": 0, "delta": one, "logprobs": logprobs}]} for one in deltas]
    made.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return [*made, {**head, "choices": [], "usage": USAGE}]


def events(data: bytes) -> list[dict[str, Any]]:
    """Parsed, each by the SDK's own model; the line in front of the data names its type."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, line = block.split("\n")
        body = json.loads(line.removeprefix("data: "))
        assert name == f"event: {body['type']}"
        found.append(body)
    return found


def streamed(body: dict[str, Any], parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stream = Stream(body)
    return events(b"".join([*map(stream.feed, parts), stream.end()]))


def checked(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Read by the SDK's types, strictly; numbered from 0 without a gap."""
    from openai.types.responses import ResponseStreamEvent
    from pydantic import TypeAdapter

    reader: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for event in sent:
        read = reader.validate_python(event)
        assert read.type == event["type"]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    return sent


def sdk(made: dict[str, Any]) -> Any:
    from openai.types.responses import Response

    return Response.model_validate(made)


def bare(made: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in made.items() if key != "completed_at"}


# --- the request ---


def test_a_text_becomes_one_user_turn() -> None:
    assert to_chat(ask()) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_instructions_stand_in_front() -> None:
    assert to_chat(ask(instructions="Be brief."))["messages"][0] == {"role": "system", "content": "Be brief."}


def test_items_become_turns_and_calls_of_one_turn_stand_together() -> None:
    call = {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"}
    items = [
        {"role": "developer", "content": "Rules"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Here?"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
        call,
        {**call, "call_id": "b"},
        {"type": "function_call_output", "call_id": "a", "output": "rain"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "sun"}]},
    ]  # fmt: skip
    made = to_chat(ask(input=items))["messages"]
    assert [one["role"] for one in made] == ["developer", "user", "assistant", "tool", "tool"]
    assert made[1]["content"] == "Here?"
    assert made[2]["content"] == "I look."
    assert [one["id"] for one in made[2]["tool_calls"]] == ["a", "b"]
    assert made[3:] == [
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "content": "sun"},
    ]


def test_a_schema_tools_and_a_choice_take_the_nested_form() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    made = to_chat(
        ask(text={"format": form}, tools=[WEATHER], tool_choice={"type": "function", "name": "weather"},
            max_output_tokens=20, temperature=0, stream=True)
    )  # fmt: skip
    inner = {key: value for key, value in form.items() if key != "type"}
    assert made["response_format"] == {"type": "json_schema", "json_schema": inner}
    assert made["tools"] == [{"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}]
    assert made["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert made["max_completion_tokens"] == 20 and made["temperature"] == 0
    assert made["stream_options"] == {"include_usage": True}


def test_allowed_tools_are_the_only_ones_offered() -> None:
    other = {**WEATHER, "name": "time"}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}
    made = to_chat(ask(tools=[WEATHER, other], tool_choice=choice))
    assert [tool["function"]["name"] for tool in made["tools"]] == ["time"]
    assert made["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_tool_calls": 2}, "max_tool_calls"),
        ({"whatever": 1}, "whatever"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": 3}, "tools"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"text": {"format": 3}}, "text.format"),
        ({"text": []}, "text"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": ["message"]}]}, "input[0].type"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "b"}]}, "input[0].arguments"),
        ({"instructions": []}, "instructions"),
        ({"include": "x"}, "include"),
        ({"reasoning": 4}, "reasoning"),
    ],
)
def test_what_a_chat_cannot_do_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as caught:
        to_chat(ask(**more))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert str(caught.value).startswith(param)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("input", "instructions", "text", "tools", "tool_choice", "include", "reasoning", "stream", "top_logprobs")


@given(body=st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, JSON)))
def test_any_json_is_converted_or_refused(body: dict[str, Any]) -> None:
    try:
        assert isinstance(to_chat({"model": "m", **body})["messages"], list)
    except Refused as refused:
        assert refused.status == 400


def test_a_refusal_of_the_chat_names_the_key_of_the_request() -> None:
    assert named("response_format.json_schema.schema") == "text.format.schema"
    assert named("max_completion_tokens") == "max_output_tokens"
    assert named(None) is None


# --- the answer ---


def test_text_is_a_message() -> None:
    read = sdk(from_chat(answer({"content": "Hello"}), ask(instructions="Be brief.", metadata={"a": "b"})))
    assert (read.status, read.output_text) == ("completed", "Hello")
    assert (read.instructions, read.metadata) == ("Be brief.", {"a": "b"})
    assert (read.usage.input_tokens, read.usage.output_tokens, read.usage.total_tokens) == (7, 3, 10)
    assert read.usage.input_tokens_details.cached_tokens == 2
    assert read.id == "resp_1" and not read.incomplete_details and not read.error


def test_calls_are_items_of_their_own() -> None:
    call = {"id": "call_7", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Rome"}'}}
    body = ask(tools=[WEATHER], tool_choice="required")
    read = sdk(from_chat(answer({"content": None, "tool_calls": [call]}, "tool_calls"), body))
    assert [(one.type, one.call_id, one.name, one.arguments) for one in read.output] == [
        ("function_call", "call_7", "weather", '{"place":"Rome"}')
    ]
    assert read.tools[0].name == "weather" and read.tool_choice == "required"


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_a_cut_answer_is_incomplete(finish: str, reason: str) -> None:
    read = sdk(from_chat(answer({"content": "Hel"}, finish), ask()))
    assert (read.status, read.incomplete_details.reason, read.output[0].status) == ("incomplete", reason, "incomplete")


def test_a_refusal_is_a_part_of_its_own_and_nothing_is_an_empty_text() -> None:
    read = sdk(from_chat(answer({"content": None, "refusal": "No."}), ask()))
    assert read.output[0].content[0].refusal == "No."
    assert sdk(from_chat(answer({"content": ""}), ask())).output_text == ""


def test_logprobs_come_where_they_were_asked_for() -> None:
    body = ask(include=["message.output_text.logprobs"], top_logprobs=1)
    assert (to_chat(body)["logprobs"], to_chat(body)["top_logprobs"]) == (True, 1)
    row = {"token": "A", "logprob": -0.5, "bytes": None}
    logprobs = {"content": [{**row, "top_logprobs": [row]}]}
    read = sdk(from_chat(answer({"content": "A"}, logprobs=logprobs), body))
    assert read.output[0].content[0].logprobs[0].logprob == -0.5
    sent = checked(streamed(body, chunks({"content": "A"}, logprobs=logprobs)))
    assert next(one for one in sent if one["type"] == "response.output_text.delta")["logprobs"][0]["token"] == "A"


# --- the stream ---


def test_text_streams_in_openais_order() -> None:
    sent = checked(streamed(ask(), chunks({"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"})))
    assert [one["type"].removeprefix("response.") for one in sent] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert sent[0]["response"]["status"] == "in_progress" and sent[0]["response"]["output"] == []
    assert sent[6]["text"] == "Hello"


def test_calls_stream_behind_the_text_in_front_of_them() -> None:
    begin = {"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}}
    parts = chunks(
        {"content": "I look."},
        {"tool_calls": [begin]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"place":'}}]},
        {"tool_calls": [{**begin, "index": 1, "id": "b"}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        finish="tool_calls",
    )
    sent = checked(streamed(ask(tools=[WEATHER]), parts))
    output = sent[-1]["response"]["output"]
    assert [one["type"] for one in output] == ["message", "function_call", "function_call"]
    assert [one["arguments"] for one in output[1:]] == ['{"place":"Rome"}', "{}"]
    done = [one for one in sent if one["type"] == "response.function_call_arguments.done"]
    assert [one["arguments"] for one in done] == ['{"place":"Rome"}', "{}"]
    assert [one["output_index"] for one in done] == [1, 2]


@settings(max_examples=40)
@given(
    text=st.text(max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=5),
    refusal=st.booleans(),
    finish=st.sampled_from(["stop", "length", "content_filter"]),
)
def test_a_stream_ends_with_the_response_that_the_whole_answer_is(
    text: str, cuts: list[int], refusal: bool, finish: str
) -> None:
    key = "refusal" if refusal else "content"
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    deltas = [{key: text[one:next]} for one, next in pairwise(edges)]
    sent = checked(streamed(ask(), chunks(*deltas, finish=finish)))
    last = sent[-1]
    assert last["type"] == f"response.{'completed' if finish == 'stop' else 'incomplete'}"
    assert bare(last["response"]) == bare(from_chat(answer({key: text}, finish), ask()))
    sdk(last["response"])


def test_a_break_ends_the_stream_with_error_and_failed() -> None:
    stream = Stream(ask())
    data = stream.feed(chunks({"content": "Hel"})[0])
    data += stream.error({"message": "cut", "type": "server_error", "param": None, "code": "upstream_cut"})
    sent = checked(events(data))
    assert [one["type"] for one in sent[-2:]] == ["error", "response.failed"]
    assert (sent[-2]["code"], sent[-2]["message"]) == ("upstream_cut", "cut")
    assert sent[-1]["response"]["status"] == "failed"
    assert sent[-1]["response"]["error"] == {"code": "server_error", "message": "cut"}


def test_a_break_before_the_first_chunk_is_told_in_order() -> None:
    sent = checked(events(Stream(ask()).error({"message": "gone"})))
    kinds = ["response.created", "response.in_progress", "error", "response.failed"]
    assert [one["type"] for one in sent] == kinds
