"""bfcl: call the right function with the right arguments, and none where none fits (Patil et al. 2025, BFCL v3 and v4).

Read are ``simple`` (one function), ``multiple`` (the right one of several) and ``irrelevance`` (none fits). Calling and
abstaining are two things: a model that always abstains keeps the one whole and loses the other, so both must hold one
by one, and files that hold only one of them are refused.

Published schemas have types of Python; what is offered to a model has JSON's. A point in a function's name becomes an
underscore, as the names of OpenAI's interface hold none; the scorer takes either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from quantgate.errors import DataError
from quantgate.evaluate.published import Hub, Options, Published, Rows, Table
from quantgate.evaluate.suites import Case, Message
from quantgate.records import canonical

Category = Literal["simple", "multiple", "irrelevance"]
CATEGORIES: tuple[Category, ...] = ("simple", "multiple", "irrelevance")
ASK = (
    "If one of the functions does what the user asks, answer with one call of it and nothing else. "
    "If none of them does, call nothing: say in a sentence that none fits."
)
JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
ABSTAINED = "None of the functions fits this request, so I do not call one."


class Categories(Options):
    categories: tuple[Category, ...] = Field(default=CATEGORIES, description="which files to read")


def schema_of(value: Any) -> Any:
    """A published schema in JSON's types: dict is object, float number, tuple array, and any says nothing.

    >>> schema_of({"type": "dict", "properties": {"x": {"type": "float"}, "y": {"type": "any"}}})
    {'type': 'object', 'properties': {'x': {'type': 'number'}, 'y': {}}}
    """
    if isinstance(value, list):
        return [schema_of(one) for one in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    if not isinstance(kind, str):  # a property may itself be called "type"
        return {name: schema_of(one) for name, one in value.items()}
    rest = {name: schema_of(one) for name, one in value.items() if name not in ("type", "optional")}
    return rest if kind == "any" else {"type": JSON_TYPES.get(kind, kind.lower()), **rest}


def case_of(category: Category, where: str, row: Mapping[str, Any], answers: Mapping[str, Any]) -> Case:
    tools, turns, name = _tools(where, row), _turns(where, row), str(row["id"])
    act = category != "irrelevance"
    reference: dict[str, Any] = {"abstain": True, "functions": [tool["name"] for tool in tools]}
    answer = ABSTAINED
    if act:
        if name not in answers:
            raise DataError(f"{where}: '{name}' has no possible answer; take both files of the same version")
        function, accepted = _accepted(where, answers[name], [str(one["name"]) for one in row["function"]])
        reference = {"name": function, "arguments": accepted}
        answer = _call(function, accepted)
    return Case(
        suite="bfcl",
        id=name,
        messages=(Message(role="system", content=ASK), *turns),
        scorer="function_call",
        reference=reference,
        slices=(f"part={'act' if act else 'abstain'}", f"category={category}"),
        max_tokens=256,
        answer=answer,
        tools=tuple(tools),
    )


def _tools(where: str, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    functions = row["function"]
    fits = isinstance(functions, list) and functions
    if not fits or not all(isinstance(one, dict) and {"name", "parameters"} <= set(one) for one in functions):
        raise DataError(f"{where}: 'function' is not a list of functions with name and parameters; mend the line")
    return [
        {
            "name": plain_name(str(one["name"])),
            "description": str(one.get("description", "")),
            "parameters": schema_of(one["parameters"]),
        }
        for one in functions
    ]


def plain_name(name: str) -> str:
    """
    >>> plain_name("math.factorial")
    'math_factorial'
    """
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _turns(where: str, row: Mapping[str, Any]) -> list[Message]:
    question = row["question"]
    if not isinstance(question, list) or len(question) != 1 or not isinstance(question[0], list) or not question[0]:
        raise DataError(f"{where}: 'question' is not one list of turns; multi-turn files of bfcl are not read here")
    turns = question[0]
    if not all(isinstance(one, dict) and one.get("role") in ("system", "user") and one.get("content") for one in turns):
        raise DataError(f"{where}: a turn of 'question' has no role or content; mend the line")
    return [Message(role=one["role"], content=str(one["content"])) for one in turns]


def _accepted(where: str, truth: Any, offered: list[str]) -> tuple[str, dict[str, list[Any]]]:
    """Name and acceptable values of each argument of the one call that is right."""
    fits = isinstance(truth, list) and len(truth) == 1 and isinstance(truth[0], dict) and len(truth[0]) == 1
    (function, arguments) = next(iter(truth[0].items())) if fits else ("", None)
    if not isinstance(arguments, dict) or not all(isinstance(one, list) and one for one in arguments.values()):
        raise DataError(f"{where}: its possible answer is not one call with lists of values; take the published file")
    if function not in offered:
        raise DataError(f"{where}: its possible answer calls '{function}', which is not offered; take the same version")
    return plain_name(function), arguments


def _call(function: str, accepted: Mapping[str, list[Any]]) -> str:
    """One right call: the first acceptable value of every argument, without those that may be left out."""
    arguments = {name: _first(values) for name, values in accepted.items() if "" not in values}
    return canonical({"name": function, "arguments": arguments}).decode()


def _first(values: list[Any]) -> Any:
    """Inside an object, too, every value is a list of acceptable ones."""
    return _single(values[0])


def _single(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _first(one) for name, one in value.items() if not (isinstance(one, list) and "" in one)}
    return [_single(one) for one in value] if isinstance(value, list) else value


def read(rows: Mapping[str, Rows], options: Categories, seed: int) -> list[Case]:
    cases: list[Case] = []
    for category in options.categories:
        if category not in rows:
            continue
        answers = {str(row["id"]): row["ground_truth"] for _, row in rows.get(f"{category} answers", [])}
        if category != "irrelevance" and not answers:
            where = rows[category][0][0].rpartition(", ")[0]
            raise DataError(f"{where}: no possible_answer/ beside it with its right calls; take both as published")
        cases += [case_of(category, where, row, answers) for where, row in rows[category]]
    return cases


def _tables() -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for category in CATEGORIES:
        hub = f"BFCL_v3_{category}.json"
        files = f"BFCL_v[0-9]_{'simple*' if category == 'simple' else category}.json"
        shown = "BFCL_v4_simple_python.json" if category == "simple" else f"BFCL_v4_{category}.json"
        dataset = "gorilla-llm/Berkeley-Function-Calling-Leaderboard"
        tables[category] = Table(
            (shown, files), ("id", "question", "function"), hub=Hub(dataset, file=hub), needed=False
        )
        if category != "irrelevance":
            tables[f"{category} answers"] = Table(
                (f"possible_answer/{shown}", f"possible_answer/{files}"),
                ("id", "ground_truth"),
                hub=Hub(dataset, file=f"possible_answer/{hub}"),
                needed=False,
                beside=True,
            )
    return tables


PUBLISHED = Published(
    name="bfcl",
    about="The wrong function is called, with wrong arguments, or one is called where none fits.",
    margin=0.05,
    licence="Apache-2.0",
    source="ShishirPatil/gorilla, berkeley-function-call-leaderboard/bfcl_eval/data",
    tables=_tables(),
    read=read,
    options=Categories,
    guards=("part=act", "part=abstain"),
)
