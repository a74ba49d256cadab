"""ifeval: 541 prompts with instructions that a program can check (Zhou et al. 2023, arXiv:2311.07911).

The prompt is asked as it is. A case is right when all of its instructions are followed (strict, at prompt level); each
of the 25 instructions is a slice, of the cases that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantgate.errors import DataError
from quantgate.evaluate import scorers
from quantgate.evaluate.published import Hub, Options, Published, Rows, Table
from quantgate.evaluate.published._tables import text_of
from quantgate.evaluate.scorers import Unscored
from quantgate.evaluate.suites import Case, Message


def case_of(where: str, row: Mapping[str, Any]) -> Case:
    ids, arguments = row["instruction_id_list"], row["kwargs"]
    fits = isinstance(ids, list) and isinstance(arguments, list) and len(ids) == len(arguments) > 0
    if not fits or not all(isinstance(one, dict) for one in arguments):
        raise DataError(f"{where}: 'instruction_id_list' and 'kwargs' are not lists of one length; mend the line")
    asked: list[Any] = [
        {"id": name, "kwargs": {key: value for key, value in given.items() if value is not None}}
        for name, given in zip(ids, arguments, strict=True)
    ]
    case = Case(
        suite="ifeval",
        id=f"ifeval-{row['key']}",
        messages=(Message(role="user", content=text_of(row, "prompt", where)),),
        scorer="ifeval",
        reference={"instructions": asked},
        slices=tuple(sorted({f"instruction={name}" for name in ids})),
        max_tokens=1024,
    )
    found = scorers.get(case.scorer)("", case.reference)
    if isinstance(found, Unscored):
        raise DataError(f"{where}: its instructions cannot be checked ({found.reason}); take the published file")
    return case


def read(rows: Mapping[str, Rows], options: Options, seed: int) -> list[Case]:
    return [case_of(where, row) for where, row in rows["prompts"]]


PUBLISHED = Published(
    name="ifeval",
    about="Instructions on form (length, words, case, layout) are not followed.",
    margin=0.05,
    licence="Apache-2.0",
    source="google-research/google-research, instruction_following_eval/data",
    tables={
        "prompts": Table(
            ("input_data.jsonl", "ifeval_input_data.jsonl"),
            ("key", "prompt", "instruction_id_list", "kwargs"),
            hub=Hub("google/IFEval", file="ifeval_input_data.jsonl"),
        )
    },
    read=read,
)
