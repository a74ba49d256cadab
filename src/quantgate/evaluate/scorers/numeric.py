"""numeric: the number that an answer ends at, compared by value.

The reference is a number, or ``{"value": n, "tolerance": t}`` (absolute, 0 unless given). Read is the number after
the last ``Answer:``, ``\\boxed{`` or ``####`` if there is one, else the last number in the answer: a bare number works
and so does worked reasoning. ``1,234.5``, ``1.234,5``, ``1'234``, ``12,5``, ``-3``, ``$5``, ``3/4``, ``2e3`` and units
after the number are understood; a digit right after a letter or ``^`` (``m3``, ``m^2``) is part of a unit.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from quantgate.evaluate.scorers import Score, Unscored

LONGEST = 400  # characters of one number; a loop of digits is no number, and costs quadratic time to convert
GAPS = re.compile(r"(?<=[0-9])(?:[\u00a0\u2009\u202f'\u2019_]|\\,|\{,\})(?=[0-9]{3}(?![0-9]))")  # thousands, as 1'234
MINUS = str.maketrans(dict.fromkeys("\u2212\ufe63\uff0d\u2013\u2011", "-"))  # minus signs and dashes
FIGURE = r"(?:[0-9](?:[0-9.,]*[0-9])?|(?<![\w.,])\.[0-9]+)(?:[eE][+-]?[0-9]{1,3}(?![0-9]))?"
SIGN = r"(?:(?<![\w)\].%])(?P<sign>[+-])(?:\\?[$€£¥] ?)?)?"  # after a figure or bracket, '-' takes away
NUMBER = re.compile(rf"{SIGN}(?<![A-Za-z^0-9])(?P<top>{FIGURE})(?:/(?P<bottom>{FIGURE}))?")
MARKER = re.compile(
    r"\banswer\b[\s*_]*:|\\boxed\s*\{|####(?=[ \t]*[-+]?[$€£¥]?[0-9](?:[0-9.,]*[0-9])?[ \t]*[^\s0-9]{0,12}[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
TERM = r"[-+(]*[0-9][0-9.,]*\)*"
EQUATION = re.compile(rf"[\s*_$]*{TERM}(?:\s*[-+*/x\u00d7\u00f7]\s*{TERM})*\s*=(?=[^=\n]*[0-9])")


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when the number read lies within the tolerance of the reference, else 0; a bad reference is unscored.

    >>> score("34 + 12 = 46, 46 - 9 = 37. Answer: 37 marbles", 37).value
    1.0
    >>> score("131", 132).because
    'read 131, expected 132'
    """
    bounds = _bounds(reference)
    if isinstance(bounds, str):
        return Unscored(reason=f"numeric: {bounds}")
    found = read(answer)
    if found is None:
        return Score(value=0.0, because="there is no number where the answer should be")
    text, value = found
    wanted, tolerance = bounds
    if value is not None and abs(value - wanted) <= tolerance:
        return Score(value=1.0, answer=text)
    expected = reference["value"] if isinstance(reference, dict) else reference
    return Score(value=0.0, answer=text, because=f"read {text}, expected {expected}")


def read(answer: str) -> tuple[str, Fraction | None] | None:
    """The number that an answer gives: its text and its value (None if it cannot be read); None if there is none.

    >>> read("It costs 1,250 dollars.")
    ('1,250', Fraction(1250, 1))
    """
    text = GAPS.sub("", answer.translate(MINUS))
    marks = list(MARKER.finditer(text))
    if not marks:
        numbers = list(NUMBER.finditer(text))
        return _value(numbers[-1]) if numbers else None
    tail = text[marks[-1].end() :]
    while equation := EQUATION.match(tail):  # "Answer: 46 - 9 = 37" means 37
        tail = tail[equation.end() :]
    number = NUMBER.search(re.sub(r"\A([\s*_$]*-)[ \t]+(?=[0-9])", r"\1", tail))  # "Answer: - 3"
    return _value(number) if number else None


def _value(number: re.Match[str]) -> tuple[str, Fraction | None]:
    text = number.group().strip()
    if len(text) > LONGEST:
        return f"{text[:20]}...", None
    top, bottom = _figure(number["top"]), _figure(number["bottom"] or "1")
    if top is None or not bottom:
        return text, None
    return text, (-1 if number["sign"] == "-" else 1) * top / bottom


def _figure(text: str) -> Fraction | None:
    """The value of digits with points and commas; None when they make no number (``1.2.3``)."""
    digits, e, exponent = text.lower().partition("e")
    last = max(digits.rfind("."), digits.rfind(","))
    if last >= 0:
        mark, other = digits[last], ",."[digits[last] == ","]
        whole, fraction = digits[:last], digits[last + 1 :]
        grouped = re.fullmatch(rf"[1-9][0-9]{{0,2}}(?:\{mark}[0-9]{{3}})+", digits)
        if grouped and (mark == "," or digits.count(".") > 1):  # 1,234 and 1.234.567, but 1.234 is a decimal
            digits = digits.replace(mark, "")
        elif mark in whole or (
            other in whole and not re.fullmatch(rf"[1-9][0-9]{{0,2}}(?:\{other}[0-9]{{3}})+", whole)
        ):
            return None
        else:
            digits = f"{whole.replace(other, '') or '0'}.{fraction}"
    return Fraction(digits + e + exponent)


def _bounds(reference: Any) -> tuple[Fraction, Fraction] | str:
    """Value and tolerance, or why the reference cannot be read."""
    expected = "expected a number, or an object with value and tolerance"
    if isinstance(reference, dict):
        unknown = sorted(str(key) for key in reference if key not in ("value", "tolerance"))
        if unknown:
            return f"unknown key '{unknown[0]}' in the reference; {expected}"
        value, tolerance = reference.get("value"), reference.get("tolerance", 0)
    else:
        value, tolerance = reference, 0
    for name, one in (("value", value), ("tolerance", tolerance)):
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
            return f"the {name} in the reference is not a finite number ({one!r}); {expected}"
    if tolerance < 0:
        return f"the tolerance in the reference is negative ({tolerance}); give 0 or more"
    return Fraction(repr(value)), Fraction(repr(tolerance))


SCORER = score
