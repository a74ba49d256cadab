"""Prompts as token ids, or why they cannot be asked: the same for every engine that reads chats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantgate.engines import Failure, Prompt
from quantgate.errors import DataError
from quantgate.models import OpenedModel

Encode = Callable[[Sequence[tuple[str, str]]], list[int]]


def read(encode: Encode, prompts: Sequence[Prompt], room: int) -> tuple[dict[int, list[int]], dict[int, Failure]]:
    """Ids of the prompts that, with their answers, fit a context of ``room`` tokens, by place; why others do not."""
    found = {index: _ids(encode, prompt, room) for index, prompt in enumerate(prompts)}
    return (
        {index: ids for index, ids in found.items() if not isinstance(ids, Failure)},
        {index: why for index, why in found.items() if isinstance(why, Failure)},
    )


def leading(encode: Encode, model: OpenedModel) -> str:
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
        ids = encode(prompt.turns)
    except DataError as refused:  # a template may refuse roles, or their order
        return Failure(reason=str(refused))
    if not ids or len(ids) + prompt.max_tokens > room:
        asked = f"prompt of {len(ids)} tokens and answer of {prompt.max_tokens}"
        return Failure(reason=f"{asked} exceed the context of {room}" if ids else "the prompt has no tokens")
    return ids
