"""A user's own suite: a JSONL file, one case per line, checked as strictly as a built-in one.

    {"id": "refund-1", "messages": [{"role": "user", "content": "..."}], "scorer": "exact", "reference": "yes",
     "slices": ["lang=en"], "max_tokens": 16}

``prompt`` may stand for a single user message; ``id``, ``slices``, ``max_tokens`` and ``answer`` may be left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantgate import plugins
from quantgate.calibrate import Turns, json_lines
from quantgate.errors import DataError, UnknownName
from quantgate.evaluate import scorers
from quantgate.evaluate.scorers import Unscored
from quantgate.evaluate.suites import Case
from quantgate.records import digest_of, parse


def read_suite(path: Path, capability: str) -> list[Case]:
    """All cases of a JSONL suite. Raises DataError for a broken line, an empty suite, a duplicate id or problem."""
    cases = [_case(row, capability, where) for where, row in json_lines(path, f"capabilities: {capability}: suite")]
    check_cases(cases, str(path))
    return cases


def _case(row: Any, capability: str, where: str) -> Case:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object with messages, scorer and reference")
    if "prompt" in row:
        if "messages" in row:
            raise DataError(f"{where}: 'prompt' and 'messages' both say what is asked; keep one of them")
        row["messages"] = [{"role": "user", "content": row.pop("prompt")}]
    row.setdefault("id", f"{capability}-{digest_of(row)[7:19]}")
    case = parse(Case, {**row, "suite": capability}, where=where, error=DataError)
    if case.scorer not in plugins.names("scorers"):
        raise UnknownName("scorer", case.scorer, plugins.names("scorers"), where=where)
    if not case.messages or case.messages[-1].role == "assistant":
        raise DataError(f"{where}: messages must end with the turn that the model answers, not with an answer")
    if case.max_tokens < 1:
        raise DataError(f"{where}: max_tokens is {case.max_tokens}; an answer needs at least 1 token")
    _try_scorer(case, where)
    return case


def _try_scorer(case: Case, where: str) -> None:
    """A reference that its scorer cannot read would void the case after both models were asked: find out now."""
    score = scorers.get(case.scorer)(case.answer or "", case.reference)
    if isinstance(score, Unscored):
        raise DataError(f"{where}: its scorer cannot use the reference ({score.reason}); mend the reference")
    if case.answer is not None and score.value < 1:
        raise DataError(
            f"{where}: 'answer' is meant to be right, but scorer '{case.scorer}' gives it {score.value:g} "
            f"({score.because}); mend one of the two"
        )


def check_cases(cases: Sequence[Case], where: str) -> None:
    """Raises DataError when there is no case, or when an id or a whole problem occurs twice."""
    if not cases:
        raise DataError(f"{where}: the suite is empty; a margin of 3 % needs about 150 cases, one of 10 % about 45")
    for kind, keys in (("id", [case.id for case in cases]), ("prompt", [prompt_key(case) for case in cases])):
        seen: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key in seen:
                first, second = cases[seen[key]].id, cases[index].id
                what = f"id '{first}' occurs twice" if kind == "id" else f"'{first}' and '{second}' ask the same"
                raise DataError(f"{where}: {what} (cases {seen[key] + 1} and {index + 1}); keep one of them")
            seen[key] = index


def prompt_key(case: Case) -> str:
    return _key(tuple((message.role, message.content) for message in case.messages))


def _key(turns: Turns) -> str:
    return digest_of([[role, " ".join(unicodedata.normalize("NFKC", text).casefold().split())] for role, text in turns])
