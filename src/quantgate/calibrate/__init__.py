"""Calibration: the samples that quantization may see, from the user's traffic or from conversations of a caller."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.errors import DataError
from quantgate.models import OpenedModel
from quantgate.records import Record, digest_of

Turns = tuple[tuple[str, str], ...]  # (role, content), may end with an assistant turn
ROLES = ("system", "user", "assistant", "tool")


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


def json_lines(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    """``("traffic.jsonl, line 3", value)`` for every line of a JSONL file that is not blank.

    ``key`` is where the user named the file. Raises DataError for a file that cannot be read, and for the first line
    that is not JSON; NaN and Infinity are not JSON.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors put a byte order mark in front
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name an existing one under {key}") from None
    except UnicodeDecodeError as broken:
        raise DataError(f"{path}: not UTF-8 text near byte {broken.start}; save it as UTF-8") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}); name a JSONL file under {key}") from None
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON text may hold other line separators
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _json(line, where)


def _json(line: str, where: str) -> Any:
    def refuse(name: str) -> None:
        raise DataError(f"{where}: {name} is not JSON; mend or remove the line")

    try:
        value = json.loads(line, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as broken:
        what = f"not valid JSON ({broken.msg}, column {broken.colno})"
        raise DataError(f"{where}: {what}; mend or remove the line") from None
    except UnicodeEncodeError:
        raise DataError(f"{where}: holds half of a character (a lone surrogate); mend or remove the line") from None
    return value


def read_traffic(path: Path) -> list[Turns]:
    """Conversations of a JSONL file: ``{"messages": [{"role", "content"}, ...]}`` or ``{"prompt", "completion"?}``.

    Raises DataError naming the first broken line by its number.
    """
    found = [_turns(row, where) for where, row in json_lines(path, "calibration: traffic")]
    if not found:
        raise DataError(f"{path}: holds no conversation; expected one JSON object per line")
    return found


def _turns(row: Any, where: str) -> Turns:
    if isinstance(row, dict) and isinstance(row.get("prompt"), str):
        answer = row.get("completion")
        if answer is not None and not isinstance(answer, str):
            raise DataError(f"{where}: 'completion' is not text; mend or remove the line")
        return (("user", row["prompt"]), *([] if answer is None else [("assistant", answer)]))
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: expected 'messages' (a list) or 'prompt' (text); mend or remove the line")
    turns = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES or not isinstance(content, str):
            raise DataError(f"{where}: every message needs a role ({', '.join(ROLES)}) and text as content")
        turns.append((role, content))
    if turns[0][0] == "assistant":
        raise DataError(f"{where}: begins with an answer, so nothing was asked; mend or remove the line")
    return tuple(turns)


def choose(
    model: OpenedModel, conversations: Sequence[Turns], *, source: str, samples: int, max_tokens: int, seed: int
) -> Chosen:
    """A seeded choice of ``samples`` conversations, rendered with the model's chat template and cut to ``max_tokens``
    or to what the model's context holds.

    Fewer conversations than asked for are all used; the record says how many were asked.
    """
    drawn = random.Random(f"calibrate/{seed}").sample(range(len(conversations)), min(samples, len(conversations)))
    turns = [conversations[index] for index in sorted(drawn)]
    ids = [_ids(model, one) for one in turns]
    limit = min(max_tokens, model.context)
    record = CalibrationSet(
        source=source,
        samples=tuple(digest_of(one) for one in turns),
        tokens=sum(min(len(one), limit) for one in ids),
        cut=sum(len(one) > limit for one in ids),
        asked=samples,
    )
    return Chosen(record, turns, [one[:limit] for one in ids])


def _ids(model: OpenedModel, turns: Turns) -> list[int]:
    """The whole conversation, answers included: quantization must see activations of answers too."""
    asked = turns[:-1] if turns[-1][0] == "assistant" else turns
    ids = model.encode([{"role": role, "content": content} for role, content in asked])
    if len(asked) < len(turns):
        ids += model.tokenizer.encode(turns[-1][1], add_special_tokens=False)
    return ids
