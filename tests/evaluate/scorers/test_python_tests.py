"""python_tests: code of every shape is found and judged; published solutions pass, broken ones do not."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import SandboxError
from quantgate.evaluate import scorers
from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._python_code import parsed, source_of
from quantgate.evaluate.scorers.python_tests import score
from quantgate.sandbox.choose import ready

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
HUMANEVAL, MBPP = DATA / "humaneval" / "HumanEval.jsonl", DATA / "mbpp" / "mbpp.jsonl"
PROMPT = 'import math\n\ndef area(r):\n    """Area of a circle.\n    >>> area(0)\n    0.0\n    """\n'
TESTS = "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-4\n"
LINE = "assert abs(candidate(1) - 3.14159) < 1e-4"
REFERENCE = {"tests": TESTS, "setup": PROMPT, "entry": "area"}


@pytest.fixture(scope="module", autouse=True)
def contained() -> Iterator[None]:
    try:
        ready()
    except SandboxError as reason:
        pytest.skip(str(reason))
    yield


AREA = "def area(r):\n    return math.pi * r * r\n"
RIGHT = {
    "a body": "    return math.pi * r * r\n",
    "a body without its indentation": "return math.pi * r * r",
    "a body that lost its first indentation": "square = r * r\n    return math.pi * square",
    "a body in a block": "```python\n    return math.pi * r * r\n```",
    "a whole function": AREA,
    "a block after words": f"Sure! Here it is:\n\n```python\nimport math\n{AREA}```\nEnjoy.",
    "a block without a language": f"```\n{AREA}```",
    "a block that was not closed": f"```python\n{AREA}",
    "the last of two blocks": f"```python\ndef area(r):\n    return 0\n```\nNo:\n```python\n{AREA}```",
    "a block of usage behind it": f"```python\n{AREA}```\n```python\nprint(area(2))\n```",
    "a block of another language behind it": f"```python\n{AREA}```\n```bash\npython area.py\n```",
    "the prompt again": f"```python\n{PROMPT}    return math.pi * r * r\n```",
    "words behind a body": "    return math.pi * r * r\n\nThis multiplies pi with the square of r's value, isn't it?",
    "a lambda": "area = lambda r: math.pi * r * r",
    "helpers": "def square(x):\n    return x * x\n\ndef area(r):\n    return math.pi * square(r)\n",
    "what the compiler warns about": "    '\\w'\n    return math.pi * r * r",
}
WRONG = {
    "nothing": "",
    "space": " \n\t\n",
    "abc": "abc",
    "words": "I am sorry, but I cannot help with that.",
    "the prompt alone": PROMPT,
    "return None": "    return None\n",
    "pass": "    pass",
    "another number": "    return 3.0 * r * r\n",
    "another function": "def volume(r):\n    return 4\n",
    "an endless loop": "    while True: pass\n",
    "an exit": "    import os; os._exit(0)\n",
    "a crash": "    import ctypes; ctypes.string_at(0)\n",
    "a broken block": "```python\ndef area(r:\n    return\n```",
    "an empty block": "```python\n```",
    "a null byte": "    return '\0'",
    "half a pair of surrogates": "    return '\ud800'",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_code_of_every_shape_scores_one(name: str) -> None:
    found = score(RIGHT[name], REFERENCE)
    assert isinstance(found, Score) and found.value == 1.0 and found.because == "", found


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_score_nothing_and_say_why(name: str) -> None:
    found = score(WRONG[name], REFERENCE)
    assert isinstance(found, Score) and found.value == 0.0 and found.because, found


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        ("    return 3", f"AssertionError at '{LINE}'; last call: area(1) gave 3"),
        (
            "    return 1 / 0",
            "ZeroDivisionError: division by zero at 'assert abs(candidate(1) - 3.14159) < 1e-4'; last call: area(1)",
        ),
        ("    while True: pass", "used more than 5 s of processor time"),
        ("hello world", "no Python code that defines 'area' in the answer"),
        ("x = 1 / 0\ndef area(r):\n    return 1", "the code stopped with ZeroDivisionError: division by zero, line 8"),
    ],
)
def test_what_was_wrong_is_told_to_a_person(answer: str, because: str) -> None:
    found = score(answer, REFERENCE)
    assert isinstance(found, Score) and found.because == because


@pytest.mark.parametrize(
    "reference",
    [None, [], {}, {"tests": 3}, {"tests": "assert f("}, {"tests": "f()", "entry": 3}, {"tests": "f()", "other": ""},
     {"tests": "assert True", "entry": "f"}, {"tests": "f()", "setup": "import no_such_module", "entry": "f"}],
)  # fmt: skip
def test_a_reference_that_cannot_judge_leaves_the_case_unscored(reference: Any) -> None:
    assert isinstance(score("def f():\n    return 1", reference), Unscored)


def test_a_check_that_is_called_already_is_not_called_again() -> None:
    tests = "seen = []\ndef check(f):\n    seen.append(f(1))\ncheck(area)\nassert len(seen) == 1"
    found = score("    return 1", {**REFERENCE, "tests": tests})
    assert isinstance(found, Score) and found.value == 1.0


@given(st.text() | st.text(alphabet="`~ \n\tdefarea(r):=python"))
def test_any_text_is_source_or_none(answer: str) -> None:
    source = source_of(answer, PROMPT, "area")
    assert source is None or parsed(source)


def test_ready_says_how_code_is_shut_in_and_other_scorers_need_nothing() -> None:
    assert scorers.ready(["exact", "python_tests"]) == ready().sentence
    assert scorers.ready(name for name in scorers.names() if name != "python_tests") == ""


def rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        pytest.skip(f"{file.parent.name} does not lie beside the repository")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def values(answers: list[tuple[str, dict[str, Any]]]) -> list[float | None]:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: score(*pair), answers))
    return [one.value if isinstance(one, Score) else None for one in found]


def humaneval(row: dict[str, Any]) -> dict[str, Any]:
    return {"tests": row["test"], "setup": row["prompt"], "entry": row["entry_point"]}


def mbpp(row: dict[str, Any]) -> dict[str, Any]:
    """The name under test is the one of the code's own that the first assertion calls."""
    code, first = parsed(row["code"]), parsed(row["test_list"][0])
    assert code and first
    own = {node.name for node in ast.walk(code) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    calls = [node.func for node in ast.walk(first) if isinstance(node, ast.Call)]
    entry = next((one.id for one in calls if isinstance(one, ast.Name) and one.id in own), None)
    return {"tests": "\n".join([row["test_setup_code"], *row["test_list"]]), "entry": entry}


def test_all_164_solutions_of_humaneval_pass_and_broken_ones_fail() -> None:
    cases = rows(HUMANEVAL)
    assert len(cases) == 164
    assert values([(row["canonical_solution"], humaneval(row)) for row in cases]) == [1.0] * 164
    assert values([("    return None\n", humaneval(row)) for row in cases]) == [0.0] * 164


def test_all_974_references_of_mbpp_pass_and_broken_ones_fail() -> None:
    cases = rows(MBPP)
    assert len(cases) == 974
    found = values([(f"```python\n{row['code']}\n```", mbpp(row)) for row in cases])
    slow = next(at for at, row in enumerate(cases) if "amicable_numbers_sum(9999)" in "".join(row["test_list"]))
    found.pop(slow)  # it takes four to six seconds of processor time, and five are allowed
    assert found == [1.0] * 973
    broken = [(f"def {mbpp(row)['entry']}(*args):\n    return None\n", mbpp(row)) for row in cases]
    assert values(broken) == [0.0] * 974
