"""Published suites in a release and in a comparison: by name and path, with their guards, margins and training rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.published.conftest import DATA, published_cases, write_rows

from quantgate.errors import DataError, Overlap, UnknownName, UsageError
from quantgate.evaluate import published
from quantgate.pipeline import compare_models, probing, published_suites
from quantgate.pipeline.cases import Cases, cases_of
from quantgate.pipeline.published_suites import training_conversations
from quantgate.pipeline.two_models import named
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig, load_config


def release_of(capabilities: dict[str, Any], **more: Any) -> ReleaseConfig:
    return parse(ReleaseConfig, {"capabilities": capabilities, "variants": ["W8A16"]} | more, where="release.yaml")


def drawn(capabilities: dict[str, Any], variants: int = 1, **more: Any) -> Cases:
    return cases_of(release_of(capabilities, **more), variants)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A small GSM8K: 120 test rows, 40 training rows."""
    for name, start, count in (("test", 0, 120), ("train", 500, 40)):
        rows = [
            {"question": f"What is {at} and {at}?", "answer": f"It is {2 * at}.\n#### {2 * at}"}
            for at in range(start, start + count)
        ]
        write_rows(tmp_path / "gsm8k" / f"{name}.jsonl", rows)
    return tmp_path / "gsm8k"


def test_capability_names_its_suite_or_is_called_like_it(sums: Path) -> None:
    by_suite = drawn({"math": {"suite": "gsm8k", "path": str(sums)}}).gate["math"]
    by_name = drawn({"gsm8k": {"path": str(sums / "test.jsonl")}}).gate["gsm8k"]
    assert by_suite == by_name
    assert len(by_suite) == 120


def test_path_is_seen_from_the_folder_of_the_release(sums: Path) -> None:
    body = {"capabilities": {"math": {"suite": "gsm8k", "path": "gsm8k"}}, "variants": ["W8A16"]}
    (sums.parent / "release.yaml").write_text(json.dumps(body))
    found = cases_of(load_config(sums.parent / "release.yaml"), 1)
    assert (found.gates[0].capability, found.gates[0].suite) == ("math", "gsm8k")


def test_margin_is_the_suites_own_unless_one_is_given(sums: Path) -> None:
    data = {"path": str(sums)}
    assert drawn({"gsm8k": data}).gates[0].margin == published.get("gsm8k").margin
    assert drawn({"gsm8k": data | {"margin": "12%"}}).gates[0].margin == 0.12


def test_gate_of_a_suite_without_guards_keeps_its_old_digest(sums: Path) -> None:
    assert "slices" not in drawn({"gsm8k": {"path": str(sums)}}).gates[0].body()


def test_training_rows_serve_calibration_and_drift_in_disjoint_halves(sums: Path) -> None:
    config = release_of({"gsm8k": {"path": str(sums)}}, drift_cases=100)
    drift = {case.messages[0].content for case in cases_of(config, 1).drift}
    calibration = {turns[0][1] for turns in training_conversations(config, 100)}
    assert len(drift) + len(calibration) == 40
    assert not drift & calibration
    assert min(len(drift), len(calibration)) > 8


def test_mixtures_are_chosen_by_training_rows_and_repairs_judged_on_test_rows_nobody_asked(sums: Path) -> None:
    config = release_of({"gsm8k": {"path": str(sums), "cases": 50}}, drift_cases=5)
    probing.check(config)
    found = cases_of(config, 1)
    tuning = {case.id for case in published_suites.tuning_cases(config, "gsm8k")}
    assert tuning
    assert not tuning & {case.id for case in (*found.drift, *found.gate["gsm8k"])}
    asked = [{case.id for case in found.gate["gsm8k"]}]
    for number in (1, 2):
        wanted = config.capabilities["gsm8k"]
        fresh = published_suites.fresh_cases("gsm8k", "gsm8k", wanted, found.gates[0], number, 30)
        asked.append({case.id for case in fresh})
    assert [len(one) for one in asked] == [50, 30, 30]
    assert len(set().union(*asked)) == 110


def test_mixture_without_training_rows_is_refused(sums: Path) -> None:
    (sums / "train.jsonl").unlink()
    with pytest.raises(DataError, match="gsm8k: gsm8k has no training rows there to choose layers by"):
        probing.check(release_of({"gsm8k": {"path": str(sums)}}))


def test_worked_example_that_is_also_a_case_is_refused(sums: Path) -> None:
    rows = (sums / "test.jsonl").read_text().splitlines()
    write_rows(sums / "train.jsonl", [json.loads(row) for row in rows[:40]])
    with pytest.raises(Overlap, match="calibration overlaps with the gate: an example shown with the cases"):
        drawn({"gsm8k": {"path": str(sums), "options": {"shots": 2}}})


@pytest.mark.parametrize(
    ("capabilities", "sentence"),
    [
        ({"math": {"path": "data"}}, "capabilities: math: 'path' is for published suites"),
        ({"math": {"options": {"shots": 1}}}, "capabilities: math: 'options' is for published suites"),
        ({"gsm8": {"path": "data"}}, "unknown capability 'gsm8'; did you mean 'gsm8k'?"),
        ({"gsm8k": {"path": "data", "hard": 5}}, "capabilities: gsm8k: 'hard' is for built-in suites"),
        ({"gsm8k": {"path": "data", "options": {"shot": 1}}}, "unknown key 'shot'; did you mean 'shots'?"),
    ],
)
def test_wrong_use_is_one_sentence(capabilities: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as told:
        drawn(capabilities)
    assert sentence in str(told.value)


def test_both_sides_of_bfcl_are_asked_as_often_and_registered_as_slices() -> None:
    published_cases("bfcl")  # skips where there are none
    found = drawn({"tools": {"suite": "bfcl", "path": str(DATA / "bfcl"), "cases": 300}})
    assert [(one.name, one.judged) for one in found.gates[0].slices] == [("part=act", True), ("part=abstain", True)]
    assert sum("part=act" in case.slices for case in found.gate["tools"]) == 150
    assert len(found.gate["tools"]) == 300


def test_guard_that_cannot_pass_is_refused_beforehand() -> None:
    published_cases("xstest")
    with pytest.raises(UsageError, match=r"xstest \[expect=comply\]: a margin of 1 % .* 250 are available"):
        drawn({"xstest": {"path": str(DATA / "xstest"), "margin": "1%", "cases": 650}})


def test_command_names_a_suite_with_its_folder(sums: Path) -> None:
    assert named(f"gsm8k={sums}/test.jsonl") == ("gsm8k", {"path": f"{sums}/test.jsonl"})
    assert named("runs/a=b.jsonl") == ("a=b", {"suite": "runs/a=b.jsonl"})
    with pytest.raises(UnknownName, match=r"unknown capability 'gsm8'; did you mean 'gsm8k'\?"):
        compare_models("./a", "./b", ["gsm8=data"])


def test_random_model_beside_itself_proves_nothing_on_a_published_suite(
    place: Path, sums: Path, tmp_path: Path
) -> None:
    """A model that solves nothing keeps all of nothing: told so, and not passed."""
    result = compare_models(
        str(place / "model"), str(place / "model"), [f"gsm8k={sums}"], margin="10%", out=tmp_path / "out"
    )
    (verdict,) = result.verdicts
    assert verdict.verdict == "inconclusive"
    assert result.comparisons[0].baseline_score == 0.0
