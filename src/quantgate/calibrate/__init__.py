"""Calibration: the samples that quantization may see, from the user's traffic or from conversations given by a caller."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.errors import DataError
from quantgate.models import OpenedModel
from quantgate.records import Record, digest_of

Turns = tuple[tuple[str, str], ...]  # (role, content), may end with an assistant turn


class CalibrationSet(Record):
    """What was chosen: one digest per sample, over its turns, in the order used."""

    source: str
    samples: tuple[str, ...]
    tokens: int
    cut: int  # samples shortened to the token limit
    asked: int  # samples asked for


@dataclass(frozen=True)
class Chosen:
    record: CalibrationSet
    turns: list[Turns]
    ids: list[list[int]]


def read_traffic(path: Path) -> list[Turns]:
    """Conversations of a JSONL file: ``{"messages": [{"role", "content"}, ...]}`` or ``{"prompt", "completion"?}``.

    Raises DataError naming the first broken line by its number.
    """
    found: list[Turns] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    found.append(_turns(line, f"{path}, line {number}"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such traffic file; name an existing one under calibration: traffic") from None
    except UnicodeDecodeError as broken:
        raise DataError(f"{path}: not UTF-8 text near byte {broken.start}; save it as UTF-8") from None
    if not found:
        raise DataError(f"{path}: holds no conversation; expected one JSON object per line")
    return found


def _turns(line: str, where: str) -> Turns:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as broken:
        raise DataError(f"{where}: not valid JSON ({broken.msg} at column {broken.colno}); mend or remove the line") from None
    if isinstance(row, dict) and isinstance(row.get("prompt"), str):
        answer = row.get("completion")
        return (("user", row["prompt"]), *([("assistant", answer)] if isinstance(answer, str) else []))
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: expected 'messages' (a list) or 'prompt' (text); mend or remove the line")
    turns = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ("system", "user", "assistant", "tool") or not isinstance(content, str):
            raise DataError(f"{where}: every message needs a role (system, user, assistant, tool) and text as content")
        turns.append((role, content))
    return tuple(turns)


def choose(
    model: OpenedModel, conversations: Sequence[Turns], *, source: str, samples: int, max_tokens: int, seed: int
) -> Chosen:
    """A seeded choice of ``samples`` conversations, rendered with the model's chat template and cut to ``max_tokens``.

    Fewer conversations than asked for are all used; the record says how many were asked.
    """
    order = sorted(range(len(conversations)), key=lambda index: digest_of([seed, index, conversations[index]]))
    random.Random(seed).shuffle(order)
    turns = [conversations[index] for index in sorted(order[:samples])]
    ids = [_ids(model, one) for one in turns]
    record = CalibrationSet(
        source=source,
        samples=tuple(digest_of(one) for one in turns),
        tokens=sum(min(len(one), max_tokens) for one in ids),
        cut=sum(len(one) > max_tokens for one in ids),
        asked=samples,
    )
    return Chosen(record, turns, [one[:max_tokens] for one in ids])


def _ids(model: OpenedModel, turns: Turns) -> list[int]:
    """The whole conversation, answers included: quantization must see activations of answers too."""
    asked = turns[:-1] if turns[-1][0] == "assistant" else turns
    ids = model.encode([{"role": role, "content": content} for role, content in asked])
    if len(asked) < len(turns):
        ids += model.tokenizer.encode(turns[-1][1], add_special_tokens=False)
    return ids
