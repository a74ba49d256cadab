"""Conversations as token ids: tools go through templates that know them, and are told as text to those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantgate.calibrate import Rules, select
from quantgate.calibrate.conversation import conversation
from quantgate.calibrate.render import ids_of, lengths_of, texts_of
from quantgate.models import open_model
from quantgate.models.random import save_random

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"z": 1, "a": 2}}}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Oslo?"},
    {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
]
KNOWS = (
    "{% if tools %}[tools {% for one in tools %}{{ one.function | tojson }}{% endfor %}]{% endif %}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% for call in message.tool_calls or [] %}[call {{ call.function.name }} {{ call.function.arguments.city }}]"
    "{% endfor %}"
    "{% endfor %}"
)
STRICT = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{ message.role }}>{{ message.content }}{% endfor %}"
)


def model_with(folder: Path, template: str) -> Any:
    model = open_model(save_random(folder / "model", hidden=32, layers=1, feed_forward=32))
    model.tokenizer.chat_template = template
    return model


def test_a_template_that_knows_tools_is_given_them_as_they_were_sent(tmp_path: Path) -> None:
    model = model_with(tmp_path, KNOWS)
    (text,) = texts_of(model, conversation({"messages": TALK, "tools": TOOLS}))
    assert text == (
        '[tools {"name": "weather", "parameters": {"z": 1, "a": 2}}]<system>Be brief.<user>Weather in Oslo?'
        "<assistant>[call weather Oslo]<tool>rain<assistant>It rains."
    )


def test_other_templates_are_told_of_tools_in_text(small: Any) -> None:
    asked, answer = texts_of(small, conversation({"messages": TALK, "tools": TOOLS}))
    assert answer == "It rains."
    assert '<|system|>Be brief.\nFunctions: [{"name": "weather", "parameters": {"z": 1, "a": 2}}]<|end|>' in asked
    assert '<|assistant|>{"name": "weather", "arguments": {"city": "Oslo"}}<|end|><|tool|>rain' in asked
    bare = texts_of(small, conversation({"messages": TALK[1:2], "tools": TOOLS}))
    assert bare[0].startswith("<|system|>Functions: [")


def test_lengths_are_those_of_the_ids(small: Any, tmp_path: Path) -> None:
    some = [
        conversation(one) for one in ("Hello", {"prompt": "a", "completion": "b c"}, {"messages": TALK, "tools": TOOLS})
    ]
    for model in (small, model_with(tmp_path, KNOWS)):
        assert lengths_of(model, some) == [len(ids_of(model, one)) for one in some]


def test_what_the_template_refuses_is_left_out_and_counted(tmp_path: Path, write: Any) -> None:
    model = model_with(tmp_path, STRICT)
    twice = {"messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]}
    found = select(model, [write([{"prompt": f"question {at * 77}"} for at in range(20)] + [twice] * 3)], Rules(20))
    assert (found.audit.unfit, len(found.samples)) == (3, 20)
    assert lengths_of(model, [conversation(twice)]) == [None]


@pytest.mark.parametrize("answered", [False, True])
def test_plain_conversations_have_the_ids_that_they_always_had(small: Any, answered: bool) -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}][: 1 + answered]
    assert small.tokenizer.decode(ids_of(small, conversation({"messages": turns}))) == (
        "<|user|>Hello<|end|><|assistant|>" + ("Hi." if answered else "")
    )
