"""Suites made for a release: from release.yaml to cases, a comparison and a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.evaluate.tailored.conftest import traffic

from quantgate.errors import UnknownName, UsageError
from quantgate.evaluate.compare import visiting_order
from quantgate.evaluate.tailored import HELD_OUT, held_out
from quantgate.models import open_model
from quantgate.pipeline.cases import calibration_of, cases_of
from quantgate.pipeline.two_models import compare_models
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig


def config(capabilities: dict[str, Any], **other: Any) -> ReleaseConfig:
    data = {"capabilities": capabilities, "variants": ["W4A16"], "drift_cases": 0, **other}
    return parse(ReleaseConfig, data, where="release.yaml")


def test_a_capability_may_ask_a_tailored_suite_with_options() -> None:
    options = {"lengths": [300], "depths": [0, 1]}
    found = cases_of(config({"recall": {"suite": "needle", "options": options, "cases": 60}}), 1)
    (gate,), cases = found.gates, found.gate["recall"]
    assert (gate.capability, gate.suite, len(cases)) == ("recall", "needle", 60)
    assert {case.suite for case in cases} == {"recall"}
    assert {one for case in cases for one in case.slices} == {"length=300", "depth=0", "depth=1"}


def test_a_tailored_suite_is_asked_by_its_own_name_as_well() -> None:
    found = cases_of(config({"json_depth": {"cases": 60}}), 1)
    assert found.gates[0].suite == "json_depth" and len(found.gate["json_depth"]) == 60


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"suite": "needle", "hard": 5}, "'hard' is for built-in suites"),
        ({"suite": "needle", "options": {"length": [5]}}, "unknown key 'length'; did you mean 'lengths'"),
        ({"suite": "rare_traffic"}, "is made of your traffic; name it under calibration: traffic"),
        ({"suite": "key_value", "path": "x"}, "leave it out of key_value"),
    ],
)
def test_what_a_made_suite_cannot_take_is_told(wanted: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        cases_of(config({"one": wanted}), 1)


def test_an_unknown_capability_is_answered_with_tailored_suites_too() -> None:
    with pytest.raises(UnknownName, match="did you mean 'needle'"):
        cases_of(config({"nedle": {}}), 1)


def test_calibration_leaves_out_the_traffic_that_cases_are_made_of(tmp_path: Path) -> None:
    path = tmp_path / "traffic.jsonl"
    rows = traffic(300)
    path.write_text(
        "\n".join(json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}) for turns in rows)
    )
    asked = {"calibration": {"traffic": str(path), "samples": 300, "max_tokens": 64}}
    both = config({"terms": {"suite": "rare_traffic", "cases": 60}}, **asked)
    model = open_model("quantgate/reference")
    chosen = calibration_of(both, model)
    assert chosen.turns and not [one for one in chosen.turns if held_out(one) in HELD_OUT]
    assert len(cases_of(both, 1).gate["terms"]) == 60
    without = calibration_of(config({"math": {}}, **asked), model)
    assert len(chosen.turns) < len(without.turns) and any(held_out(one) in HELD_OUT for one in without.turns)
    audit = chosen.record.audit
    assert audit is not None and audit.apart == sum(held_out(one) in HELD_OUT for one in rows)


def test_a_model_against_itself_passes_a_tailored_suite(tmp_path: Path) -> None:
    found = compare_models(
        "quantgate/reference", "quantgate/reference", ["json_depth"], margin="40%", cases=24, out=tmp_path
    )
    (one,) = found.comparisons
    assert one.baseline_score == one.variant_score and not one.flips
    assert {row.name for row in one.slices} >= {"all", "depth=1"}


def test_a_task_of_the_harness_is_a_capability(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (quantgate[lm-eval])")
    import datasets

    rows = [{"q": f"What is {at} + 1?", "a": str(at + 1)} for at in range(80)]
    rows.append(rows[0])  # asked once
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 2},
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sums.yaml").write_text(yaml.safe_dump(task))
    datasets.disable_progress_bars()
    before, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, tmp_path / "cache"
    try:
        made = config({"sums": {"suite": "lm_eval:sums", "path": str(tmp_path / "tasks"), "cases": 70}})
        found = cases_of(made, 1)
        whole = cases_of(config({"sums": {"suite": "lm_eval:sums", "path": str(tmp_path / "tasks")}}), 1)
    finally:
        datasets.config.HF_DATASETS_CACHE = before
        datasets.enable_progress_bars()
    assert found.gates[0].suite.startswith("lm_eval:sums (sums version 2, lm-eval ")
    assert len(found.gate["sums"]) == 70 and len(whole.gate["sums"]) == 80
    assert found.gate["sums"] == visiting_order(whole.gate["sums"], 0)[:70]
