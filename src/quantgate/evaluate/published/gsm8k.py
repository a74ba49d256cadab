"""gsm8k: grade-school word problems of two to eight steps (Cobbe et al. 2021, arXiv:2110.14168).

A row has a question and a worked solution that ends with ``#### N``; what stands in ``<<16-3=13>>`` is a calculator's
note, not text. Asked without examples, or with worked ones from the training rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quantgate.errors import DataError
from quantgate.evaluate.published import Hub, Published, Rows, Table, WithShots
from quantgate.evaluate.published._tables import text_of
from quantgate.evaluate.suites import Case, Message
from quantgate.records import digest_of

ASK = "{question}\n\nWork it out step by step, and end with a line 'Answer: N', where N is the number alone."
NOTE = re.compile(r"<<[^>]*>>")
COLUMNS = ("question", "answer")


def case_of(where: str, row: Mapping[str, Any]) -> Case:
    question, solution = text_of(row, "question", where), text_of(row, "answer", where)
    steps, mark, end = solution.rpartition("####")
    figure = end.strip().replace(",", "")
    if not mark or not re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", figure):
        raise DataError(f"{where}: the answer does not end with '#### N'; mend the line, or take the published file")
    number: int | float = float(figure) if "." in figure else int(figure)
    return Case(
        suite="gsm8k",
        id=f"gsm8k-{digest_of(question)[7:19]}",
        messages=(Message(role="user", content=ASK.format(question=question.strip())),),
        scorer="numeric",
        reference=number,
        slices=(f"steps={_steps(steps)}",),
        max_tokens=400,
        answer=f"{NOTE.sub('', steps).strip()}\nAnswer: {figure}",
    )


def _steps(solution: str) -> str:
    lines = sum(bool(line.strip()) for line in solution.splitlines())
    return "1-2" if lines <= 2 else "3-4" if lines <= 4 else "5+"


def read(rows: Mapping[str, Rows], options: WithShots, seed: int) -> list[Case]:
    return [case_of(where, row) for where, row in rows["test"]]


def train(rows: Mapping[str, Rows], options: WithShots, seed: int) -> list[Case]:
    return [case_of(where, row) for where, row in rows.get("train", [])]


PUBLISHED = Published(
    name="gsm8k",
    about="Word problems that take several steps end in a wrong number.",
    margin=0.03,
    licence="MIT",
    source="openai/grade-school-math, grade_school_math/data",
    tables={
        "test": Table(("test.jsonl",), COLUMNS, hub=Hub("openai/gsm8k", "main", "test")),
        "train": Table(
            ("train.jsonl", "train_*.jsonl"),
            COLUMNS,
            hub=Hub("openai/gsm8k", "main", "train"),
            needed=False,
            beside=True,
        ),
    },
    read=read,
    train=train,
    options=WithShots,
)
