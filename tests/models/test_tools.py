"""Functions reach a model in the way its chat template knows, or in words, and never get lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.models.random import TEMPLATE
from quantgate.models.tools import call_of, in_words, knows_functions, knows_role, messages_for

ADD = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
CALL = '{"name": "add", "arguments": {"a": 1}}'
CHAT = [("user", "Add 1."), ("assistant", CALL), ("tool", '{"sum": 1}'), ("user", "Again.")]
HERMES = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}CALL {{ call.function.name }} {{ call.function.arguments | tojson }}"
    "{% endfor %}{% endfor %}"
)
STRICT = (
    "{% for m in messages %}"
    "{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + m.role) }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
FORGETFUL = "{% for m in messages %}{% if m.role == 'user' %}U {{ m.content }}{% endif %}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def with_template(template: str) -> Any:
        made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
        made.chat_template = template
        return made

    return with_template


def text(tokenizer: Any, turns: Any, tools: Any) -> str:
    messages, offered = messages_for(tokenizer, turns, tools)
    return str(tokenizer.apply_chat_template(messages, tools=offered or None, tokenize=False))


def test_a_template_that_knows_functions_gets_them_as_structure(tokenizer: Any) -> None:
    made = text(tokenizer(HERMES), CHAT, [ADD])
    assert knows_functions(tokenizer(HERMES))
    assert made.startswith('<tools>{"type": "function", "function": {"name": "add"')
    assert 'CALL add {"a": 1}' in made and '<tool>{"sum": 1}' in made and "no_tool" not in made


def test_results_name_the_call_they_belong_to(tokenizer: Any) -> None:
    messages, _ = messages_for(tokenizer(HERMES), [*CHAT, *CHAT[1:]], [ADD])
    calls = [one["tool_calls"][0]["id"] for one in messages if "tool_calls" in one]
    results = [one["tool_call_id"] for one in messages if one["role"] == "tool"]
    assert calls == results == ["call00001", "call00002"]
    assert all(len(one) == 9 and one.isalnum() for one in calls)


def test_other_templates_get_the_functions_in_words(tokenizer: Any) -> None:
    assert not knows_functions(tokenizer(TEMPLATE)) and knows_role(tokenizer(TEMPLATE), "tool")
    made = text(tokenizer(TEMPLATE), CHAT, [ADD])
    assert made.startswith("<|system|>You can call these functions") and json.dumps(ADD) in made
    assert f"<|assistant|>{CALL}<|end|>" in made and '<|tool|>{"sum": 1}' in made


def test_functions_in_words_follow_the_system_turn_that_is_there() -> None:
    (role, told), user = in_words([("system", "Be brief."), ("user", "Hi")], [ADD])
    assert (role, user) == ("system", ("user", "Hi")) and told.startswith("Be brief.\n\nYou can call")


def test_a_template_without_system_and_tool_turns_loses_nothing(tokenizer: Any) -> None:
    for template in (STRICT, FORGETFUL):
        made = text(tokenizer(template), CHAT, [ADD])
        assert json.dumps(ADD) in made and 'Result of the call:\n{"sum": 1}' in made
        assert made.index("Add 1.") > made.index(json.dumps(ADD))


def test_without_functions_messages_are_the_turns(tokenizer: Any) -> None:
    for template in (HERMES, TEMPLATE):
        messages, offered = messages_for(tokenizer(template), CHAT, [])
        assert offered == [] and [(one["role"], one["content"]) for one in messages] == CHAT


@given(st.text() | st.from_regex(r'\{"name": ".*", "arguments": .*\}'))
def test_what_is_no_call_stays_text(content: str) -> None:
    found = call_of(content)
    assert found is None or (set(found) == {"name", "arguments"} and isinstance(found["arguments"], dict))
