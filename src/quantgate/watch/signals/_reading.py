"""What several signals read of an exchange or a talk, and how lengths are put into bands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantgate.serve import Exchange
from quantgate.watch import Message, Talk, plain

BANDS = (128, 512, 2048, 8192)  # tokens; few and wide, so that each has enough of the control's to be held against
LONGEST_S = 1e6
TEXTS = ("content", "reasoning_content", "reasoning")


def whole(exchange: Exchange) -> bool:
    """Whether an answer left from its beginning to its end."""
    return exchange.status == 200 and not exchange.error and not exchange.disconnected


def own(exchange: Exchange) -> bool:
    """Whether it left whole, and is the variant's own first one: nobody was asked again."""
    asked_once = exchange.step in ("passed", "repaired") and exchange.answered_by in ("", exchange.variant)
    return whole(exchange) and asked_once


def refused(exchange: Exchange) -> float | None:
    """1.0 where the guard refused the variant's answer at first, also where it was mended; None: no guard saw one."""
    if not (exchange.step or exchange.faults):
        return None
    return float(bool(exchange.faults) or exchange.step in ("repaired", "corrected", "escalated", "failed"))


def band(tokens: int | None) -> str:
    """The upper end of the band that a count of tokens lies in.

    >>> [band(one) for one in (None, 0, 128, 129, 10**6)]
    ['untold', '128', '128', '512', 'more']
    """
    if tokens is None:
        return "untold"
    return next((str(most) for most in BANDS if tokens <= most), "more")


def prompt_band(exchange: Exchange) -> str:
    return band(exchange.prompt_tokens)


def both_bands(exchange: Exchange) -> str:
    """Of prompt and answer: a variant that writes longer answers is not slower for it."""
    return f"{band(exchange.prompt_tokens)}/{band(exchange.answer_tokens)}"


def form(exchange: Exchange) -> str:
    return "structured" if exchange.structured else "text"


def seconds(told: float | None) -> float | None:
    """A time that can be one; a clock that jumped, or a record from elsewhere, may hold others.

    >>> [seconds(one) for one in (0.5, -0.1, float("nan"), float("inf"), None)]
    [0.5, None, None, None, None]
    """
    return told if told is not None and 0 <= told < LONGEST_S else None


def calls_of(message: Message) -> list[Mapping[str, Any]]:
    """The tool calls of a message; what is none is left out."""
    told = message.get("tool_calls")
    return [one for one in told if isinstance(one, Mapping)] if isinstance(told, list) else []


def function_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    told = call.get("function")
    return told if isinstance(told, Mapping) else {}


def written(talk: Talk) -> Iterator[str]:
    """Every text that the answers hold: content, reasoning and arguments of tools; none that is empty."""
    for message in talk.answers:
        found = [plain(message.get(key)) for key in TEXTS]
        found += [plain(function_of(call).get("arguments")) for call in calls_of(message)]
        yield from (text for text in found if text)


def silent(message: Message) -> bool:
    """Whether a message says nothing and calls nothing: blanks are nothing, a refusal is something."""
    said = plain(message.get("content")) or plain(message.get("refusal"))
    return not said.strip(BLANKS) and not message.get("tool_calls") and not message.get("audio")


BLANKS = " \t\n\r\f\v\u00a0\u200b\u200c\u200d\u2060\u3000\ufeff"
