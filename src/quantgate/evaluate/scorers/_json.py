"""Saying in words how two JSON values differ. Reading one out of an answer is the guard's: one definition for both."""

from __future__ import annotations

from typing import Any

from quantgate.guard.reading import NotJson, read, unfenced

__all__ = ["NotJson", "difference", "read", "unfenced"]


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
