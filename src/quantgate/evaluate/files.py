"""A user's own suite: a JSONL file, one case per line, checked as strictly as a built-in one.

    {"id": "refund-1", "messages": [{"role": "user", "content": "..."}], "scorer": "exact", "reference": "yes",
     "slices": ["lang=en"], "max_tokens": 16}

``prompt`` may stand for a single user message; ``id`` and ``slices`` may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantgate import plugins
from quantgate.calibrate import Turns
from quantgate.errors import DataError, Overlap, UnknownName
from quantgate.evaluate.suites import Case
from quantgate.records import digest_of, parse


def read_suite(path: Path, capability: str) -> list[Case]:
    """All cases of a JSONL suite. Raises DataError for a broken line, an empty suite, a duplicate id or problem."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such suite file; name an existing one for the capability '{capability}'") from None
    except UnicodeDecodeError as broken:
        raise DataError(f"{path}: not UTF-8 text near byte {broken.start}; save it as UTF-8") from None
    cases = [_case(line, capability, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    check_cases(cases, str(path))
    return cases


def _case(line: str, capability: str, where: str) -> Case:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as broken:
        raise DataError(f"{where}: not valid JSON ({broken.msg} at column {broken.colno}); mend or remove the line") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object with messages, scorer and reference")
    if "prompt" in row:
        row["messages"] = [{"role": "user", "content": row.pop("prompt")}]
    row.setdefault("id", f"{capability}-{digest_of(row)[7:19]}")
    case = parse(Case, {**row, "suite": capability}, where=where, error=DataError)
    if case.scorer not in plugins.names("scorers"):
        raise UnknownName("scorer", case.scorer, plugins.names("scorers"), where=where)
    if not case.messages or case.messages[-1].role == "assistant":
        raise DataError(f"{where}: messages must end with the turn that the model answers, not with an answer")
    return case


def check_cases(cases: Sequence[Case], where: str) -> None:
    """Raises DataError when there is no case, or when an id or a whole problem occurs twice."""
    if not cases:
        raise DataError(f"{where}: the suite is empty; a gate needs at least one case, and about 100 to prove a 3 % margin")
    seen: dict[str, int] = {}
    for kind, keys in (("id", [case.id for case in cases]), ("prompt", [prompt_key(case) for case in cases])):
        seen = {}
        for index, key in enumerate(keys):
            if key in seen:
                first, second = cases[seen[key]].id, cases[index].id
                what = f"id '{first}' occurs twice" if kind == "id" else f"'{first}' and '{second}' ask the same"
                raise DataError(f"{where}: {what} (cases {seen[key] + 1} and {index + 1}); keep one of them")
            seen[key] = index


def check_overlap(calibration: Sequence[Turns], cases: Sequence[Case]) -> None:
    """Raises Overlap when a gate case was also calibrated on, comparing whole prompts without regard to case or spaces."""
    seen = {_key(_asked(turns)): index for index, turns in enumerate(calibration)}
    for case in cases:
        index = seen.get(prompt_key(case))
        if index is not None:
            raise Overlap(
                f"calibration sample {index + 1} is also the gate case '{case.id}'; a gate must ask what calibration has "
                "not seen: remove it from one of the two"
            )


def prompt_key(case: Case) -> str:
    return _key(tuple((message.role, message.content) for message in case.messages))


def _asked(turns: Turns) -> Turns:
    return turns[:-1] if turns[-1][0] == "assistant" else turns


def _key(turns: Turns) -> str:
    return digest_of([[role, " ".join(content.casefold().split())] for role, content in turns])
