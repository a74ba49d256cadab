"""function_call: one call with acceptable arguments, or none where none fits, as the Berkeley leaderboard judges it.

The reference is ``{"name": ..., "arguments": {"unit": ["km", ""], ...}}``: every argument has the list of its
acceptable values, and ``""`` among them says that it may be left out. ``{"abstain": true, "functions": [...]}`` wants
words and no call: an answer of fewer than two words abstains from nothing. A call is read as ``tool_call`` reads it, or
written as Python does: ``[area(base=10)]``. Texts are compared without case, white space and the marks
``, . / - _ * ^``, numbers by value; true is not 1, and "5" is not 5 (Patil et al. 2025, AST evaluation).
"""

from __future__ import annotations

import ast
import re
from typing import Any

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._json import NotJson, unfenced
from quantgate.evaluate.scorers.tool_call import called

MARKS = re.compile(r"[ ,./\-_*^]")
WORDS = re.compile(r"\w+")
MOST = 4_000  # characters of a call written as Python


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when the call (or the abstention) is right, else 0 with what differs; a bad reference is unscored.

    >>> right = {"name": "area", "arguments": {"base": [10], "unit": ["cm", ""]}}
    >>> score('{"name": "area", "arguments": {"base": 10.0}}', right).value
    1.0
    >>> score("area(base='10')", right).because
    "argument 'base': '10' is none of 10"
    >>> score("None of them fits.", {"abstain": True, "functions": ["area"]}).value
    1.0
    """
    problem = _problem(reference)
    if problem:
        return Unscored(reason=f"function_call: {problem}")
    because = _abstention(answer, reference) if "abstain" in reference else _call(answer, reference)
    return Score(value=0.0 if because else 1.0, answer=answer.strip() or None, because=because)


def _problem(reference: Any) -> str:
    """Why the reference cannot be read, or nothing."""
    expected = 'expected {"name": ..., "arguments": {...: [...]}} or {"abstain": true, "functions": [...]}'
    if not isinstance(reference, dict) or set(reference) not in ({"name", "arguments"}, {"abstain", "functions"}):
        return f"the reference has other keys; {expected}"
    if "abstain" in reference:
        return "" if reference["abstain"] is True and isinstance(reference["functions"], list) else expected
    arguments = reference["arguments"]
    fits = isinstance(reference["name"], str) and isinstance(arguments, dict)
    lists = fits and all(isinstance(values, list) and values for values in arguments.values())
    return "" if lists else f"an argument has no list of acceptable values; {expected}"


def _abstention(answer: str, reference: dict[str, Any]) -> str:
    try:
        return f"calls {read_call(answer)[0]!r} where none fits"
    except NotJson:
        pass
    for name in reference["functions"]:
        if re.search(rf"(?<!\w){re.escape(str(name))}\s*\(|\"name\"\s*:\s*\"{re.escape(str(name))}\"", answer):
            return f"calls {name!r} where none fits"
    if "<tool_call>" in answer or re.search(r"\"(?:name|function)\"\s*:", answer):
        return "calls something where none fits"
    return "" if len(WORDS.findall(answer)) > 1 else "says nothing: an abstention takes words"


def _call(answer: str, reference: dict[str, Any]) -> str:
    try:
        name, arguments = read_call(answer)
    except NotJson as broken:
        return str(broken)
    if _plain(name) != _plain(reference["name"]):
        return f"calls {name!r} instead of {reference['name']!r}"
    return _arguments(arguments, reference["arguments"])


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", name)


def read_call(answer: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the one call that an answer is, in JSON or as Python. Raises NotJson with why it is none.

    >>> read_call("[math.factorial(number=5)]")
    ('math.factorial', {'number': 5})
    """
    try:
        return called(answer)
    except NotJson as broken:
        python = _python(unfenced(answer).strip("`").strip())
        if python is None:
            raise broken from None
        return python


def _python(text: str) -> tuple[str, dict[str, Any]] | None:
    if not re.match(r"\[?\s*[A-Za-z_][\w.]*\(", text) or len(text) > MOST:
        return None
    try:
        tree = ast.parse(text, mode="eval").body
        call = tree.elts[0] if isinstance(tree, ast.List) and len(tree.elts) == 1 else tree
        if not isinstance(call, ast.Call) or call.args:
            return None
        found = {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg is not None}
        return (ast.unparse(call.func), found) if len(found) == len(call.keywords) else None
    except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError):
        return None


def _arguments(given: dict[str, Any], accepted: dict[str, list[Any]]) -> str:
    """What is wrong with the arguments, or nothing."""
    for name in given:
        if name not in accepted:
            return f"argument '{name}' is one too many"
    for name, values in accepted.items():
        if name not in given:
            if "" not in values:
                return f"argument '{name}' is missing"
        elif not any(alike(given[name], value) for value in values):
            listed = ", ".join(repr(value) for value in values if value != "")
            return f"argument '{name}': {_short(given[name])} is none of {listed[:80]}"
    return ""


def alike(given: Any, wanted: Any) -> bool:
    """Whether a value is an acceptable one; inside an object every acceptable value is a list of its own.

    >>> alike({"a": 1, "b": "X-y"}, {"a": [1, 2], "b": ["xy"], "c": ["", 3]}), alike(True, 1), alike("5", 5)
    (True, False, False)
    """
    if isinstance(wanted, dict):
        lists = {name: values if isinstance(values, list) else [values] for name, values in wanted.items()}
        return isinstance(given, dict) and not _arguments(given, lists)
    if isinstance(wanted, list | tuple):
        fits = isinstance(given, list | tuple) and len(given) == len(wanted)
        return fits and all(alike(one, two) for one, two in zip(given, wanted, strict=True))
    if isinstance(wanted, str) or isinstance(given, str):
        return isinstance(wanted, str) and isinstance(given, str) and _bare(given) == _bare(wanted)
    return isinstance(given, bool) == isinstance(wanted, bool) and bool(given == wanted)


def _bare(text: str) -> str:
    return MARKS.sub("", text).casefold().replace("'", '"')


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


SCORER = score
