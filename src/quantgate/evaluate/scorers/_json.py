"""Reading one JSON value out of an answer, and saying in words how two JSON values differ."""

from __future__ import annotations

import json
import re
from typing import Any

FENCED = re.compile(r"```(?:[\w+-]*[ \t]*\n)?(.*?)```", re.DOTALL)


class NotJson(ValueError):
    """The answer is not one JSON value; the sentence says why."""


def unfenced(answer: str) -> str:
    """The first code block of an answer, or the whole answer where it has none.

    >>> unfenced('```json\\n{"a": 1}\\n```')
    '{"a": 1}'
    """
    block = FENCED.search(answer)
    return (block.group(1) if block else answer).strip()


def read(text: str) -> Any:
    """The one JSON value that ``text`` is. Raises NotJson; a key given twice and NaN are no JSON here."""
    if not text.strip():
        raise NotJson("the answer is empty")
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except NotJson:
        raise
    except RecursionError:
        raise NotJson("the JSON is nested too deeply") from None
    except ValueError as broken:
        raise NotJson(f"not JSON: {broken}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise NotJson(f"the key '{key}' is given twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise NotJson(f"{name} is not JSON")


def difference(got: Any, wanted: Any, path: str = "") -> str:
    """How ``got`` differs from ``wanted`` by value, in words; empty where it does not.

    The order of keys is free and 5 is 5.0, but true is not 1; texts are compared without the white space around them.

    >>> difference({"city": "Oslo"}, {"city": "Rome"})
    "'city': 'Oslo' instead of 'Rome'"
    >>> difference({"b": 5.0, "a": " x"}, {"a": "x", "b": 5})
    ''
    """
    if isinstance(got, dict) and isinstance(wanted, dict):
        return _keys(got, wanted, path)
    if isinstance(got, list) and isinstance(wanted, list):
        if len(got) != len(wanted):
            return f"{_at(path)}{len(got)} items instead of {len(wanted)}"
        found = (difference(one, two, f"{path}[{i}]") for i, (one, two) in enumerate(zip(got, wanted, strict=True)))
        return next((sentence for sentence in found if sentence), "")
    if isinstance(got, str) and isinstance(wanted, str):
        alike = got.strip() == wanted.strip()
    else:
        alike = isinstance(got, bool) == isinstance(wanted, bool) and bool(got == wanted)
    return "" if alike else f"{_at(path)}{_short(got)} instead of {_short(wanted)}"


def _keys(got: dict[str, Any], wanted: dict[str, Any], path: str) -> str:
    prefix = f"{path}." if path else ""
    for key in wanted:
        if key not in got:
            return f"'{prefix}{key}' is missing"
    for key in got:
        if key not in wanted:
            return f"'{prefix}{key}' is one too many"
    found = (difference(got[key], wanted[key], f"{prefix}{key}") for key in wanted)
    return next((sentence for sentence in found if sentence), "")


def _at(path: str) -> str:
    return f"'{path}': " if path else ""


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
