"""Reading one JSON value out of a text, strictly: what a scorer counts, the gateway lets through and the watch reads.

Stricter than ``json``: a key given twice, NaN, Infinity, a number that no double holds, half a surrogate pair and a
nesting beyond ``DEPTH`` are no JSON here, because the clients that read the answer disagree about each of them.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

FENCED = re.compile(r"```(?:[\w+-]*[ \t]*\n)?(.*?)```", re.DOTALL)
QUOTED = 40  # characters of an answer in a sentence
DEPTH = 128  # brackets within brackets


class NotJson(ValueError):
    """The text is not one JSON value; the sentence says why."""


def shown(text: str) -> str:
    """A little of a text for a sentence, on one line, whatever it holds.

    >>> shown("two\\nlines")
    'two\\\\nlines'
    """
    return repr(text if len(text) <= QUOTED else text[: QUOTED - 3] + "...")[1:-1]


def unfenced(answer: str) -> str:
    """The first code block of an answer, or the whole answer where it has none.

    >>> unfenced('```json\\n{"a": 1}\\n```')
    '{"a": 1}'
    """
    block = FENCED.search(answer)
    return (block.group(1) if block else answer).strip()


def read(text: str, *, depth: int = DEPTH) -> Any:
    """The one JSON value that ``text`` is. Raises NotJson.

    >>> read('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    quantgate.guard.reading.NotJson: the key 'a' is given twice
    """
    if not text.strip():
        raise NotJson("the answer is empty")
    try:
        value = DECODER.decode(text)
        text.encode()
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except NotJson:
        raise
    except RecursionError:
        raise NotJson("the JSON is nested too deeply") from None
    except UnicodeEncodeError:
        raise NotJson("a text holds half a surrogate pair") from None
    except ValueError as broken:
        raise NotJson(f"not JSON: {broken}") from None
    if text.count("[") + text.count("{") > depth and deeper(value, depth):
        raise NotJson("the JSON is nested too deeply")
    return value


def deeper(value: Any, depth: int) -> bool:
    """Whether brackets stand within more than ``depth`` brackets; no recursion.

    >>> deeper([[1]], 2), deeper([[1]], 1)
    (False, True)
    """
    row = [value]
    for _ in range(depth + 1):
        row = [one for one in row if isinstance(one, list | dict)]
        if not row:
            return False
        row = [item for one in row for item in (one.values() if isinstance(one, dict) else one)]
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise NotJson(f"the key '{shown(twice)}' is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise NotJson(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotJson("a number is too large")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
"""Python's own message of a number with thousands of digits stands: ``int`` refuses those beyond 4,300."""
