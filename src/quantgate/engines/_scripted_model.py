"""What the scripted server says when it tells the truth: replies, chunks, and log probabilities known by hand.

Tokens of an answer are words with the white space behind them. Of given text they are characters, and the model that
weighs them counts: behind any character the next one of Unicode has half of the probability, all others share the rest.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LIKELY = math.log(0.5)
UNLIKELY = math.log(0.5 / 255)


@dataclass(frozen=True)
class Says:
    """One answer: what is said, which tools are called, and how it ends ("": stop, tool_calls or length)."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()  # (name, arguments as JSON text)
    refusal: str = ""
    finish: str = ""


@dataclass(frozen=True)
class Made:
    """An answer within its budget, ready to be sent."""

    pieces: tuple[str, ...]
    says: Says
    finish: str
    usage: dict[str, int]


def make(says: Says, body: Mapping[str, Any]) -> Made:
    """Cut an answer to the budget that the request names and before its earliest stop text, and count it."""
    pieces = words(says.text)
    budget = int(body.get("max_tokens") or body.get("max_completion_tokens") or len(pieces))
    kept = pieces[:budget]
    finish = says.finish or ("length" if len(kept) < len(pieces) else "tool_calls" if says.calls else "stop")
    asked = body.get("stop") or ()
    stops = [one for one in ([asked] if isinstance(asked, str) else asked) if one]
    text = "".join(kept)
    if found := [text.index(one) for one in stops if one in text]:
        kept, finish = words(text[: min(found)]), says.finish or "stop"
    read = len(asked_text(body)) + (len(json.dumps(body["tools"])) if body.get("tools") else 0)
    written = len(kept) + len(says.calls)
    return Made(
        kept, says, finish, {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    )


def words(text: str) -> tuple[str, ...]:
    """
    >>> words("Two and  two.")
    ('Two ', 'and  ', 'two.')
    """
    return tuple(re.findall(r"\s*\S+\s*|\s+", text)) if text.strip() else tuple([text] if text else [])


def asked_text(body: Mapping[str, Any]) -> str:
    """The whole prompt of a request, chat or plain, as one text."""
    if "messages" in body:
        return rendered(body["messages"])
    return str(body.get("prompt", ""))


def rendered(messages: list[dict[str, Any]], *, answer: bool = True) -> str:
    """The scripted chat template; with ``answer`` ready to be answered, else ending with the last turn's content."""
    turns = [f"<{one['role']}>{one.get('content') or ''}" for one in messages]
    return "\n".join([*turns, "<assistant>"] if answer else turns)


def message_of(made: Made) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(made.pieces) or None}
    if made.says.refusal:
        message["refusal"] = made.says.refusal
    if made.says.calls:
        message["tool_calls"] = [call_of(at, *call) for at, call in enumerate(made.says.calls)]
    return message


def call_of(at: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{at}", "type": "function", "index": at, "function": {"name": name, "arguments": arguments}}


def deltas(made: Made) -> Iterator[dict[str, Any]]:
    """The chunks' deltas, a token each; a call comes with its name first and its arguments in halves."""
    yield {"role": "assistant", "content": ""}
    for piece in made.pieces:
        yield {"content": piece}
    if made.says.refusal:
        yield {"refusal": made.says.refusal}
    for at, (name, arguments) in enumerate(made.says.calls):
        half = len(arguments) // 2
        yield {"tool_calls": [call_of(at, name, "")]}
        yield {"tool_calls": [{"index": at, "function": {"arguments": arguments[:half]}}]}
        yield {"tool_calls": [{"index": at, "function": {"arguments": arguments[half:]}}]}


def follower(character: str) -> str:
    return chr(ord(character) + 1)


def row(before: str, top: int) -> dict[str, float]:
    """The ``top`` likeliest characters behind ``before``."""
    others = [chr(code) for code in range(0x21, 0x21 + top) if chr(code) != follower(before)]
    return {follower(before): LIKELY} | dict.fromkeys(others[: max(top - 1, 0)], UNLIKELY)


def logprob(before: str, character: str) -> float:
    return LIKELY if character == follower(before) else UNLIKELY


def echoed(text: str, top: int) -> dict[str, Any]:
    """``logprobs`` of a completion that echoes ``text`` and counts one character on."""
    whole = text + follower(text[-1])
    pairs = list(itertools.pairwise(whole))
    return {
        "tokens": list(whole),
        "token_logprobs": [None, *(logprob(*pair) for pair in pairs)],
        "top_logprobs": [None, *(row(before, top) for before, _ in pairs)],
        "text_offset": list(range(len(whole))),
    }


def prompt_rows(text: str, top: int) -> list[dict[str, Any] | None]:
    """vLLM's ``prompt_logprobs`` of a text: the character that stands there first, then the likeliest ones."""
    rows: list[dict[str, Any] | None] = [None]
    for before, here in itertools.pairwise(text):
        told = {here: logprob(before, here)} | row(before, top)
        rows.append(
            {
                str(ord(token)): {"logprob": value, "rank": at, "decoded_token": token}
                for at, (token, value) in enumerate(told.items(), 1)
            }
        )
    return rows


def sse(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"
