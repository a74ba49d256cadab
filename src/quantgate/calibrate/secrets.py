"""Secrets and personal data in text: found by the forms and check digits of their kinds, and masked in kind.

Names of people, street addresses and secrets without a form of their own are not found.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from quantgate.calibrate.kinds import KINDS, VENDORS, Kind

SHORTEST = len("1.2.3.4")  # of all that is found
AGAIN = 8  # times that a text is looked through: a mask may join what stood beside it to a new find
ANY_KEY = re.compile("|".join(kept for kept, _ in VENDORS.values()))
DIGITS = re.compile(
    r"\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d"
)  # eight digits, close together


@dataclass(frozen=True)
class Find:
    kind: Kind
    start: int  # of the secret itself, behind the prefix that is kept
    end: int


def find(text: str) -> list[Find]:
    """What ``text`` holds, from left to right; where two finds overlap, the one of the kind that is named first.

    >>> [one.kind.name for one in find("Write to ann@acme.io or call +49 30 901820.")]
    ['e-mail address', 'phone number']
    >>> find("Write to ann@example.com; a sum of 4111111111111112 is no card.")
    []
    """
    found: list[Find] = []
    for one in _possible(text):
        for start, end in _spans(one, text):
            if not any(start < other.end and other.start < end for other in found):
                found.append(Find(one, start, end))
    return sorted(found, key=lambda one: one.start)


def _spans(kind: Kind, text: str) -> Iterator[tuple[int, int]]:
    """Where the secrets of a kind stand. A number is tried without the groups of digits that follow it, too: the
    pattern takes as many as it can, and "4111 1111 1111 1111 12" is a card and a twelve."""
    group = "secret" if "secret" in kind.pattern.groupindex else 0
    at = 0
    while match := kind.pattern.search(text, at):
        start, end = match.span(group)
        while not (kind.pattern.fullmatch(text, match.start(), end) or group) or not kind.valid(text[start:end]):
            shorter = max(text.rfind(" ", start, end), text.rfind("-", start, end))
            end = shorter if group == 0 and kind.hint == "" else -1
            if end <= start:
                break
        if end > start:
            yield start, end
        at = max(end, match.start() + 1)


def _possible(text: str) -> Iterator[Kind]:
    """The kinds whose pattern is worth a look: most texts hold no sign of any."""
    keys = digits = None
    for one in KINDS if len(text) >= SHORTEST else ():
        if one.hint:
            if one.hint in text:
                yield one
        elif one.name.endswith(" key"):
            keys = bool(ANY_KEY.search(text)) if keys is None else keys
            if keys:
                yield one
        else:
            digits = bool(DIGITS.search(text)) if digits is None else digits
            if digits:
                yield one


class Masker:
    """Masks of one conversation: a secret that occurs twice has one mask, so that an answer still repeats it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self.counts: Counter[str] = Counter()  # kind -> different secrets

    def text(self, text: str) -> str:
        """``text`` without what ``find`` finds."""
        for _ in range(AGAIN):
            found = find(text)
            if not found:
                return text
            parts, end = [], 0
            for one in found:
                parts += [text[end : one.start], self._mask(one.kind, text[one.start : one.end])]
                end = one.end
            text = "".join([*parts, text[end:]])
        for one in reversed(find(text)):  # masks that keep making finds: nothing of their kind is kept
            text = text[: one.start] + "*" * (one.end - one.start) + text[one.end :]
        return text

    def value(self, value: Any) -> Any:
        """Any JSON value with every text in it masked, names of keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(one) for key, one in value.items()}
        return [self.value(one) for one in value] if isinstance(value, list | tuple) else value

    def _mask(self, kind: Kind, secret: str) -> str:
        key = (kind.name, secret)
        if key not in self._known:
            self.counts[kind.name] += 1
            seed = f"{kind.name}/{self.counts[kind.name]}/{len(secret)}"
            self._known[key] = kind.mask(secret, random.Random(seed))
        return self._known[key]
