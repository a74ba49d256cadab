"""Tokenizer and chat template of a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantgate.errors import DataError, ModelError
from quantgate.records import digest_file, digest_of

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def tokenizer_digest(folder: Path) -> str:
    """Digest over the names and bytes of the tokenizer files."""
    return digest_of([[file.name, digest_file(file)] for file in tokenizer_files(folder)])


def open_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer for the folder, without running code from it. Raises ModelError."""
    from transformers import AutoTokenizer

    if not tokenizer_files(folder):
        raise ModelError(f"{folder}: no tokenizer files; expected tokenizer.json beside config.json")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError) as problem:
        first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise ModelError(f"{folder}: the tokenizer cannot be opened ({first[:160]}); check tokenizer.json") from None


def render(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    where: Path,
    *,
    plain: bool = False,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """A chat as the one string that the model was trained on, ending where its answer begins.

    ``tools`` are functions in the form that templates take, see ``models.tools``.

    ``plain`` is for base models: the contents joined by newlines, when the tokenizer has no chat template. Without it a
    missing template raises ModelError, because a guessed template is a quiet loss of quality. A template that refuses
    the conversation (a role it does not know, turns out of order) raises DataError.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        if plain:
            return "\n".join(message["content"] for message in messages) + "\n"
        raise ModelError(
            f"{where}: the tokenizer has no chat template; add 'chat_template' to tokenizer_config.json, "
            "or ask for plain text if this is a base model"
        )
    chat = [dict(message) for message in messages]
    try:
        offered = {"tools": list(tools)} if tools else {}
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **offered))
    except TemplateError as refused:
        turns = ", ".join(message["role"] for message in chat)
        raise DataError(f"{where}: the chat template refuses the conversation ({turns}): {refused}") from None
