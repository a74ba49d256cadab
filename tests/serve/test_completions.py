"""Text completions by conversion: the SDK's own model reads them, and a stream says what the whole answer says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quantgate.serve.completions import Stream, from_chat, to_chat
from quantgate.serve.refusals import Refused

HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "m", "system_fingerprint": "ab"}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
ROW = {"token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108]}
LOGPROBS = {"content": [{**ROW, "top_logprobs": [ROW]}, {**ROW, "token": "lo", "top_logprobs": [ROW]}]}


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "Say hello", **more}


def answer(text: str | None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": "stop"}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**HEAD, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **more}]}


def sdk(made: dict[str, Any]) -> Any:
    from openai.types import Completion

    return Completion.model_validate(made)


def test_the_prompt_becomes_the_one_turn_and_the_rest_goes_along() -> None:
    made = to_chat(ask(max_tokens=5, temperature=0.5, stop=["."], logprobs=2, echo=False, best_of=1, suffix=None))
    assert made == {
        "model": "m", "messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 5, "temperature": 0.5,
        "stop": ["."], "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    assert to_chat(ask(prompt=["One"]))["messages"][0]["content"] == "One"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": "2"}, "logprobs"),
        ({"use_beam_search": True}, "use_beam_search"),
    ],
)
def test_what_a_chat_cannot_do_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as caught:
        to_chat(ask(**more))
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_whole_answer_is_a_text_completion() -> None:
    read = sdk(from_chat(answer("Hello"), ask()))
    assert (read.id, read.choices[0].text, read.choices[0].finish_reason) == ("cmpl-1", "Hello", "stop")
    assert (read.usage.total_tokens, read.system_fingerprint) == (10, "ab")
    assert sdk(from_chat(answer(None, refusal="No."), ask())).choices[0].text == "No."


def test_logprobs_take_the_older_form() -> None:
    made = answer("Hello")
    made["choices"][0]["logprobs"] = LOGPROBS
    read = sdk(from_chat(made, ask(logprobs=1))).choices[0].logprobs
    assert (read.tokens, read.token_logprobs, read.text_offset) == (["Hel", "lo"], [-0.5, -0.5], [0, 3])
    assert read.top_logprobs == [{"Hel": -0.5}, {"Hel": -0.5}]


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_holds_the_text_and_usage_where_it_was_asked_for(usage: bool) -> None:
    stream = Stream(ask(stream=True, **({"stream_options": {"include_usage": True}} if usage else {})))
    parts = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}, logprobs={"content": LOGPROBS["content"][1:]}),
        chunk({}, finish_reason="stop"),
        {**chunk({}), "choices": [], "usage": USAGE},
    ]
    data = b"".join([*map(stream.feed, parts), stream.end()]).decode()
    lines = data.split("\n\n")[:-1]
    assert lines.pop() == "data: [DONE]"
    sent = [json.loads(line.removeprefix("data: ")) for line in lines]
    texts = [one["choices"][0] for one in sent if one["choices"]]
    assert "".join(one["text"] for one in texts) == "Hello"
    assert texts[1]["logprobs"]["text_offset"] == [3]
    assert texts[-1]["finish_reason"] == "stop"
    assert [one["usage"] for one in sent if one.get("usage")] == ([USAGE] if usage else [])


def test_a_break_is_an_error_event_without_an_end() -> None:
    error = {"message": "cut", "type": "server_error", "param": None, "code": "upstream_cut"}
    assert json.loads(Stream(ask()).error(error).removeprefix(b"data: ")) == {"error": error}
