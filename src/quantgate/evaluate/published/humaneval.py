"""humaneval: Python functions from a signature and a docstring (Chen et al. 2021, arXiv:2107.03374).

164 problems: enough to prove a margin of ten percent, rarely one of three. The program is run against the published
tests by the scorer ``python_tests``; an answer that only continues the given lines is put behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantgate.errors import DataError
from quantgate.evaluate.published import Hub, Options, Published, Rows, Table
from quantgate.evaluate.published._tables import text_of
from quantgate.evaluate.suites import Case, Message

ASK = (
    "Complete this Python function.\n```python\n{prompt}\n```\n"
    "Answer with the whole function, and the imports it needs, in one ```python block."
)


def case_of(where: str, row: Mapping[str, Any]) -> Case:
    prompt, entry = text_of(row, "prompt", where), text_of(row, "entry_point", where)
    tests, solution = text_of(row, "test", where), text_of(row, "canonical_solution", where)
    if f"def {entry}" not in prompt or "def check(" not in tests:
        raise DataError(f"{where}: the prompt does not begin '{entry}', or the tests have no 'check'; mend the line")
    return Case(
        suite="humaneval",
        id=text_of(row, "task_id", where),
        messages=(Message(role="user", content=ASK.format(prompt=prompt.strip("\n"))),),
        scorer="python_tests",
        reference={"setup": prompt, "tests": f"{tests.strip()}\n\ncheck({entry})", "entry": entry},
        slices=(f"examples={'yes' if '>>>' in prompt else 'no'}",),
        max_tokens=640,
        answer=f"```python\n{prompt}{solution}\n```",
    )


def read(rows: Mapping[str, Rows], options: Options, seed: int) -> list[Case]:
    return [case_of(where, row) for where, row in rows["problems"]]


PUBLISHED = Published(
    name="humaneval",
    about="Functions completed from their docstring fail their tests.",
    margin=0.10,
    licence="MIT",
    source="openai/human-eval, data",
    tables={
        "problems": Table(
            ("HumanEval.jsonl",),
            ("task_id", "prompt", "entry_point", "canonical_solution", "test"),
            hub=Hub("openai/openai_humaneval", None, "test"),
        )
    },
    read=read,
)
