"""The text that an exchange carries -> the Talk that marks are read from, and what it costs to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantgate.serve import Exchange
from quantgate.watch import Message, Talk

READ = 65_536  # characters of one text: half from its beginning, half from its end
TURNS = 16  # of a prompt, the newest
ANSWERS = 8
PARTS = 64  # of one content
CALLS = 32
TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
HEAD = 512  # bytes that a message counts for, beside its texts


def talk_of(exchange: Exchange) -> Talk:
    """Nothing in it is longer than ``READ`` or deeper than a message; what is no message is left out."""
    told = exchange.text or {}
    prompt, answers = _many(told.get("prompt"))[-TURNS:], _many(told.get("answer"))[:ANSWERS]
    logprob = told.get("logprob")
    return Talk(
        prompt=[message_of(one) for one in prompt if isinstance(one, Mapping)],
        answers=[message_of(one) for one in map(_message, answers) if one is not None],
        finish=exchange.finish,
        structured=exchange.structured,
        logprob=float(logprob) if isinstance(logprob, int | float) else None,
        tools=told.get("tools") is True,
        faulty=any(kind != "validator" for kind in exchange.faults),
    )


def _many(told: Any) -> Sequence[Any]:
    return told if isinstance(told, list | tuple) else ()


def _message(told: Any) -> Mapping[str, Any] | None:
    """An answer is a message, or the choice that one stands in."""
    if not isinstance(told, Mapping):
        return None
    if "message" not in told:
        return told
    inner = told["message"]
    return inner if isinstance(inner, Mapping) else None


def message_of(told: Mapping[str, Any]) -> Message:
    """Its role, texts and tool calls, cut to what is read."""
    found: dict[str, Any] = {"role": told.get("role")}
    for key in TEXTS:
        value = told.get(key)
        if isinstance(value, str):
            found[key] = ends(value)
        elif isinstance(value, list) and value:
            found[key] = [
                {"type": "text", "text": ends(part["text"])}
                for part in value[:PARTS]
                if isinstance(part, Mapping) and isinstance(part.get("text"), str)
            ]
    calls = told.get("tool_calls")
    if isinstance(calls, list) and calls:
        found["tool_calls"] = [_call(one) for one in calls[:CALLS] if isinstance(one, Mapping)]
    if told.get("audio"):
        found["audio"] = True
    return found


def _call(told: Mapping[str, Any]) -> Message:
    function = told.get("function")
    if not isinstance(function, Mapping):
        return {"function": {}}
    name, arguments = function.get("name"), function.get("arguments")
    return {
        "function": {
            "name": ends(name) if isinstance(name, str) else "",
            "arguments": ends(arguments) if isinstance(arguments, str) else None,
        }
    }


def ends(text: str) -> str:
    """
    >>> len(ends("a" * 200_000)), ends("short")
    (65537, 'short')
    """
    return text if len(text) <= READ else f"{text[: READ // 2]}\n{text[-READ // 2 :]}"


def cost_of(text: Mapping[str, Any]) -> int:
    """About how many bytes it holds. On the path of every request, so it looks no deeper than texts lie."""
    cost = 0
    for key in ("prompt", "answer"):
        told = text.get(key)
        if not isinstance(told, list):
            continue
        for message in told:
            cost += HEAD
            if isinstance(message, dict):
                content = message.get("content")
                cost += len(content) if isinstance(content, str) else size_of(message)
    return cost


def size_of(told: Any, depth: int = 6) -> int:
    """Characters of all texts in it, down to ``depth``: images as data, tool calls, choices."""
    if isinstance(told, str):
        return len(told)
    if not depth or not isinstance(told, dict | list):
        return 8
    return sum(size_of(one, depth - 1) for one in (told.values() if isinstance(told, dict) else told))
