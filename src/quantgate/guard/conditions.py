"""Conditions on the arguments of a tool call: ``/amount > 100``. What one cannot judge, it holds back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any

CONDITION = re.compile(r"(?P<pointer>(?:/\S*)?)\s*(?P<sign>>=|<=|==|!=|>|<)\s*(?P<value>.+)", re.DOTALL)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}
ABSENT = object()


def condition(text: str) -> tuple[list[str], str, Any]:
    """A condition's pointer (RFC 6901), sign and value. Raises ValueError.

    >>> condition("/order/amount > 100")
    (['order', 'amount'], '>', 100)
    """
    found = CONDITION.fullmatch(text.strip())
    wrong = f"'{text}' is no condition; write a JSON pointer, a sign and a JSON value: /amount > 100"
    if found is None:
        raise ValueError(wrong)
    try:
        value = json.loads(found["value"])
    except ValueError:
        raise ValueError(wrong) from None
    if found["sign"] not in ("==", "!=") and not _number(value):
        raise ValueError(f"'{text}' compares with no number; {found['sign']} needs one")
    parts = found["pointer"].split("/")[1:]
    return [part.replace("~1", "/").replace("~0", "~") for part in parts], found["sign"], value


def met(text: str, arguments: Any) -> bool:
    """Whether a condition says that the call is held: also where it cannot be judged.

    >>> met("/amount > 100", {"amount": 100}), met("/amount > 100", {"amount": "lots"}), met("/amount > 100", {})
    (False, True, True)
    """
    parts, sign, value = condition(text)
    for part in parts:
        arguments = _below(arguments, part)
    if arguments is ABSENT:
        return True
    if sign in ("==", "!="):
        if value is not None and _kind(arguments) is not _kind(value):
            return True
        return (arguments == value) is (sign == "==")
    return not _number(arguments) or COMPARE[sign](arguments, value)


def _below(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part, ABSENT)
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    return ABSENT


def _kind(value: Any) -> type:
    return float if _number(value) else type(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def sample(text: str, arguments: dict[str, Any]) -> None:
    """Put a value into ``arguments`` that meets the condition, for a proof at start."""
    parts, sign, value = condition(text)
    made = {">": 1, ">=": 0, "<": -1, "<=": 0}
    holder: Any = arguments
    for part in parts[:-1]:
        holder = holder.setdefault(part, {})
    if parts and isinstance(holder, dict):
        holder[parts[-1]] = value + made[sign] if sign in made else value if sign == "==" else [value]
