"""exact: the whole answer is one of the accepted strings.

The reference is a string, or ``{"accept": [...], "case": false, "strip": true}``. Answer and accepted strings are
compared in one normal form: Unicode NFKC, curly apostrophes made straight, a code fence around the whole answer taken
off, runs of white space as one space. Unless ``strip`` is false, quotes, periods and markdown emphasis *around* the
answer do not count; unless ``case`` is true, capitals do not. Words before or after the answer always count: an answer
format that was asked for is part of the answer.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from quantgate.evaluate.scorers import Score, Unscored

FLAGS = ("case", "strip")
FENCE = re.compile(r"\A\s*```[^\n`]*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
AROUND = (
    "\"'`*_. \t\n\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a"  # quotes, points, emphasis
)
STRAIGHT = str.maketrans(dict.fromkeys("\u2018\u2019\u201b\u00b4", "'"))  # curly apostrophes and the lone acute


def normal(text: str, *, case: bool = False, strip: bool = True) -> str:
    """The form in which two answers are compared.

    >>> normal(" **Größer  als**. ")
    'grösser als'
    """
    fenced = FENCE.match(text)
    text = fenced.group(1) if fenced else text
    text = text.translate(STRAIGHT)  # before NFKC, which turns a lone acute accent into a space and an accent
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if strip:
        text = text.strip(AROUND)
    return text if case else unicodedata.normalize("NFKC", text.casefold())


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when the whole answer is one of the accepted strings, else 0; a bad reference is unscored.

    >>> score("**Montag**.", "montag").value
    1.0
    >>> score("It is Montag.", {"accept": ["Montag"]}).because
    "expected 'Montag'"
    """
    if isinstance(reference, str):
        reference = {"accept": [reference]}
    problem = _problem(reference)
    if problem:
        return Unscored(reason=f"exact: {problem}")
    case, strip = reference.get("case", False), reference.get("strip", True)
    if normal(answer, case=case, strip=strip) in [normal(one, case=case, strip=strip) for one in reference["accept"]]:
        return Score(value=1.0, answer=answer.strip())
    expected = " or ".join(f"'{one}'" for one in reference["accept"])
    because = f"expected {expected}" if answer.strip() else "the answer is empty"
    return Score(value=0.0, answer=answer.strip() or None, because=because)


def _problem(reference: Any) -> str:
    """Why the reference cannot be read, or nothing."""
    expected = "expected a string, or an object with the list accept and the flags case, strip"
    if not isinstance(reference, dict):
        return f"the reference is {type(reference).__name__}; {expected}"
    unknown = sorted(str(key) for key in reference if key not in ("accept", *FLAGS))
    if unknown:
        return f"unknown key '{unknown[0]}' in the reference; {expected}"
    for key in FLAGS:
        if not isinstance(reference.get(key, True), bool):
            return f"'{key}' in the reference is not true or false"
    accept = reference.get("accept")
    if not isinstance(accept, list) or not accept or not all(isinstance(one, str) for one in accept):
        return f"the reference accepts nothing; {expected}"
    for one in accept:
        if not normal(one, strip=reference.get("strip", True)):  # an empty answer must never be right
            return f"nothing of '{one}' is left to compare; set strip to false or give another string"
    return ""


SCORER = score
