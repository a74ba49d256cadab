"""Traffic as it is logged, one conversation per line: what was said, and which tools were offered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantgate.calibrate import json_lines
from quantgate.errors import DataError
from quantgate.evaluate.overlap.texts import Sample


def read_samples(path: Path) -> Iterator[Sample]:
    """``{"messages": [...], "tools": [...]?}``, ``{"prompt", "completion"?}`` or ``{"question", "answer"?}`` per line.

    Contents may be text, nothing, or a list of parts of which the text ones are read. Raises DataError naming the first
    line that is none of these, and for a file without a conversation.
    """
    number = 0
    for where, row in json_lines(path, "the traffic to be checked"):
        number += 1
        yield _sample(row, number, where)
    if not number:
        raise DataError(f"{path}: holds no conversation; expected one JSON object per line")


def _sample(row: Any, number: int, where: str) -> Sample:
    if isinstance(row, dict):
        for asked, answered in (("prompt", "completion"), ("question", "answer")):
            if isinstance(row.get(asked), str):
                answer = row.get(answered)
                told = [("assistant", answer)] if isinstance(answer, str) else []
                return Sample(number, (("user", row[asked]), *told))
        messages = row.get("messages")
        if isinstance(messages, list) and messages and all(isinstance(one, dict) for one in messages):
            turns = tuple((str(one.get("role")), _text(one.get("content"))) for one in messages)
            tools = row.get("tools")
            return Sample(number, turns, tuple(tools) if isinstance(tools, list) else ())
    raise DataError(f"{where}: expected 'messages' (a list), 'prompt' or 'question' (text); mend or remove the line")


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(one["text"]) for one in content if isinstance(one, dict) and "text" in one)
    return content if isinstance(content, str) else ""
