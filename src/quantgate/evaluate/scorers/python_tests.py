"""python_tests: does the code in the answer pass the reference's tests, run in the sandbox.

The reference is ``{"tests": source that raises where the code is wrong, "setup": source that goes in front of the
answer (HumanEval's prompt, imports), "entry": the name under test or null}``. The tests call the code by name; a
``check`` function that they define and never call is called with ``entry``, as HumanEval's are (Chen et al. 2021,
arXiv:2107.03374, section 2.2; MBPP's assertions: Austin et al. 2021, arXiv:2108.07732). Setup runs in front of the code
and of the tests, so what needs the code's own classes belongs into ``tests``. A function that bears a built-in's name
(``sum``) must be named as ``entry``: otherwise tests mean the built-in.

The score is 1 only when the sandbox's nonce came back. Crashes and overrun limits are wrong answers; tests that cannot
be run, or that never call the code, are ``Unscored``. ``READY`` is called before anything is generated: where the
machine cannot contain the code, the evaluation is refused there.
"""

from __future__ import annotations

import ast
from typing import Any

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._python_code import parsed, source_of
from quantgate.sandbox import Job
from quantgate.sandbox.choose import ready

KEYS = {"tests", "setup", "entry"}


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 if every test passed. Raises SandboxError where the code cannot be contained."""
    if problem := _unreadable(reference):
        return Unscored(reason=problem)
    setup, entry = reference.get("setup") or "", reference.get("entry")
    source = source_of(answer, setup, entry)
    if source is None:
        what = f"no Python code that defines '{entry}'" if entry else "no Python code"
        return Score(value=0.0, because=f"{what} in the answer")
    tests = _called(reference["tests"], entry)
    outcome = ready().run(Job(code=source, tests=tests, setup=setup, entry=entry))
    if outcome.verdict == "broken":
        return Unscored(reason=outcome.because)
    return Score(value=float(outcome.verdict == "passed"), answer=source, because=outcome.because)


def _unreadable(reference: Any) -> str:
    if not isinstance(reference, dict) or not isinstance(reference.get("tests"), str) or set(reference) - KEYS:
        return "the reference is no object with the source 'tests', and perhaps 'setup' and 'entry'"
    if not isinstance(reference.get("setup") or "", str) or not isinstance(reference.get("entry") or "", str):
        return "'setup' and 'entry' of the reference must be texts"
    return "" if parsed(reference["tests"]) else "the tests of the reference are no Python"


def _called(tests: str, entry: str | None) -> str:
    """The tests, with the call of a ``check`` that they define and leave to the harness."""
    if (tree := parsed(tests)) is None:
        return tests
    defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    used = any(isinstance(node, ast.Name) and node.id == "check" for node in ast.walk(tree))
    return f"{tests}\ncheck({entry})\n" if entry and defined and not used else tests


def refuse_early() -> str:
    """The sandbox in a sentence, once it has passed its self-test. Raises SandboxError."""
    return ready().sentence


READY = refuse_early
SCORER = score
