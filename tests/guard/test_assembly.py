"""Chunks become whole messages; what servers get wrong in tool calls is put right; a message becomes chunks again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.guard.answers import Body, content_of, good, head, in_chunks

from quantgate.guard.assembly import Assembly, Broken, replay

Pieces = list[Body]


def call(index: Any = None, id: str | None = None, name: str | None = None, arguments: Any = None) -> Body:
    """A piece of a tool call with what is not None."""
    function = {key: one for key, one in (("name", name), ("arguments", arguments)) if one is not None}
    made = {"index": index, "id": id, "function": function}
    return {key: one for key, one in made.items() if one is not None}


DIALECTS: dict[str, Pieces] = {
    "as OpenAI has it": [
        call(0, "a", "f", ""),
        call(0, arguments="{}"),
        call(1, "b", "g", ""),
        call(1, arguments="[1]"),
    ],
    "no index at all": [call(None, "a", "f", ""), call(arguments="{}"), call(None, "b", "g", "[1]")],
    "no index, the id in every piece": [
        call(None, "a", "f", "{"),
        call(None, "a", None, "}"),
        call(None, "b", "g", "[1]"),
    ],
    "index 0 for every call": [call(0, "a", "f", "{}"), call(0, "b", "g", "["), call(0, arguments="1]")],
    "index from 1": [call(1, "a", "f", "{}"), call(2, "b", "g", "[1"), call(2, arguments="]")],
    "id and name repeated": [
        call(0, "a", "f", "{"),
        call(0, "a", "f", "}"),
        call(1, "b", "g", "[1"),
        call(1, "b", "g", "]"),
    ],
    "a new id with every piece": [
        call(0, "a", "f", "{"),
        call(0, "x", None, "}"),
        call(1, "b", "g", "[1"),
        call(1, "y", "", "]"),
    ],
    "arguments as values": [call(0, "a", "f", {}), call(1, "b", "g", [1])],
    "arguments null first": [call(0, "a", "f"), call(0, arguments="{}"), call(1, "b", "g", "[1]")],
    "pieces take turns": [
        call(0, "a", "f", "{"),
        call(1, "b", "g", "[1"),
        call(0, arguments="}"),
        call(1, arguments="]"),
    ],
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("together", [False, True])
def test_every_dialect_of_tool_calls_comes_out_as_openais(dialect: str, together: bool) -> None:
    pieces = DIALECTS[dialect]
    groups = [pieces] if together else [[one] for one in pieces]
    whole = Assembly()
    out = [one for group in groups for one in whole.add(head({"tool_calls": group}))]
    calls = [one for piece in out for one in piece.chunk["choices"][0]["delta"]["tool_calls"]]
    first = [one for one in calls if "id" in one]
    assert [(one["index"], one["id"], one["function"]["name"]) for one in first] == [(0, "a", "f"), (1, "b", "g")]
    assert all(
        set(one) == {"index", "function"} and set(one["function"]) == {"arguments"} for one in calls if "id" not in one
    )
    assert [one.body()["function"] for one in whole.drafts[0].calls] == [
        {"name": "f", "arguments": "{}"},
        {"name": "g", "arguments": "[1]"},
    ]


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    whole = Assembly()
    whole.add(head({"tool_calls": [call(0, None, "f", "{}"), call(1, None, "g", "{}")]}))
    ids = [one.id for one in whole.drafts[0].calls]
    assert len(set(ids)) == 2
    assert all(ids)


def test_a_sound_chunk_comes_out_as_the_object_that_came_in() -> None:
    begun = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    chunks = [
        head({"role": "assistant", "content": ""}),
        head({"content": "Hi"}),
        head({"tool_calls": [begun]}),
        head({"tool_calls": [call(0, arguments="{}")]}),
        head({}, "tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    ]
    whole = Assembly()
    assert all(whole.add(chunk)[0].chunk is chunk for chunk in chunks)


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": "Hi"}, "finish_reason": "stop"},
        {"index": None, "delta": {"content": "Hi"}, "finish_reason": "stop"},
        {"index": 0, "delta": {"content": "Hi", "tool_calls": None, "refusal": None}, "finish_reason": "stop"},
    ],
)
def test_a_choice_without_an_index_is_the_first(choice: Body) -> None:
    whole = Assembly()
    out = whole.add({"id": "c", "created": 1, "model": "m", "choices": [choice]})
    assert out[0].chunk["choices"][0]["index"] == 0
    assert whole.completion()["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}


def test_an_empty_finish_reason_is_none() -> None:
    whole = Assembly()
    whole.add({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": ""}]})
    with pytest.raises(Broken, match="ended without saying why"):
        whole.completion()


def test_two_choices_in_one_chunk_come_out_in_two() -> None:
    both = head({"content": "a"})["choices"] + head({"content": "b"}, index=1)["choices"]
    out = Assembly().add(head({}) | {"choices": both})
    assert [content_of([one.chunk], index) for index, one in enumerate(out)] == ["a", "b"]


def test_logprobs_of_pieces_are_joined() -> None:
    whole = Assembly()
    for token in ("a", "b"):
        chunk = head({"content": token}, "stop" if token == "b" else None)
        chunk["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": -1.0}], "refusal": None}
        whole.add(chunk)
    joined = whole.completion()["choices"][0]["logprobs"]
    assert [one["token"] for one in joined["content"]] == ["a", "b"]


@given(good(), st.data())
def test_a_replayed_answer_is_the_same_answer(said: Any, data: st.DataObject) -> None:
    whole, again = Assembly(), Assembly()
    for chunk in in_chunks(data.draw, said):
        whole.add(chunk)
    whole.usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    completion = whole.completion()
    for chunk in replay(completion):
        again.add(chunk)
    repeated = again.completion()
    for one in (completion, repeated):
        one["choices"][0]["message"]["content"] = one["choices"][0]["message"]["content"] or None
    assert repeated == completion


def test_openais_client_reads_a_replay_as_the_completion() -> None:
    streaming = pytest.importorskip("openai.lib.streaming.chat")
    types = pytest.importorskip("openai.types.chat")
    functions = [{"name": "f", "arguments": '{"a": 1}'}, {"name": "g", "arguments": "{}"}]
    calls = [{"id": f"i{at}", "type": "function", "function": one} for at, one in enumerate(functions)]
    completion = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "I look.", "tool_calls": calls},
                "finish_reason": "tool_calls",
            },
            {"index": 1, "message": {"role": "assistant", "content": None, "refusal": "No."}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    state = streaming.ChatCompletionStreamState()
    for chunk in replay(completion):
        state.handle_chunk(types.ChatCompletionChunk.model_validate(chunk))
    got = state.get_final_completion()
    first, second = got.choices
    assert (first.message.content, first.finish_reason) == ("I look.", "tool_calls")
    assert [(one.id, one.function.name, one.function.arguments) for one in first.message.tool_calls] == [
        ("i0", "f", '{"a": 1}'),
        ("i1", "g", "{}"),
    ]
    assert (second.message.refusal, second.finish_reason) == ("No.", "stop")
    assert got.usage.total_tokens == 3


def test_calls_without_end_are_a_fault() -> None:
    whole = Assembly()
    with pytest.raises(Broken, match="more than 128 tools"):
        for at in range(200):
            whole.add(head({"tool_calls": [call(at, f"i{at}", "f", "{}")]}))


def test_openais_client_reads_a_held_call_and_its_extension() -> None:
    streaming = pytest.importorskip("openai.lib.streaming.chat")
    types = pytest.importorskip("openai.types.chat")
    pending = {"pending_approval": {"id": "ap_1", "tools": ["pay"], "hash": "sha256:1", "expires": 1.5}}
    message = {"role": "assistant", "content": "Not called yet.", "quantgate": pending}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    state = streaming.ChatCompletionStreamState()
    for chunk in replay({"id": "c1", "created": 1, "model": "m", "choices": [choice]}):
        state.handle_chunk(types.ChatCompletionChunk.model_validate(chunk))
    got = state.get_final_completion().choices[0].message
    assert (got.content, got.model_extra["quantgate"]) == ("Not called yet.", pending)
