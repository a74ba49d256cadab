"""mbpp: short Python functions from one sentence and three asserts (Austin et al. 2021, arXiv:2108.07732).

As published, problems 11 to 510 are the test, 601 to 974 are for training, and the asserts are shown: they name the
function. Its program is run against them by the scorer ``python_tests``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quantgate.errors import DataError
from quantgate.evaluate.published import Hub, Published, Rows, Table, WithShots
from quantgate.evaluate.published._tables import text_of
from quantgate.evaluate.suites import Case, Message

ASK = (
    "{text}\n\nThe code must pass these tests:\n```python\n{tests}\n```\n"
    "Answer with the whole Python code in one ```python block, without the tests."
)
TEST, TRAIN = range(11, 511), range(601, 975)
CALLED = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
WRAPPERS = {
    "assert",
    "set",
    "sorted",
    "list",
    "tuple",
    "str",
    "math",
    "isclose",
    "round",
    "len",
    "dict",
    "float",
    "not",
}


def case_of(where: str, row: Mapping[str, Any]) -> Case:
    text, code, tests = text_of(row, "text", where), text_of(row, "code", where), row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(one, str) and one.strip() for one in tests):
        raise DataError(f"{where}: 'test_list' is not a list of asserts; mend the line, or take the published file")
    setup = str(row.get("test_setup_code") or "")
    source = _lines(code)
    return Case(
        suite="mbpp",
        id=f"mbpp-{row['task_id']}",
        messages=(Message(role="user", content=ASK.format(text=text.strip(), tests=_lines("\n".join(tests)))),),
        scorer="python_tests",
        reference={
            "setup": "",
            "tests": f"{_lines(setup)}\n{_lines(chr(10).join(tests))}".strip(),
            "entry": _entry(tests),
        },
        slices=(f"tests={len(tests)}",),
        max_tokens=512,
        answer=f"```python\n{source}\n```",
    )


def _lines(code: str) -> str:
    return "\n".join(line.rstrip() for line in code.replace("\r\n", "\n").split("\n")).strip("\n")


def _entry(tests: list[str]) -> str | None:
    """The function that the asserts call: the first name that is not a built-in around it."""
    return next((name for name in CALLED.findall(tests[0]) if name not in WRAPPERS), None)


def _numbered(rows: Rows, wanted: range) -> list[Case]:
    for where, row in rows:
        if not isinstance(row["task_id"], int) or isinstance(row["task_id"], bool):
            raise DataError(f"{where}: 'task_id' is {row['task_id']!r} instead of a number; it says which split it is")
    return [case_of(where, row) for where, row in rows if row["task_id"] in wanted]


def read(rows: Mapping[str, Rows], options: WithShots, seed: int) -> list[Case]:
    return _numbered(rows["problems"], TEST)


def train(rows: Mapping[str, Rows], options: WithShots, seed: int) -> list[Case]:
    return _numbered(rows["problems"], TRAIN)


PUBLISHED = Published(
    name="mbpp",
    about="Short functions described in a sentence do not do what they should.",
    margin=0.03,
    licence="CC BY 4.0",
    source="google-research/google-research, mbpp",
    tables={
        "problems": Table(
            ("mbpp.jsonl",),
            ("task_id", "text", "code", "test_list"),
            ("test_setup_code", "challenge_test_list"),
            hub=Hub("google-research-datasets/mbpp", "full", "test+train"),
        )
    },
    read=read,
    train=train,
    options=WithShots,
)
