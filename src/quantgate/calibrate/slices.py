"""Slices: what a conversation is a sample of, by names that a requirement can use.

``length=128..255`` (tokens by the model's tokenizer, buckets that double), ``json`` and ``json=schema | object | asked
| answered``, ``tools``, ``tool_calls`` and ``tool=NAME``, ``language=de``, ``code``, ``noisy``, ``jargon``,
``refuses``, ``asks`` and ``abstains`` (of answers), ``multi_turn``, ``system``. Every conversation has a length and a
language; the rest it may have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from quantgate.calibrate.conversation import Conversation, spoken
from quantgate.calibrate.jargon import Jargon
from quantgate.calibrate.language import language_of
from quantgate.calibrate.noise import is_noisy
from quantgate.errors import UsageError, hint
from quantgate.manner import abstains, classify

SHORTEST = 128  # tokens of the first bucket's end
READ = 20_000  # characters of a text that are looked at for signs


@dataclass(frozen=True)
class Wanted:
    """A slice that any product may need: what it is, and what to add where the traffic has none."""

    about: str
    add: str


CATALOGUE = {
    "system": Wanted("a system prompt", "conversations with the system prompt that the product sends"),
    "multi_turn": Wanted("two questions or more", "conversations of several turns, answers included"),
    "tools": Wanted("tools are offered", "requests with the 'tools' that the product offers"),
    "tool_calls": Wanted("an answer calls a tool", "whole exchanges in which a tool was called"),
    "json": Wanted("a structured answer", "requests with response_format, or that ask for JSON"),
    "code": Wanted("code", "questions about code, or answers that hold some"),
    "noisy": Wanted("slips and chat spelling", "messages as people type them, uncorrected"),
    "jargon": Wanted("words of a domain", "conversations about the product's own subject, in its own words"),
    "refuses": Wanted("an answer refuses", "whole exchanges in which the answer refuses"),
    "asks": Wanted("an answer asks back", "whole exchanges in which the answer asks for what is missing"),
    "abstains": Wanted(
        "an answer says it does not know, or no tool fits",
        "whole exchanges in which the answer owns that it does not know, or leaves the offered tools alone",
    ),
}
PREFIXES = ("length", "json", "tool", "language")
AT_LEAST = re.compile(r"length>=(\d+)")
ASKED_JSON = re.compile(
    r"\b(?:in|as|valid|return|respond|reply|answer|output|only|format|a|strict)\b[^.\n]{0,40}\bjson\b|"
    r"\bjson\b[^.\n]{0,40}\b(?:object|schema|format|array|only|response|output)\b",
    re.IGNORECASE,
)
STRONG = re.compile(  # one of these is code
    r"```|^[ \t]*(?:async )?def \w+\(.*\).*:|^[ \t]*class \w+(?:\(.*\))?:[ \t]*$|^#include *[<\"]|"
    r"^[ \t]*from [\w.]+ import [\w*(]|^[ \t]*import [\w.]+(?: as \w+)?;?[ \t]*$|"
    r"\bfunction\b ?\w*\([^)]*\)\s*\{|\) *=> *[{(]|^[ \t]*(?:const|let|var) \w+ *=|"
    r"^[ \t]*(?:public|private|static) \w+ .*[{;]|"
    r"^(?:func|fn) \w+\(.*\{[ \t]*$|</(?:div|span|html|body|table|script|ul)>",
    re.MULTILINE,
)
WEAK = tuple(  # two of these are
    re.compile(one, re.MULTILINE)
    for one in (
        r"\b(?:select|SELECT)\b[^.?!]{1,80}\b(?:from|FROM)\b\s+\w+(?:\s+(?:where|WHERE|join|JOIN|GROUP)\b|\s*;)",
        r"^[ \t]+return\b.*$",
        r"^[ \t]*(?:if|for|while|elif|try|else|with|except)\b.*[:{][ \t]*$",
        r"^[ \t]*[\w.\[\]]+(?: *, *\w+)* *[-+*/|&]?= *[^=\s].*$",
        r"^[ \t]*(?:assert|raise|print|yield|del)\b *[(\w]",
        r"^[ \t]*[\w.]+\([^)\n]*\);?[ \t]*$",
        r"^\$ \w+|^[ \t]*(?:pip|npm|git|docker|kubectl|curl|sudo) [\w-]+",
        r"\bfor \w+ in \w+[^.\n]*[\])]|\blambda \w+:",
    )
)


def slices_of(conversation: Conversation, tokens: int, jargon: Jargon) -> tuple[str, ...]:
    """The slices of one conversation of that many tokens, each once."""
    users = [one["content"] for one in conversation.messages if one["role"] == "user"]
    said = "\n".join(users)
    everything = "\n".join(spoken(one) for one in conversation.messages if one["role"] != "system")
    language = language_of(said)
    found = [bucket_of(tokens), f"language={language if language != 'unknown' else language_of(everything)}"]
    found += ["system"] if any(one["role"] == "system" for one in conversation.messages) else []
    found += ["multi_turn"] if len(users) > 1 else []
    found += _structure(conversation, said)
    found += ["code"] if is_code(everything) else []
    found += ["noisy"] if is_noisy(said) else []
    found += ["jargon"] if jargon.is_jargon(everything) else []
    return (*found, *_manner(conversation))


def bucket_of(tokens: int) -> str:
    """
    >>> bucket_of(5), bucket_of(128), bucket_of(3000)
    ('length=1..127', 'length=128..255', 'length=2048..4095')
    """
    low = 1 if tokens < SHORTEST else 1 << (tokens.bit_length() - 1)
    return f"length={low}..{SHORTEST - 1 if low == 1 else 2 * low - 1}"


def lower_end(name: str) -> int:
    """The fewest tokens of a bucket; 0 for what is no bucket."""
    return int(name.removeprefix("length=").partition("..")[0]) if name.startswith("length=") else 0


def is_code(text: str) -> bool:
    """A fenced block, a definition or an import, or two weaker signs of a programming language."""
    text = text[:READ].replace("\r\n", "\n")
    return bool(STRONG.search(text)) or sum(bool(one.search(text)) for one in WEAK) >= 2


def _structure(conversation: Conversation, said: str) -> list[str]:
    found = []
    if conversation.functions:
        found.append("tools")
        found += [f"tool={name}" for name in conversation.functions]
    if any("tool_calls" in one for one in conversation.messages):
        found.append("tool_calls")
    kinds = []
    if conversation.response_format is not None:
        kinds.append("json=schema" if "schema" in conversation.response_format["type"] else "json=object")
    if ASKED_JSON.search(said[:READ]):
        kinds.append("json=asked")
    if conversation.answer is not None and _is_json(conversation.answer["content"]):
        kinds.append("json=answered")
    return found + (["json", *kinds] if kinds else [])


def _is_json(text: str) -> bool:
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")) and not (text.startswith("[") and text.endswith("]")):
        return False
    try:
        return isinstance(json.loads(text), dict | list)
    except (json.JSONDecodeError, RecursionError):
        return False


def _manner(conversation: Conversation) -> list[str]:
    """How the answers take the requests; an answer without a call where tools are offered leaves them alone."""
    found = []
    for one in conversation.messages:
        if one["role"] != "assistant" or "tool_calls" in one:
            continue
        manner = classify(one["content"])
        found += [{"refuse": "refuses", "ask": "asks"}[manner]] if manner in ("refuse", "ask") else []
        before = [other["role"] for other in conversation.messages]
        unused = bool(conversation.tools) and manner != "ask" and "tool" not in before
        found += ["abstains"] if unused or abstains(one["content"]) else []
    return list(dict.fromkeys(found))


def check_requirement(name: str) -> str:
    """``name`` where it can be asked for. Raises UsageError with the nearest known name.

    >>> check_requirement("length>=2048"), check_requirement("language=de")
    ('length>=2048', 'language=de')
    """
    known = [*CATALOGUE, *(f"{one}=..." for one in PREFIXES), "length>=2048"]
    prefix, equals, rest = name.partition("=")
    if name in CATALOGUE or AT_LEAST.fullmatch(name) or (equals and rest and prefix in PREFIXES):
        return name
    raise UsageError(f"'{name}' is no slice of traffic; {hint(name, known)}")


def count_of(name: str, counts: Mapping[str, int], lengths: Mapping[int, int]) -> int:
    """How many of the conversations whose slices and lengths were counted meet ``name``."""
    at_least = AT_LEAST.fullmatch(name)
    if at_least is None:
        return counts.get(name, 0)
    return sum(count for tokens, count in lengths.items() if tokens >= int(at_least[1]))
