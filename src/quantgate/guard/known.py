"""What a guard knows of a message. Where something must be held back, keys that nobody looks into do not leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAID = frozenset({"role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls", "function_call"})
CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
"""Keys that a guard reads, or that hold no words."""
TOKENS = ("content", "refusal", "reasoning", "reasoning_content")  # lists of logprobs
MOST, LEAST = 512, -100.0  # tokens whose mean is taken; nats that stand for "never", of which servers say -9999


def known(said: dict[str, Any], keys: frozenset[str] = SAID) -> dict[str, Any]:
    """Without keys that hold something and that no guard looks into; the same object where there are none.

    >>> known({"content": "a", "audio": {"transcript": "b"}, "stop_reason": 2})
    {'content': 'a', 'stop_reason': 2}
    """
    if said.keys() <= keys:
        return said
    return {key: value for key, value in said.items() if key in keys or isinstance(value, int | float | None)}


def logprobs_of(told: Any) -> Mapping[str, Any] | None:
    """Log probabilities in the form of OpenAI's, the same object; None for anything else.

    >>> logprobs_of({"content": [{"token": "a"}]}) is None
    True
    """
    if not isinstance(told, Mapping):
        return None
    rows = [row for key in TOKENS for row in _rows(told.get(key))]
    return told if all(_row(row) and all(map(_row, _rows(row.get("top_logprobs")))) for row in rows) else None


def mean_logprob(told: Any) -> float | None:
    """Of the first ``MOST`` tokens of an answer's content, nats; None where nobody told.

    >>> mean_logprob({"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]})
    -1.0
    """
    rows = told.get("content") if isinstance(told, Mapping) else None
    found = [max(LEAST, row["logprob"]) for row in rows[:MOST] if _row(row)] if isinstance(rows, list) else []
    return sum(found) / len(found) if found else None


def _rows(told: Any) -> list[Any]:
    """``[None]``, which is no row, for what is no list."""
    return [] if told is None else told if isinstance(told, list) else [None]


def _row(row: Any) -> bool:
    return (
        isinstance(row, Mapping)
        and isinstance(row.get("token"), str)
        and isinstance(row.get("logprob"), int | float)
        and isinstance(row.get("bytes"), list | None)
    )
