"""Overlap on real data: translations, renamed code, reworded tool calls are found; what is unrelated is not."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from quantgate.evaluate import suites
from quantgate.evaluate.overlap import Overlaps, Sample, find
from quantgate.evaluate.suites import Case, Message

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets do not lie beside the checkout")
LANGUAGES = ("de", "es", "fr", "zh")
TWINS = 250  # rows of MGSM, which are the first rows of GSM8K's test split


@cache
def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


@cache
def gsm8k(split: str = "test") -> list[tuple[str, str]]:
    rows = lines(f"gsm8k/{split}.jsonl")
    return [(row["question"], row["answer"].split("####")[1].strip().replace(",", "")) for row in rows]


@cache
def mgsm(language: str) -> list[tuple[str, str]]:
    text = (DATA / "mgsm" / f"mgsm_{language}.tsv").read_text("utf-8")
    return [(line.rsplit("\t", 1)[0], line.rsplit("\t", 1)[1].replace(",", "")) for line in text.split("\n") if line]


def cases(rows: list[tuple[str, str]]) -> list[Case]:
    return [
        Case(suite="s", id=str(at), messages=(Message(role="user", content=q),), scorer="numeric", reference=float(a))
        for at, (q, a) in enumerate(rows)
    ]


def samples(rows: list[tuple[str, str]], system: str = "") -> list[Sample]:
    front = (("system", system),) if system else ()
    return [Sample(at, (*front, ("user", q), ("assistant", a))) for at, (q, a) in enumerate(rows, 1)]


def right(found: Overlaps) -> float:
    """The share of samples beside which the case of the same place is named."""
    return len({pair.sample for pair in found.blocking if pair.case == str(pair.sample - 1)}) / found.samples


@pytest.mark.parametrize("language", LANGUAGES)
def test_translated_twins_are_found_from_either_side(language: str) -> None:
    assert right(find(samples(mgsm(language)), cases(gsm8k()[:TWINS]))) >= 0.95
    assert right(find(samples(gsm8k()[:TWINS]), cases(mgsm(language)))) >= 0.95


@pytest.mark.parametrize("language", ("en", *LANGUAGES))
def test_other_problems_of_the_same_kind_are_not_called_twins(language: str) -> None:
    assert find(samples(mgsm(language)), cases(gsm8k()[TWINS:])).items <= 0.01 * TWINS


def test_training_rows_are_not_called_test_rows_and_a_shared_template_changes_nothing() -> None:
    system = "You are a careful assistant. Solve the problem step by step and end with: #### number"
    assert find(samples(gsm8k("train_400"), system), cases(gsm8k())).items <= 4


def test_unrelated_prose_does_not_overlap() -> None:
    stories = (DATA / "tinystories" / "tinystories_sample.txt").read_text("utf-8").split()
    pages = (DATA / "wikitext2" / "wikitext2_raw_test.txt").read_text("utf-8").split()
    told, asked = ([(" ".join(all_[at : at + 120]), "0") for at in range(0, 60_000, 120)] for all_ in (stories, pages))
    assert find(samples(told), cases(asked)).items == 0
    assert find(samples(asked[:250]), cases(asked[250:])).items == 0


@pytest.mark.parametrize("name", suites.names())
def test_calibrate_split_of_a_built_in_suite_is_not_called_its_gate_split(name: str) -> None:
    gate, drawn = suites.cases(name, "gate", 400), suites.cases(name, "calibrate", 400)
    told = [
        Sample(at, (*((one.role, one.content) for one in case.messages), ("assistant", case.answer or "")))
        for at, case in enumerate(drawn, 1)
    ]
    assert find(told, gate).items <= 0.01 * len(told)
    assert find(told, gate, apart=[name]).items == 0


def renamed(row: dict[str, Any]) -> str:
    """The solution with other names, without docstrings and comments, as another project would host it."""
    tree = ast.parse(row["prompt"] + row["canonical_solution"])
    names: dict[str, str] = {}
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in own:
            node.id = names.setdefault(node.id, f"v{len(names)}_")
        if isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"v{len(names)}_")
        if isinstance(node, ast.FunctionDef):
            node.name = names.setdefault(node.name, f"v{len(names)}_")
            node.body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
    return ast.unparse(tree)


def test_humaneval_is_found_under_other_names_by_its_code_or_by_its_text() -> None:
    rows = lines("humaneval/HumanEval.jsonl")
    gate = [
        Case(
            suite="humaneval", id=str(at), messages=(Message(role="user", content=row["prompt"]),), scorer="exact",
            reference="code", answer=row["canonical_solution"],
        )
        for at, row in enumerate(rows)
    ]  # fmt: skip
    code = [Sample(at, (("user", f"Review:\n```python\n{renamed(row)}\n```"),)) for at, row in enumerate(rows, 1)]
    assert right(find(code, gate)) >= 0.85  # the others are a line or two long: anyone may write them
    text = [
        Sample(at, (("user", row["prompt"].replace(row["entry_point"], "task")),)) for at, row in enumerate(rows, 1)
    ]
    assert right(find(text, gate)) >= 0.95


SYNONYMS = {
    "find": "determine",
    "calculate": "work out",
    "what": "tell me which",
    "get": "fetch",
    "the": "that",
    "of": "for",
}


def reworded(text: str) -> str:
    text = re.sub(r"[A-Za-z]+", lambda word: SYNONYMS.get(word[0].lower(), word[0]), text)
    return "Could you help? " + " ".join(reversed(re.split(r"(?<=[.,?])\s+", text)))


def test_reworded_tool_calls_are_found_and_other_calls_of_the_same_tools_are_not() -> None:
    rows = lines("bfcl/BFCL_v4_simple_python.json")
    asked = [row["question"][0][0]["content"] for row in rows]
    gate = [
        Case(
            suite="bfcl", id=str(at), messages=(Message(role="user", content=text),), scorer="exact", reference="call",
            tools=tuple(row["function"]),
        )
        for at, (row, text) in enumerate(zip(rows, asked, strict=True))
    ]  # fmt: skip
    told = [
        Sample(at, (("user", reworded(text)),), tuple(row["function"]))
        for at, (row, text) in enumerate(zip(rows, asked, strict=True), 1)
    ]
    assert right(find(told, gate)) >= 0.95
    assert find([Sample(at, one.turns, one.tools) for at, one in enumerate(told[200:], 1)], gate[:200]).items <= 2
