"""instructions: an answer keeps every instruction that a program can check, or it scores 0.

The reference is ``{"checks": [{"check": "words_exactly", "n": 3}, ...]}``. The score is strict, as the prompt-level
accuracy of IFEval (Zhou et al. 2023, arXiv:2311.07911, section 3.2): 1 only if all checks hold; ``because`` names those
that do not. A code fence around the whole answer does not count as part of it. A check says what is wrong, or nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from quantgate.evaluate.scorers import Score, Unscored

Check = Callable[[str, dict[str, Any]], str]  # answer, arguments -> what is wrong, "" if nothing is

FENCE = re.compile(r"\A\s*```[^\n`]*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
QUOTES = (('"', '"'), ("\u201c", "\u201d"))
BRACKETS = (("[", "]"), ("(", ")"), ("{", "}"), ("<", ">"), *QUOTES)
SEPARATED = {
    ",": re.compile(r"\s*,\s*"),
    ";": re.compile(r"\s*;\s*"),
    "-": re.compile(r"\s*[-\u2013\u2014]\s*"),
    "line": re.compile(r"\s*\n\s*"),
    "numbered": re.compile(r"\s*\n\s*"),
    "any": re.compile(r"\s*[,;\n]\s*|\s+[-\u2013\u2014]\s+|\s+"),
}
NUMBER = re.compile(r"(\d+)[.)]\s*")
NUMBER_AT_START = re.compile(r"^\s*\d+[.)]\s+", re.MULTILINE)
SENTENCE_END = re.compile(r"[.!?]+(?=[\"'\u201d\u2019)\]]*(?:\s|\Z))")


def words(text: str) -> list[str]:
    """The words of a text; ``don't`` and ``well-known`` are one word each.

    >>> words("It's a well-known fox.")
    ["It's", 'a', 'well-known', 'fox']
    """
    return WORD.findall(text)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def bare(text: str) -> str:
    """The answer without brackets or quotes around all of it."""
    text = text.strip()
    for left, right in BRACKETS:
        if len(text) > 1 and text.startswith(left) and text.endswith(right):
            return text[1:-1].strip()
    return text


def _found(text: str, part: str) -> bool:
    """Whether ``part`` stands in the text as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(part.casefold())}(?!\w)", text.casefold()) is not None


def _count(have: int, arguments: dict[str, Any], noun: str, relation: str) -> str:
    n = int(arguments["n"])
    right = {"exactly": have == n, "at least": have >= n, "at most": have <= n}[relation]
    return "" if right else f"{have} {noun} where {relation} {n} were asked"


def starts_with(text: str, arguments: dict[str, Any]) -> str:
    start = str(arguments["text"])
    right = re.match(re.escape(start.casefold()) + (r"(?!\w)" if start[-1:].isalnum() else ""), bare(text).casefold())
    return "" if right else f"does not start with '{start}'"


def ends_with(text: str, arguments: dict[str, Any]) -> str:
    """A word may be followed by a full stop; a mark must be the last character."""
    end = str(arguments["text"])
    tail = bare(text).casefold().rstrip(".!? " if end[-1:].isalnum() else " ")
    head = tail[: -len(end)] if tail.endswith(end.casefold()) else None
    right = head is not None and not (head[-1:].isalnum() and end[:1].isalnum())
    return "" if right else f"does not end with '{end}'"


def includes(text: str, arguments: dict[str, Any]) -> str:
    part, n = str(arguments["text"]), arguments.get("n")
    if n is not None:
        have = len(re.findall(rf"(?<!\w){re.escape(part.casefold())}(?!\w)", text.casefold()))
        return "" if have == n else f"'{part}' {have} times where {n} were asked"
    return "" if _found(text, part) else f"'{part}' is missing"


def excludes(text: str, arguments: dict[str, Any]) -> str:
    return f"'{arguments['text']}' was not to be used" if _found(text, str(arguments["text"])) else ""


def excludes_letter(text: str, arguments: dict[str, Any]) -> str:
    return f"the letter '{arguments['letter']}' was not to be used" if arguments["letter"] in text.casefold() else ""


def all_upper(text: str, arguments: dict[str, Any]) -> str:
    return "" if text.isupper() else "not all in capital letters"


def all_lower(text: str, arguments: dict[str, Any]) -> str:
    return "" if text.islower() else "not all in small letters"


def wrapped(text: str, arguments: dict[str, Any]) -> str:
    left, right = str(arguments["left"]), str(arguments["right"])
    if (left, right) == QUOTES[0]:
        return quoted(text, arguments)
    text = text.strip()
    inside = len(text) > len(left + right) and text.startswith(left) and text.endswith(right)
    return "" if inside else f"not between {left} and {right}"


def quoted(text: str, arguments: dict[str, Any]) -> str:
    text = text.strip()
    inside = len(text) > 2 and any(text.startswith(left) and text.endswith(right) for left, right in QUOTES)
    return "" if inside else "not in double quotes"


def split_items(text: str, separator: str) -> list[str] | str:
    """The items of a list in the form asked for, or what is wrong with the form."""
    split, text = SEPARATED[separator], bare(text)
    if separator == "any":
        text = NUMBER_AT_START.sub("", text)
    parts = [part.strip(" .\"'*`") for part in split.split(text)] if text else []
    if separator == "numbered":
        numbers = [NUMBER.match(part) for part in parts]
        if [match and match[1] for match in numbers] != [str(n) for n in range(1, len(parts) + 1)]:
            return "lines are not numbered 1. 2. 3."
        parts = [NUMBER.sub("", part, count=1) for part in parts]
    elif separator == "any":
        parts = [part for part in parts if part]
    return [part.strip(" .\"'*`") for part in parts]


def items(text: str, arguments: dict[str, Any]) -> str:
    """The answer is this list and nothing else; ``ordered`` unless false, ``case`` counts only if true."""
    want, separator = [str(item) for item in arguments["items"]], str(arguments.get("separator", "any"))
    have = split_items(text, separator)
    if isinstance(have, str):
        return have
    if not arguments.get("case", False):
        have, want = [item.casefold() for item in have], [item.casefold() for item in want]
    if not arguments.get("ordered", True):
        have, want = sorted(have), sorted(want)
    if have == want:
        return ""
    named = {"any": "", "line": " one per line", "numbered": " numbered, one per line"}
    how = named.get(separator, f" separated by '{separator}'")
    return f"not the items {', '.join(want)}{how}"


def json_valid(text: str, arguments: dict[str, Any]) -> str:
    try:
        json.loads(text)
    except ValueError:
        return "not valid JSON"
    return ""


CHECKS: dict[str, Check] = {
    "words_exactly": lambda text, given: _count(len(words(text)), given, "words", "exactly"),
    "words_at_least": lambda text, given: _count(len(words(text)), given, "words", "at least"),
    "words_at_most": lambda text, given: _count(len(words(text)), given, "words", "at most"),
    "lines_exactly": lambda text, given: _count(len(lines(text)), given, "lines", "exactly"),
    "sentences_exactly": lambda text, given: _count(sentences(text), given, "sentences", "exactly"),
    "bullets": lambda text, given: _count(bullets(text), given, "bullets", "exactly"),
    "starts_with": starts_with,
    "ends_with": ends_with,
    "includes": includes,
    "excludes": excludes,
    "excludes_letter": excludes_letter,
    "all_upper": all_upper,
    "all_lower": all_lower,
    "wrapped": wrapped,
    "quoted": quoted,
    "items": items,
    "no_commas": lambda text, given: "a comma was not to be used" if "," in text else "",
    "json_valid": json_valid,
}


def sentences(text: str) -> int:
    """Sentences by their end marks; a last one without a mark counts.

    >>> sentences('He said: "Stop!" Then 3.5 seconds passed')
    2
    """
    parts = [part for part in SENTENCE_END.split(text) if words(part)]
    return len(parts)


def bullets(text: str) -> int:
    return sum(bool(re.match(r"[-*\u2022+]\s+\S", line)) for line in lines(text))


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when all checks hold; 0 otherwise, with the checks that do not; a bad reference is unscored.

    >>> score("PEAR; FIG", {"checks": [{"check": "items", "items": ["pear", "fig"], "separator": ";"}]}).value
    1.0
    >>> score("Pear", {"checks": [{"check": "all_upper"}, {"check": "words_exactly", "n": 2}]}).because
    'all_upper: not all in capital letters; words_exactly: 1 words where exactly 2 were asked'
    """
    checks = reference.get("checks") if isinstance(reference, dict) else None
    if not isinstance(checks, list) or not checks:
        return Unscored(reason="instructions: the reference needs a list 'checks' with at least one check")
    fenced = FENCE.match(answer)
    text = (fenced[1] if fenced else answer).strip()
    failed = []
    for one in checks:
        name = one.get("check") if isinstance(one, dict) else None
        if name not in CHECKS:
            return Unscored(reason=f"instructions: unknown check '{name}'; known: {', '.join(CHECKS)}")
        try:
            wrong = CHECKS[name](text, one)
        except (KeyError, TypeError, ValueError) as broken:
            return Unscored(reason=f"instructions: check '{name}' has a bad argument ({broken!r})")
        if wrong:
            failed.append(f"{name}: {wrong}")
    if not text:
        return Score(value=0.0, because="the answer is empty")
    return Score(value=0.0 if failed else 1.0, answer=text, because="; ".join(failed))


SCORER = score
