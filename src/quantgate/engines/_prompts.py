"""Prompts as text and token ids, or why they cannot be asked: the same for every engine that reads chats.

    a chat          the template's text; special tokens stand in it
    with tools      the same, with the functions in the template's own way or in words: ``models.tools``
    plain           the turns' contents behind each other, with the special tokens that the tokenizer gives to a text

``answer_schema`` adds nothing to a prompt, for the prompt of a suite that has one states it: an engine may hold answers
to it (llamacpp does, by a grammar), and the others take no notice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantgate.engines import Failure, Prompt
from quantgate.errors import DataError
from quantgate.models import OpenedModel
from quantgate.models.tools import messages_for

Encode = Callable[[Prompt], list[int]]


def read(encode: Encode, prompts: Sequence[Prompt], room: int) -> tuple[dict[int, list[int]], dict[int, Failure]]:
    """Ids of the prompts that, with their answers, fit a context of ``room`` tokens, by place; why others do not.

    Prompts with ``choices`` are left out: see ``_choices``.
    """
    found = {index: _ids(encode, prompt, room) for index, prompt in enumerate(prompts) if not prompt.choices}
    return (
        {index: ids for index, ids in found.items() if not isinstance(ids, Failure)},
        {index: why for index, why in found.items() if isinstance(why, Failure)},
    )


def leading(encode: Callable[[Sequence[tuple[str, str]]], list[int]], model: OpenedModel) -> str:
    """How often a prompt starts with the token that begins a sequence: ``1 x token 0``, as the engine makes it.

    A second one, added in front of the template's own, is a known loss of quality. "" where a template takes no lone
    user turn.
    """
    first = model.tokenizer.bos_token_id
    if first is None:
        return "no such token"
    try:
        ids = encode([("user", "a")]) if model.tokenizer.chat_template else model.encode("a")
    except DataError:
        return ""
    count = next((at for at, one in enumerate(ids) if one != first), len(ids))
    return f"{count} x token {int(first)}"


def _ids(encode: Encode, prompt: Prompt, room: int) -> list[int] | Failure:
    try:
        ids = encode(prompt)
    except DataError as refused:  # a template may refuse roles, or their order
        return Failure(reason=str(refused))
    if not ids or len(ids) + prompt.max_tokens > room:
        asked = f"prompt of {len(ids)} tokens and answer of {prompt.max_tokens}"
        return Failure(reason=f"{asked} exceed the context of {room}" if ids else "the prompt has no tokens")
    return ids


def text_of(model: OpenedModel, prompt: Prompt) -> tuple[str, bool]:
    """A prompt as one text, and whether the tokenizer is to add its special tokens.

    A plain text that begins with the token that begins texts is given no second one, as lm-eval does (0.4.13,
    ``models/utils.py``: ``has_bos_prefix``). Raises DataError when the chat template refuses the conversation,
    ModelError when there is none.
    """
    if prompt.plain:
        text = "".join(content for _, content in prompt.turns)
        begin = model.tokenizer.bos_token
        return text, not (begin and text.startswith(begin))
    messages, tools = messages_for(model.tokenizer, prompt.turns, prompt.tools)
    return model.render(messages, tools=tools), not model.tokenizer.chat_template


def is_chat(prompt: Prompt) -> bool:
    """Whether a prompt is a conversation and nothing else, as ``Engine.encode`` takes it."""
    return not (prompt.plain or prompt.tools or any(role == "tool" for role, _ in prompt.turns))
