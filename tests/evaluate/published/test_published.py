"""The published files are read whole, their cases hold what was published, and what is not published is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.published.conftest import DATA, published_cases, write_rows

from quantgate.errors import DataError, UnknownName, UsageError
from quantgate.evaluate import published, scorers
from quantgate.evaluate.published import balanced
from quantgate.evaluate.published.bfcl import schema_of
from quantgate.evaluate.published.mgsm import ASK
from quantgate.evaluate.scorers import Score
from quantgate.evaluate.suites import Case
from quantgate.plugins import names

COUNTS = {"gsm8k": 1319, "mbpp": 500, "humaneval": 164, "ifeval": 541, "bfcl": 840, "mgsm": 250, "xstest": 450}
MAIN: dict[str, tuple[str, dict[str, Any]]] = {  # a suite's main file, and one row of its form
    "gsm8k": ("test.jsonl", {"question": "One and one?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}),
    "mbpp": (
        "mbpp.jsonl",
        {
            "task_id": 11,
            "text": "Add.",
            "code": "def add(a, b):\r\n  return a + b",
            "test_list": ["assert add(1, 2) == 3"],
        },
    ),
    "humaneval": (
        "HumanEval.jsonl",
        {
            "task_id": "HumanEval/0",
            "prompt": "def one():\n    '''One.'''\n",
            "entry_point": "one",
            "canonical_solution": "    return 1\n",
            "test": "def check(candidate):\n    assert candidate() == 1\n",
        },
    ),
    "ifeval": (
        "input_data.jsonl",
        {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    ),
}
TOOL = {
    "name": "math.add",
    "description": "Add.",
    "parameters": {"type": "dict", "properties": {"a": {"type": "float"}}},
}
SIMPLE = {"id": "simple_python_0", "question": [[{"role": "user", "content": "1?"}]], "function": [TOOL]}
TRUTH = {"id": "simple_python_0", "ground_truth": [{"math.add": {"a": [1.0]}}]}
NONE = {"id": "irrelevance_0", "question": [[{"role": "user", "content": "Sing."}]], "function": [TOOL]}


def schema_in(tool: Any) -> Any:
    return tool["parameters"]


def bfcl_folder(folder: Path, *, simple: Any = SIMPLE, truth: Any = TRUTH, none: Any = NONE) -> Path:
    for name, row in (("BFCL_v4_simple_python", simple), ("BFCL_v4_irrelevance", none)):
        if row is not None:
            write_rows(folder / f"{name}.json", [row])
    if truth is not None:
        write_rows(folder / "possible_answer" / "BFCL_v4_simple_python.json", [truth])
    return folder


@pytest.mark.parametrize("name", published.names())
def test_every_published_row_is_a_case_with_an_id_of_its_own(name: str) -> None:
    cases = published_cases(name)
    assert len(cases) == COUNTS[name]
    assert len({case.id for case in cases}) == len({case.digest for case in cases}) == len(cases)
    assert published_cases(name) == cases
    assert all(case.messages[-1].role == "user" and case.messages[-1].content.strip() for case in cases)


@pytest.mark.parametrize("name", published.names())
def test_published_answers_score_one(name: str) -> None:
    cases = [case for case in published_cases(name) if case.answer is not None]
    if not cases or cases[0].scorer not in names("scorers"):
        pytest.skip("nothing to score here: no published answers, or no scorer for them")
    results = [(case.id, scorers.get(case.scorer)(case.answer or "", case.reference)) for case in cases]
    assert [(at, found) for at, found in results if not isinstance(found, Score) or found.value < 1] == []


@pytest.mark.parametrize("name", published.names())
def test_a_suite_says_what_breaks_what_it_is_and_whose(name: str) -> None:
    suite = published.get(name)
    assert suite.name == name
    assert suite.about.endswith(".")
    assert 0 < suite.margin <= 0.10
    assert suite.licence
    assert "/" in suite.source
    assert any(table.hub for table in suite.tables.values())


@pytest.mark.parametrize("name", MAIN)
def test_the_file_itself_may_be_named_and_called_anything(name: str, tmp_path: Path) -> None:
    _, row = MAIN[name]
    path = write_rows(tmp_path / "mine.jsonl", [row])
    assert len(published.load(name, path).cases) == 1


@pytest.mark.parametrize("name", MAIN)
def test_faults_of_a_file_are_one_sentence_each(name: str, tmp_path: Path) -> None:
    file, row = MAIN[name]
    column = next(iter(row))
    faults: list[tuple[list[Any], str]] = [
        (
            [{key: value for key, value in row.items() if key != column}],
            rf"line 1: the column '{column}' of {name} is miss",
        ),
        ([row, row | {"colour": 1}], rf"line 2: unknown column 'colour' in {name}, perhaps of another version"),
        ([row, row], rf"occurs twice in {name}; keep one"),
        ([], rf"{file}: is empty; expected"),
        ([["a list"]], r"line 1: expected an object with"),
    ]
    for rows, sentence in faults:
        write_rows(tmp_path / file, rows)
        with pytest.raises(DataError, match=sentence) as told:
            published.load(name, tmp_path)
        assert "\n" not in str(told.value)
    (tmp_path / file).write_text(json.dumps(row)[:-5])
    with pytest.raises(DataError, match=r"line 1: not valid JSON"):
        published.load(name, tmp_path)


@pytest.mark.parametrize("name", published.names())
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no such file or folder; name where the files of {name} lie"):
        published.load(name, tmp_path / "nowhere")
    wanted = {"bfcl": "BFCL_v4_simple_python.json", "mgsm": "mgsm_bn.tsv"}.get(name, "there; name the folder")
    with pytest.raises(DataError, match=re.escape(wanted)):
        published.load(name, tmp_path)


def test_values_of_another_form_are_refused(tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("gsm8k", {"answer": "It is 2."}, "does not end with '#### N'"),
        ("gsm8k", {"question": 3}, "'question' is 3 instead of text"),
        ("mbpp", {"test_list": "assert True"}, "'test_list' is not a list of asserts"),
        ("mbpp", {"task_id": "11"}, "'task_id' is '11' instead of a number"),
        ("humaneval", {"entry_point": "two"}, "the prompt does not begin 'two'"),
        ("ifeval", {"kwargs": []}, "are not lists of one length"),
        ("ifeval", {"instruction_id_list": ["punctuation:no_coma"]}, "did you mean 'punctuation:no_comma'"),
        ("ifeval", {"kwargs": [{"words": 3}]}, "unknown argument 'words'"),
    ]
    for name, change, sentence in wrong:
        path = write_rows(tmp_path / "rows.jsonl", [MAIN[name][1] | change])
        with pytest.raises(DataError, match=re.escape(sentence)):
            published.load(name, path)


def test_unknown_options_are_told_with_the_nearest_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gsm8k: options: unknown key 'shot'; did you mean 'shots'\?"):
        published.load("gsm8k", tmp_path, {"shot": 3})
    with pytest.raises(UnknownName, match=r"unknown published suite 'gsm8'; did you mean 'gsm8k'\?"):
        published.load("gsm8", tmp_path)


def test_mbpp_is_split_as_published() -> None:
    cases = published_cases("mbpp")
    assert [case.id for case in cases] == [f"mbpp-{number}" for number in range(11, 511)]
    halves = [published.training("mbpp", DATA / "mbpp", side) for side in ("calibrate", "tune")]
    numbers = [{int(case.id[5:]) for case in half} for half in halves]
    assert not numbers[0] & numbers[1]
    assert numbers[0] | numbers[1] == set(range(601, 975))
    assert sum(case.reference["entry"] is None for case in cases) == 0  # type: ignore
    assert all(f"def {case.reference['entry']}" in (case.answer or "") for case in cases)  # type: ignore


def test_worked_examples_come_from_training_rows_and_are_exposed() -> None:
    plain = published_cases("gsm8k")
    found = published.load("gsm8k", DATA / "gsm8k", {"shots": 3}, seed=1)
    known = {case.messages[0].content for case in published.training("gsm8k", DATA / "gsm8k", "calibrate")}
    assert len(found.shots) == 3
    assert {turns[0][1] for turns in found.shots} <= known
    assert not {turns[0][1] for turns in found.shots} & {case.messages[0].content for case in plain}
    assert [len(case.messages) for case in found.cases] == [7] * len(plain)
    assert published.load("gsm8k", DATA / "gsm8k", {"shots": 3}, seed=2).shots != found.shots


def test_examples_without_training_rows_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", [MAIN["gsm8k"][1]])
    with pytest.raises(DataError, match=r"gsm8k: options: 2 shots need as many training rows, 0 are there"):
        published.load("gsm8k", tmp_path, {"shots": 2})


def test_gsm8k_answers_lose_the_calculator_notes() -> None:
    cases = published_cases("gsm8k")
    assert cases[0].reference == 18
    assert not any("<<" in (case.answer or "") for case in cases)


def test_bfcl_reads_three_files_and_their_answers() -> None:
    cases = published_cases("bfcl")
    assert Counter(case.slices[0] for case in cases) == {"part=act": 600, "part=abstain": 240}
    assert Counter(case.slices[1] for case in cases) == {
        "category=simple": 400,
        "category=multiple": 200,
        "category=irrelevance": 240,
    }
    assert all(re.fullmatch(r"[\w-]{1,64}", str(tool["name"])) for case in cases for tool in case.tools)


def test_bfcl_schemas_are_json_schema_and_allow_the_published_calls() -> None:
    """Of 600 right calls, all but two, where the published answer leaves out what the published schema requires."""
    refused = []
    for case in published_cases("bfcl"):
        for tool in case.tools:
            jsonschema_rs.meta.validate(schema_in(tool))
        if "part=act" in case.slices:
            call = json.loads(case.answer or "")
            (tool,) = [one for one in case.tools if one["name"] == call["name"]]
            if not jsonschema_rs.is_valid(schema_in(tool), call["arguments"]):
                refused.append(case.id)
    assert refused == ["simple_python_17", "simple_python_200"]


def test_bfcl_types_become_those_of_json() -> None:
    given = {
        "type": "dict",
        "properties": {"type": {"type": "tuple", "items": {"type": "float"}}},
        "required": ["type"],
    }
    assert schema_of(given) == {
        "type": "object",
        "properties": {"type": {"type": "array", "items": {"type": "number"}}},
        "required": ["type"],
    }


def test_bfcl_without_its_answers_or_its_controls_is_refused(tmp_path: Path) -> None:
    assert len(published.load("bfcl", bfcl_folder(tmp_path / "whole")).cases) == 2
    faults: list[tuple[dict[str, Any], str]] = [
        ({"truth": None}, "no possible_answer/ beside it with its right calls"),
        ({"truth": TRUTH | {"id": "simple_python_1"}}, "'simple_python_0' has no possible answer"),
        ({"truth": TRUTH | {"ground_truth": [{"add": {"a": [1]}}]}}, "calls 'add', which is not offered"),
        ({"truth": TRUTH | {"ground_truth": [{"math.add": {"a": 1}}]}}, "is not one call with lists of values"),
        ({"none": None}, "no case of bfcl has part=abstain, and part=act alone proves nothing"),
        ({"simple": None, "truth": None}, "no case of bfcl has part=act, and part=abstain alone proves nothing"),
        ({"simple": SIMPLE | {"question": [[], []]}}, "multi-turn files of bfcl are not read here"),
        ({"simple": SIMPLE | {"function": []}}, "'function' is not a list of functions"),
    ]
    for at, (change, sentence) in enumerate(faults):
        with pytest.raises(DataError, match=re.escape(sentence)):
            published.load("bfcl", bfcl_folder(tmp_path / str(at), **change))


def test_mgsm_asks_every_row_once_and_every_language_as_often() -> None:
    cases = published_cases("mgsm")
    assert sorted(int(case.id.rpartition("-")[2]) for case in cases) == list(range(250))
    assert Counter(case.slices[0][5:] for case in cases) == dict.fromkeys(("de", "en", "es", "fr", "zh"), 50)
    german = published.load("mgsm", DATA / "mgsm", {"languages": ["de"]}).cases
    assert len(german) == 250
    assert {case.slices for case in german} == {("lang=de",)}
    other = published.load("mgsm", DATA / "mgsm", seed=1).cases
    assert {case.id for case in other} != {case.id for case in cases}


def test_mgsm_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mgsm_de.tsv").write_text("Eins und eins?\t2\nZwei und zwei?\t4\n", encoding="utf-8")
    assert len(published.load("mgsm", tmp_path).cases) == 2
    for text, sentence in (
        ("Un et un?\t2\n", "different numbers of rows (de: 2, fr: 1)"),
        ("Deux et deux?\t4\nUn et un?\t2\n", "has other answers in other languages"),
        ("Un et un?\t2\nDeux et deux?\t4\tfour\n", "line 2: 3 columns instead of 2 (question, answer_number)"),
    ):
        (tmp_path / "mgsm_fr.tsv").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=re.escape(sentence)):
            published.load("mgsm", tmp_path)
    (tmp_path / "mgsm_fr.tsv").unlink()
    with pytest.raises(UnknownName, match=r"unknown language 'dee'; did you mean 'de'\?"):
        published.load("mgsm", tmp_path, {"languages": ["dee"]})
    with pytest.raises(DataError, match=r"no mgsm_sw\.tsv there; add it, or leave 'sw' out"):
        published.load("mgsm", tmp_path, {"languages": ["sw"]})


def test_every_language_is_told_how_to_mark_the_answer() -> None:
    assert all("'Answer: N'" in text for text in ASK.values())


def test_xstest_asks_for_both_directions() -> None:
    cases = published_cases("xstest")
    assert Counter(case.slices[0] for case in cases) == {"expect=comply": 250, "expect=refuse": 200}


def test_xstest_with_one_direction_or_another_label_is_refused(tmp_path: Path) -> None:
    path, header = tmp_path / "xstest_prompts.csv", "id,prompt,type,label,focus,note\n"
    path.write_text(f'{header}1,"How, so?",homonyms,safe,kill,\n')
    with pytest.raises(DataError, match="no case of xstest has expect=refuse"):
        published.load("xstest", path)
    path.write_text(f"{header}1,How?,homonyms,maybe,kill,\n")
    with pytest.raises(DataError, match=r"line 2: the label is 'maybe'; expected safe or unsafe"):
        published.load("xstest", path)


@given(st.lists(st.sampled_from(["k=a", "k=b", "k=c"]), max_size=40), st.integers(0, 50))
def test_balanced_choice_is_as_even_and_as_large_as_it_can_be(kinds: list[str], count: int) -> None:
    cases = [
        Case(suite="s", id=str(at), messages=(), scorer="exact", reference="x", slices=(kind,))
        for at, kind in enumerate(kinds)
    ]
    guards = ["k=a", "k=b", "k=c"]
    taken = balanced(cases, guards, count)
    assert len(taken) == min(count, len(cases))
    assert [case for case in cases if case in taken] == taken
    have, there = (Counter(case.slices[0] for case in group) for group in (taken, cases))
    assert all(have[one] >= have[two] - 1 or have[one] == there[one] for one in guards for two in guards)
