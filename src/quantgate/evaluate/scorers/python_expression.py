"""python_expression: the answer is one Python expression that gives the wanted outputs on test inputs.

The reference is ``{"variables": "xs", "inputs": [...], "outputs": [...]}``; with several variables (``"xs, k"``) every
input is a list of their values. The expression may stand in a code block, after ``return`` or ``result =``, or be a
lambda over the variables. It is run by the interpreter of ``_expressions``, never by ``eval``; what that refuses is a
wrong answer. Outputs are compared by value and type: a tuple is no list, true is not 1, and 2.0 is not 2.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._expressions import MAX_SIZE, Refused, evaluate, size_of
from quantgate.evaluate.scorers._json import unfenced

MAX_SOURCE = 2_000  # characters of an expression


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when every output is right, else 0 with the first wrong one; a bad reference is unscored.

    >>> doubled = {"variables": "xs", "inputs": [[1, 2], []], "outputs": [[2, 4], []]}
    >>> score("[x * 2 for x in xs]", doubled).value
    1.0
    >>> score("xs * 2", doubled).because
    'for [1, 2] it gives [1, 2, 1, 2] instead of [2, 4]'
    >>> score("open('f').read()", doubled).because
    "uses the name 'open', which is not known here"
    """
    problem = _problem(reference)
    if problem:
        return Unscored(reason=f"python_expression: {problem}")
    names = _names(reference)
    source = unfenced(answer).strip("`").strip()
    try:
        tree, names = _parsed(source, names)
        because = _first_wrong(tree, names, reference)
    except Refused as refused:
        because = str(refused)
    return Score(value=0.0 if because else 1.0, answer=source or None, because=because)


def _names(reference: dict[str, Any]) -> list[str]:
    return [name.strip() for name in reference["variables"].split(",")]


def _problem(reference: Any) -> str:
    """Why the reference cannot be read, or nothing."""
    expected = 'expected {"variables": "xs", "inputs": [...], "outputs": [...]}'
    if not isinstance(reference, dict) or set(reference) != {"variables", "inputs", "outputs"}:
        return f"the reference has other keys; {expected}"
    inputs, outputs = reference["inputs"], reference["outputs"]
    if not isinstance(reference["variables"], str) or not all(name.isidentifier() for name in _names(reference)):
        return f"'variables' holds no names; {expected}"
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or len(inputs) != len(outputs):
        return f"'inputs' and 'outputs' are not lists of one length; {expected}"
    several = len(_names(reference))
    if several > 1 and not all(isinstance(one, list) and len(one) == several for one in inputs):
        return f"an input does not hold {several} values; {expected}"
    if any(size_of(one) > MAX_SIZE for one in inputs):
        return f"an input is larger than {MAX_SIZE} items; use smaller ones"
    return ""


def _parsed(source: str, names: list[str]) -> tuple[ast.expr, list[str]]:
    """The expression and the names that its inputs go by. Raises Refused where there is none."""
    if not source:
        raise Refused("the answer is empty")
    if len(source) > MAX_SOURCE:
        raise Refused(f"is longer than {MAX_SOURCE} characters")
    try:
        with warnings.catch_warnings():  # a strange escape in an answer is no news for the user's terminal
            warnings.simplefilter("ignore")
            body = ast.parse(source).body
    except SyntaxError as broken:
        raise Refused(f"is not Python: {broken.msg}") from None
    except (ValueError, RecursionError, MemoryError):
        raise Refused("is not Python that can be read") from None
    if len(body) != 1:
        raise Refused(f"is {len(body)} statements instead of one expression")
    tree = _expression(body[0])
    if isinstance(tree, ast.Lambda) and len(tree.args.args) == len(names):
        return tree.body, [one.arg for one in tree.args.args]
    return tree, names


def _expression(statement: ast.stmt) -> ast.expr:
    if isinstance(statement, ast.Expr):
        return statement.value
    if isinstance(statement, ast.Return) and statement.value is not None:
        return statement.value
    if isinstance(statement, ast.Assign) and [type(target) for target in statement.targets] == [ast.Name]:
        return statement.value
    raise Refused(f"uses {type(statement).__name__}, which is not an expression")


def _first_wrong(tree: ast.expr, names: list[str], reference: dict[str, Any]) -> str:
    for given, wanted in zip(reference["inputs"], reference["outputs"], strict=True):
        values = given if len(names) > 1 else [given]
        got = evaluate(tree, dict(zip(names, values, strict=True)))
        if not same(got, wanted):
            return f"for {_short(given)} it gives {_short(got)} instead of {_short(wanted)}"
    return ""


def same(got: Any, wanted: Any) -> bool:
    """Equal by value and type, through lists and dicts."""
    if type(got) is not type(wanted):
        return False
    if isinstance(got, list):
        return len(got) == len(wanted) and all(same(one, two) for one, two in zip(got, wanted, strict=True))
    if isinstance(got, dict):
        return got.keys() == wanted.keys() and all(same(got[key], wanted[key]) for key in got)
    return bool(got == wanted)


def _short(value: Any) -> str:
    plain = isinstance(value, (int, float, str, list, tuple, set, dict, type(None)))
    shown = repr(value) if plain else f"a {type(value).__name__}"
    return shown if len(shown) <= 80 else shown[:77] + "..."


SCORER = score
