"""A conversation as the token ids that the model would have seen, answers included.

Nothing but turns goes through the chat template as ever. Tools and their calls go through it as well where the template
has a place for them, else they are told as text: the tools in the system turn, a call as its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from quantgate.calibrate.conversation import Conversation, Turns
from quantgate.errors import DataError
from quantgate.models import OpenedModel


def ids_of(model: OpenedModel, conversation: Conversation) -> list[int]:
    """Token ids of the whole conversation. Raises DataError where the template refuses it, ModelError without one."""
    return [int(one) for part in _encoded(model, texts_of(model, conversation)) for one in part]


def lengths_of(model: OpenedModel, conversations: Sequence[Conversation]) -> list[int | None]:
    """Tokens of each conversation, told of many at once; None where the template refuses it."""
    texts, counts = list[str](), list[int | None]()
    for one in conversations:
        try:
            parts = texts_of(model, one)
        except DataError:
            counts.append(None)
        else:
            texts += parts
            counts.append(len(parts))
    sizes = iter(map(len, _encoded(model, texts)))
    return [None if count is None else sum(next(sizes) for _ in range(count)) for count in counts]


def texts_of(model: OpenedModel, conversation: Conversation) -> list[str]:
    """What is asked in the model's template, and the answer where there is one; both are tokenized by themselves."""
    if not conversation.plain and _knows_tools(model):
        native = _native(model, conversation)
        if native is not None:
            return [native]
    turns = _told(conversation)
    asked = turns[:-1] if turns[-1][0] == "assistant" else turns
    rendered = model.render([{"role": role, "content": content} for role, content in asked])
    return [rendered, turns[-1][1]] if len(asked) < len(turns) else [rendered]


def _encoded(model: OpenedModel, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = model.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return found


def _knows_tools(model: OpenedModel) -> bool:
    template = model.tokenizer.chat_template
    return bool(template) and ("tools" in str(template) or "tool_calls" in str(template))


def _native(model: OpenedModel, conversation: Conversation) -> str | None:
    """The conversation by a template that knows tools; None where it refuses this one."""
    from jinja2 import TemplateError

    more: dict[str, Any] = {"tools": [dict(one) for one in conversation.tools]} if conversation.tools else {}
    messages = [dict(one) for one in conversation.messages]
    ask = conversation.answer is None
    try:
        return str(model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, **more))
    except (TemplateError, TypeError, ValueError):
        return None


def _told(conversation: Conversation) -> Turns:
    if not conversation.tools:
        return conversation.turns
    tools = json.dumps([one["function"] for one in conversation.tools], ensure_ascii=False)
    turns = conversation.turns
    before = f"{turns[0][1]}\n" if turns[0][0] == "system" else ""
    return (("system", f"{before}Functions: {tools}"), *(turns[1:] if before else turns))
