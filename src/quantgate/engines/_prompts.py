"""A prompt as token ids, or why it cannot be asked: the same for every engine that reads chats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantgate.engines import Failure, Prompt
from quantgate.errors import DataError


def ids_of(encode: Callable[[Sequence[tuple[str, str]]], list[int]], prompt: Prompt, room: int) -> list[int] | Failure:
    """The ids of ``prompt``, which leave its answer space in a context of ``room`` tokens."""
    try:
        ids = encode(prompt.turns)
    except DataError as refused:  # a template may refuse roles, or their order
        return Failure(reason=str(refused))
    if not ids or len(ids) + prompt.max_tokens > room:
        asked = f"prompt of {len(ids)} tokens and answer of {prompt.max_tokens}"
        return Failure(reason=f"{asked} exceed the context of {room}" if ids else "the prompt has no tokens")
    return ids
