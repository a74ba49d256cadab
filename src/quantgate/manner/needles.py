"""What stands in every text that a pattern matches, read from the pattern: looking for that first is far cheaper.

As RE2's prefilter does: of each alternative, sets of strings one of which must occur. A pattern that cannot be read
so has none, and is always tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Needles = tuple[tuple[str, ...], ...]
Read = tuple[frozenset[str] | None, list[frozenset[str]]]
MOST = 24  # strings of one set that are put together from smaller ones
KEPT = 2  # sets that are looked for
ALIKE = frozenset({""})
LOCAL = re.compile(r"\(\?[aiLmsux-]+:")  # flags of a part


def divided(pattern: str) -> list[str]:
    """A pattern's alternatives; none where groups and flags hold them together.

    >>> divided(r"a(?:b|c)|[|]d|e"), divided("(?i)a|b")
    (['a(?:b|c)', '[|]d', 'e'], [])
    """
    parsed = parser.parse(pattern)
    if parsed.state.flags != re.UNICODE or parsed.state.groups > 1 or LOCAL.search(pattern):
        return []
    parts, depth, inside, began = [], 0, -1, 0
    for found in re.finditer(r"\\.|[\[\]()|]", pattern, re.DOTALL):
        sign = found[0]
        if inside >= 0:
            # a bracket that closes stands for itself behind "[" or "[^"
            inside = -1 if sign == "]" and pattern[inside : found.start()] not in ("[", "[^") else inside
        elif sign == "[":
            inside = found.start()
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "|" and not depth:
            parts.append(pattern[began : found.start()])
            began = found.end()
    return [*parts, pattern[began:]]


def needles(pattern: str) -> Needles:
    """Of each set one must stand in a text that the pattern matches; those first that seldom do.

    >>> needles(r"\\bich (?:kann|darf)\\b[^.!?]{0,70}?\\b(?:nicht|keine\\w*)")
    (('ich darf', 'ich kann'), ('keine', 'nicht'))
    """
    _, found = _read(parser.parse(pattern))
    return tuple(tuple(sorted(one, key=lambda each: (len(each), each))) for one in sorted(found, key=_cost)[:KEPT])


def _cost(found: frozenset[str]) -> tuple[float, list[str]]:
    return len(found) / min(map(len, found)), sorted(found)


def _read(items: Iterable[tuple[Any, Any]]) -> Read:
    """All that it matches, where these are few strings; and sets of which one string each must occur."""
    now, found, whole = ALIKE, [], True
    for op, told in items:
        name = str(op)
        if name in ("AT", "ASSERT", "ASSERT_NOT"):
            continue
        here, more = _one(name, told)
        if here is not None and len(now) * len(here) <= MOST:
            now = frozenset(one + other for one in now for other in here)
            continue
        whole = False
        found += [now, *more] if here is None else [now]
        now = here or ALIKE
    if whole:
        return now, [now] if "" not in now else []
    return None, [one for one in [*found, now] if "" not in one]


def _one(name: str, told: Any) -> Read:
    if name == "LITERAL":
        return frozenset({chr(told)}), []
    if name == "IN" and all(str(op) == "LITERAL" for op, _ in told) and len(told) <= 4:
        return frozenset(chr(sign) for _, sign in told), []
    if name == "SUBPATTERN":
        return (None, []) if told[1] or told[2] else _read(told[3])  # flags of its own
    if name == "BRANCH":
        return _branch([_read(one) for one in told[1]])
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, inner = told
        here, more = _read(inner)
        if (least, most) == (0, 1) and here is not None:
            return here | ALIKE, []
        return None, more if least else []
    return None, []


def _branch(parts: list[Read]) -> Read:
    known = [here for here, _ in parts if here is not None]
    if len(known) == len(parts):
        return frozenset[str]().union(*known), []
    if not all(more for _, more in parts):
        return None, []
    return None, [frozenset[str]().union(*(min(more, key=_cost) for _, more in parts))]
