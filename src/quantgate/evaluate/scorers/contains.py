"""contains: the answer holds every string of ``all``, one of ``any`` and none of ``none``.

The reference is ``{"all": [...], "any": [...], "none": [...], "case": false, "word": true}``, each key optional but at
least one list; a plain string means ``{"all": [it]}``. ``word`` (default true) asks for whole words, so that ``12`` is
not found in ``4127``; ``case`` (default false) makes capitals count. Runs of white space count as one space.
"""

from __future__ import annotations

import re
from typing import Any

from quantgate.evaluate.scorers import Score, Unscored

LISTS, FLAGS = ("all", "any", "none"), ("case", "word")


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when every condition holds, else 0 with the missing or forbidden string named; a bad reference is unscored.

    >>> score("The code is 4821.", "4821").value
    1.0
    >>> score("The code is 48210.", {"all": ["4821"]}).because
    "'4821' is missing"
    """
    if isinstance(reference, str):
        reference = {"all": [reference]}
    problem = _problem(reference)
    if problem:
        return Unscored(reason=f"contains: {problem}")
    case, word = reference.get("case", False), reference.get("word", True)

    def has(wanted: str) -> bool:
        return _found(answer, wanted, case=case, word=word)

    because = [f"'{wanted}' is missing" for wanted in reference.get("all", []) if not has(wanted)]
    choices = reference.get("any", [])
    if choices and not any(has(wanted) for wanted in choices):
        because.append("none of " + ", ".join(f"'{wanted}'" for wanted in choices) + " is there")
    because += [f"'{unwanted}' is forbidden" for unwanted in reference.get("none", []) if has(unwanted)]
    if not answer.strip():  # an empty answer is a wrong answer, also where strings are only forbidden
        because = because or ["the answer is empty"]
    return Score(value=0.0 if because else 1.0, answer=answer.strip() or None, because="; ".join(because))


def _problem(reference: Any) -> str:
    """Why the reference cannot be read, or nothing."""
    expected = "expected a string, or an object with the lists all, any, none and the flags case, word"
    if not isinstance(reference, dict):
        return f"the reference is {type(reference).__name__}; {expected}"
    unknown = sorted(str(key) for key in reference if key not in LISTS + FLAGS)
    if unknown:
        return f"unknown key '{unknown[0]}' in the reference; {expected}"
    for key in FLAGS:
        if not isinstance(reference.get(key, True), bool):
            return f"'{key}' in the reference is not true or false"
    for key in LISTS:
        strings = reference.get(key, [])
        if not isinstance(strings, list) or not all(isinstance(one, str) and one.strip() for one in strings):
            return f"'{key}' in the reference is not a list of non-empty strings"
    return "" if any(reference.get(key) for key in LISTS) else f"the reference asks for nothing; {expected}"


def _found(text: str, wanted: str, *, case: bool, word: bool) -> bool:
    pattern = r"\s+".join(re.escape(part) for part in wanted.split())
    if word:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return re.search(pattern, text, 0 if case else re.IGNORECASE) is not None


SCORER = score
