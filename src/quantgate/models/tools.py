"""Functions offered to a model: in its own way where its chat template knows functions, in words where it does not.

A conversation holds calls as text: an assistant turn that is one JSON object ``{"name": ..., "arguments": {...}}``,
bare or in ``<tool_call>`` tags, and the ``tool`` turn behind it with the result. A template that knows functions gets
them as structure, as transformers documents it ("Tool use", chat templating). Any other template gets one system text
that lists the functions and says how to call one, calls as the text they are, and results as user turns where it has no
role for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

Turns = Sequence[tuple[str, str]]
Function = Mapping[str, Any]  # {"name", "description", "parameters"}
ABSTAIN = "no_tool"
SYSTEM = """You can call these functions, one JSON object per line:
{functions}
To call one, answer with JSON alone: {{"name": "<function>", "arguments": {{"<parameter>": <value>}}}}
If none of them fits what is asked, answer with the word {abstain} alone."""
RESULT = "Result of the call:\n{content}"
TAGGED = re.compile(r"\A<tool_call>(.*)</tool_call>\Z", re.DOTALL)
PROBE = "quantgate_probe"
CALL_ID = "call{number:05d}"  # nine letters and digits: Mistral's templates take no other


def in_words(turns: Turns, tools: Sequence[Function]) -> list[tuple[str, str]]:
    """``turns`` with the functions told in a system text: a part of the first system turn, or a turn of its own.

    >>> in_words([("user", "Hi")], [])
    [('user', 'Hi')]
    """
    if not tools:
        return list(turns)
    lines = "\n".join(json.dumps(dict(one), ensure_ascii=False) for one in tools)
    text = SYSTEM.format(functions=lines, abstain=ABSTAIN)
    if turns and turns[0][0] == "system":
        return [("system", f"{turns[0][1]}\n\n{text}"), *turns[1:]]
    return [("system", text), *turns]


def call_of(content: str) -> dict[str, Any] | None:
    """The call that an assistant turn is, or None.

    >>> call_of('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    {'name': 'add', 'arguments': {'a': 1}}
    """
    tagged = TAGGED.match(content.strip())
    try:
        found = json.loads(tagged[1] if tagged else content)
    except ValueError:
        return None
    fits = isinstance(found, dict) and set(found) == {"name", "arguments"} and isinstance(found["arguments"], dict)
    return found if fits else None


def messages_for(tokenizer: Any, turns: Turns, tools: Sequence[Function]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Messages for ``apply_chat_template`` and its ``tools``, both in the form that the tokenizer's template takes."""
    if tools and knows_functions(tokenizer):
        return _structured(turns), [{"type": "function", "function": dict(one)} for one in tools]
    told = in_words(turns, tools)
    if any(role == "tool" for role, _ in told) and not knows_role(tokenizer, "tool"):
        told = [("user", RESULT.format(content=text)) if role == "tool" else (role, text) for role, text in told]
    if tools and not knows_role(tokenizer, "system"):
        (_, text), *rest = told
        first = next((at for at, (role, _) in enumerate(rest) if role == "user"), None)
        if first is None:
            told = [("user", text), *rest]
        else:
            told = [*rest[:first], ("user", f"{text}\n\n{rest[first][1]}"), *rest[first + 1 :]]
    return [{"role": role, "content": content} for role, content in told], []


def _structured(turns: Turns) -> list[dict[str, Any]]:
    """Calls as structure, each with an id that its result names."""
    made: list[dict[str, Any]] = []
    name, number = "", 0
    for role, content in turns:
        call = call_of(content) if role == "assistant" else None
        if call is not None:
            name, number = call["name"], number + 1
            called = {"id": CALL_ID.format(number=number), "type": "function", "function": call}
            made.append({"role": "assistant", "content": "", "tool_calls": [called]})
        elif role == "tool":
            made.append(
                {"role": "tool", "name": name, "tool_call_id": CALL_ID.format(number=number), "content": content}
            )
        else:
            made.append({"role": role, "content": content})
    return made


def knows_functions(tokenizer: Any) -> bool:
    """Whether the chat template writes the functions that it is given: it is tried with one."""
    return _tried(_Template(tokenizer), "functions")


def knows_role(tokenizer: Any, role: str) -> bool:
    """Whether the chat template writes turns of ``role`` ("system" or "tool"): it is tried with one."""
    return _tried(_Template(tokenizer), role)


class _Template:
    """A tokenizer that is known by its chat template, so that each template is tried once."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.text = tokenizer, str(tokenizer.chat_template)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Template) and other.text == self.text


@lru_cache(maxsize=64)
def _tried(template: _Template, what: str) -> bool:
    from jinja2 import TemplateError

    probe = {"name": PROBE, "description": "", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": probe}] if what == "functions" else None
    chats: dict[str, Turns] = {
        "functions": [("user", "a")],
        "system": [("system", PROBE), ("user", "a")],
        "tool": [("user", "a"), ("assistant", "b"), ("tool", PROBE)],
    }
    chat = [{"role": role, "content": content} for role, content in chats[what]]
    try:
        text = template.tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, KeyError, ValueError):  # templates are programs: an unknown role may stop them
        return False
    return PROBE in text
