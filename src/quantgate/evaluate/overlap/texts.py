"""What of a conversation can overlap: the words of its user, without what many conversations have in common."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from quantgate.calibrate import Turns

ALONE = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # scripts without spaces between words
WORD = re.compile(f"[{ALONE}]|[^\\W_{ALONE}]+")
TEMPLATE_CASES = 3  # text that so many cases of one suite share is the suite's, not a case's ...
TEMPLATE_SHARE = 0.01  # ... or that so large a share of them does, whichever is more
TEMPLATE_SAMPLES = 20  # the same of traffic: more, because there a case may have been pasted again and again
TEMPLATE_SAMPLES_SHARE = 0.05


@dataclass(frozen=True)
class Sample:
    """One conversation that quantization may see; ``number`` counts from 1, ``tools`` as chat requests offer them."""

    number: int
    turns: Turns
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Unit:
    """One thing that was asked, and the answer it was given."""

    text: str  # without the traffic's template
    answer: str | None
    raw: str


def normal(text: str) -> str:
    """NFKC, case folded, single spaces: what is left is what a reader would call the same text.

    >>> normal(" IS it\\topen\uff1f")
    'is it open?'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """Words of a text that is ``normal``; of scripts without spaces, single characters.

    >>> words("it's 5 pm: 三匹")
    ['it', 's', '5', 'pm', '三', '匹']
    """
    return WORD.findall(text)


def units(turns: Turns, drop: frozenset[str] = frozenset()) -> list[Unit]:
    """Every user turn with the answer behind it and, of several, all of them together with the last answer.

    System prompts, tool lists and tools' results are no user's words. Lines among ``drop`` are left out.
    """
    found = []
    for at, (role, content) in enumerate(turns):
        if role == "user":
            answer = turns[at + 1][1] if at + 1 < len(turns) and turns[at + 1][0] == "assistant" else None
            found.append(Unit(without(content, drop), answer, content))
    if len(found) > 1:
        text, raw = ("\n".join(getattr(one, name) for one in found) for name in ("text", "raw"))
        found.append(Unit(text, found[-1].answer, raw))
    return found


def without(text: str, drop: frozenset[str]) -> str:
    """``text`` less its lines among ``drop``; all of it, if nothing else would be left."""
    if not drop:
        return text
    kept = "\n".join(line for line in text.split("\n") if normal(line) not in drop)
    return kept if kept.strip() else text


def shared_lines(texts: Iterable[str], cut: int) -> frozenset[str]:
    """Lines that occur in at least ``cut`` different texts."""
    seen = Counter[str]()
    for text in {normal(one): one for one in texts}.values():
        seen.update({normal(line) for line in text.split("\n")})
    return frozenset(line for line, count in seen.items() if line and count >= cut)


def case_cut(cases: int) -> int:
    """How many of a suite's cases must share a text for it to be the suite's template."""
    return max(TEMPLATE_CASES, math.ceil(TEMPLATE_SHARE * cases))


def traffic_template(samples: Sequence[Sample]) -> frozenset[str]:
    """Lines that users of this traffic send again and again: preambles, few-shot examples, instructions."""
    cut = max(TEMPLATE_SAMPLES, math.ceil(TEMPLATE_SAMPLES_SHARE * len(samples)))
    return shared_lines((content for one in samples for role, content in one.turns if role == "user"), cut)


def shown(text: str, limit: int = 60) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
