"""ifeval: an answer follows every verifiable instruction of its prompt, or it scores 0.

The reference is ``{"instructions": [{"id": "punctuation:no_comma", "kwargs": {}}, ...]}`` with the published ids and
arguments of IFEval. The score is the published strict accuracy at prompt level (Zhou et al. 2023, arXiv:2311.07911,
section 3.2): nothing is taken off the answer before it is checked, and an empty one follows nothing.
"""

from __future__ import annotations

from typing import Any

from quantgate.errors import hint
from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._ifeval import CHECKS
from quantgate.evaluate.scorers._languages import LANGUAGES

RELATIONS = ("at least", "less than")


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when all instructions are followed, else 0 with those that are not; a bad reference is unscored.

    >>> asked = {"instructions": [{"id": "punctuation:no_comma", "kwargs": {}}, {"id": "startend:quotation"}]}
    >>> score('"No comma here."', asked).value
    1.0
    >>> score("One, two", asked).because
    'punctuation:no_comma: a comma was not to be used; startend:quotation: not in double quotes'
    """
    problem = _problem(reference)
    if problem:
        return Unscored(reason=f"ifeval: {problem}")
    if not answer.strip():
        return Score(value=0.0, because="the answer is empty")
    asked = [(one["id"], CHECKS[one["id"]][0](answer, one.get("kwargs") or {})) for one in reference["instructions"]]
    failed = [f"{name}: {wrong}" for name, wrong in asked if wrong]
    return Score(value=0.0 if failed else 1.0, answer=answer, because="; ".join(failed))


def _problem(reference: Any) -> str:
    """Why the reference cannot be read, or nothing."""
    asked = reference.get("instructions") if isinstance(reference, dict) else None
    if not isinstance(asked, list) or not asked:
        return "the reference needs a list 'instructions' with at least one instruction"
    return next((wrong for one in asked if (wrong := _wrong(one))), "")


def _wrong(one: Any) -> str:
    name = one.get("id") if isinstance(one, dict) else None
    if name not in CHECKS:
        return f"unknown instruction '{name}'; {hint(str(name), CHECKS)}"
    given = one.get("kwargs") or {}
    needs = CHECKS[name][1]
    unknown = [key for key in given if key not in needs]
    if unknown:
        return f"{name}: unknown argument '{unknown[0]}'; {hint(unknown[0], needs)}"
    for key, kind in needs.items():
        value = given.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"{name}: '{key}' is {value!r} instead of {kind.__name__}"
        if key.endswith("relation") and value not in RELATIONS:
            return f"{name}: '{key}' is '{value}'; expected {' or '.join(RELATIONS)}"
    language = given.get("language")
    return f"{name}: the language '{language}' is not told apart here" if language and language not in LANGUAGES else ""


SCORER = score
