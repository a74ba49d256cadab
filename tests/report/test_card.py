"""A model card that the Hub's own parser reads, with the figures of the record and nothing made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from markdown_it import MarkdownIt
from tests.release.made import artifact
from tests.report.targeted import released, rules_of

from quantgate.calibrate import CalibrationSet
from quantgate.errors import UnknownName
from quantgate.quantize.manifest import Manifest, Training
from quantgate.release.verify import verify
from quantgate.report import RunReport
from quantgate.report.card import card, licence_of, write_card


def data_of(text: str) -> Any:
    """What the Hub's own parser makes of a card."""
    return ModelCard(text).data


def of_hub(report: RunReport) -> RunReport:
    return report.model_copy(update={"model": "org/a-model"})


def test_parser_of_the_hub_reads_base_licence_and_results(report: RunReport) -> None:
    data = data_of(card(of_hub(report), "W3A16", licence="mit"))
    assert (data.base_model, data.license, data.library_name) == ("org/a-model", "mit", "transformers")
    assert data.to_dict()["base_model_relation"] == "quantized"
    assert "quantgate" in data.tags and data.model_name == "W3A16"
    by_name = {(one.task_name, one.metric_type): one.metric_value for one in data.eval_results}
    assert by_name["json_tools", "score"] == 0.7 and by_name["json_tools", "baseline_score"] == 1.0
    assert by_name["math", "score"] == 1.0 and by_name["math", "change_at_worst"] > -0.05
    judged = next(one for one in data.eval_results if one.task_name == "json_tools")
    assert judged.dataset_args == {"verdict": "damaged", "cases": 200, "margin": 0.05, "test": "eprocess"}
    assert judged.dataset_revision == "sha256:" + "a" * 64
    again = model_index_to_eval_results(eval_results_to_model_index("W3A16", data.eval_results))[1]
    assert {one.metric_value for one in again} == {one.metric_value for one in data.eval_results}


def test_what_is_not_known_is_left_out(report: RunReport) -> None:
    local = report.model_copy(update={"model": "/srv/models/secret-place/a-model"})
    text = card(local, "W8A8")
    data = data_of(text).to_dict()
    assert "base_model" not in data and "license" not in data and "base_model_relation" not in data
    assert "secret-place" not in text
    empty = local.model_copy(update={"evidence": ()})
    told = card(empty, "W8A8")
    assert "model-index" not in told and "No case was asked, so nothing is proven" in told


def test_evidence_table_says_what_the_record_says(report: RunReport) -> None:
    text = card(report, "W3A16")
    assert "| json_tools | 100 % | 70 % | -40.3 % to -21.7 % | 5 % | 200 | damaged |" in text
    assert "| math | 100 % | 100 % | -2.3 % to +2.3 % | 5 % | 200 | proven safe |" in text
    assert "**damaged**: damages json_tools." in text
    assert "at least 21.7 % lost, more than the 5 % allowed" in text
    assert "`sha256:W3A16`" in text and "`sha256:base`" in text


def test_every_target_has_its_decision(report: RunReport) -> None:
    found = released(report, {"W8A8": 0, "W3A16": 300}, [rules_of("laptop"), rules_of("attic")])
    text = card(found, "W3A16")
    rows = [line for line in text.splitlines() if line.startswith(("| laptop", "| attic"))]
    assert len(rows) == 2 and all("cpu-avx512, llama.cpp | damaged | no" in row for row in rows), rows


def test_calibration_and_ledger_are_told_without_paths_or_markup(report: RunReport) -> None:
    summary = report.variants[0].model_copy(
        update={
            "fallbacks": ("a.b: asked int4, got bf16: <script> | [x](http://y)",),
            "notes": ("n\n| forged | row |",) * 60,
        }
    )
    chosen = CalibrationSet(source="/srv/private/traffic.jsonl", samples=("sha256:1",) * 3, tokens=99, cut=1, asked=3)
    found = report.model_copy(update={"variants": (summary, *report.variants[1:]), "calibration": chosen})
    text = card(found, summary.name)
    assert "3 conversations of traffic.jsonl, 99 tokens, 1 cut" in text and chosen.digest in text
    assert "/srv" not in text
    page = MarkdownIt("commonmark").enable("table").render(text.split("---\n", 2)[2])
    assert "<script" not in page and "<a " not in page and "<td>forged" not in page
    assert "&lt;script" in page
    assert "and 21 more; `manifest.json` has the fate of every tensor" in text


def test_training_is_told_with_its_data_and_what_it_came_to(report: RunReport) -> None:
    assert "## Training" not in card(report, "W8A8")
    how = Training(
        method="qat", teacher="sha256:teach", data="sha256:data", sources={"traffic": 40, "math": 1200}, options={},
        steps=4000, best=3500, tokens=1_500_000, before=0.5, after=0.1234,
    )  # fmt: skip
    summary = report.variants[0].model_copy(update={"training": (how,)})
    found = report.model_copy(update={"variants": (summary, *report.variants[1:])})
    text = " ".join(card(found, summary.name).split("## Training")[1].split("##")[0].split())
    assert "trained with their rounding in place: 4,000 steps over 1,500,000 tokens of 1240 conversations" in text
    assert "(math 1200, traffic 40)" in text
    assert (
        "The state of step 3,500 is kept: KL to the teacher on the tune split 0.1234 nats a token, 0.5000 before"
        in text
    )
    assert "sha256:teach" in text and "sha256:data" in text
    student = how.model_copy(update={"method": "distill", "before": None})
    both = summary.model_copy(update={"training": (student, how)})
    told = card(report.model_copy(update={"variants": (both, *report.variants[1:])}), summary.name)
    assert told.count("was distilled: 4,000 steps") == told.count("in place: 4,000 steps") == 1


def test_card_in_the_artifact_leaves_its_digest_alone(report: RunReport, tmp_path: Path) -> None:
    run, found = kept(report, tmp_path)
    digest = found.variants[0].artifact
    at = write_card(run, "W8A8")
    assert at == run / "artifacts" / "W8A8" / "README.md"
    assert verify(at.parent, digest, kept=None).digest == digest
    assert f"quantgate verify . --digest {digest}" in at.read_text()
    assert "needs the package compressed-tensors" in at.read_text()
    assert data_of(at.read_text()).library_name == "transformers"


def test_folder_of_somebody_else_gets_no_card(report: RunReport, tmp_path: Path) -> None:
    run, _ = kept(report, tmp_path)
    assert write_card(run, "W3A16") == run / "cards" / "W3A16" / "README.md"
    assert write_card(run, "W3A16", out=tmp_path / "x.md") == tmp_path / "x.md"
    other = run / "artifacts" / "W8A8"
    shutil.rmtree(other)
    artifact(other, "another")  # of another digest than the run's
    assert write_card(run, "W8A8") == run / "cards" / "W8A8" / "README.md"
    with pytest.raises(UnknownName, match=r"unknown variant 'W8A'; did you mean 'W8A8'"):
        write_card(run, "W8A")


def test_file_for_llama_cpp_says_so(report: RunReport) -> None:
    summary = report.variants[0].model_copy(update={"path": "my models/a b.gguf"})
    text = card(report.model_copy(update={"variants": (summary,)}), "W8A8")
    assert data_of(text).library_name == "llama.cpp"
    assert "llama-server -m 'a b.gguf' --jinja" in text


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("---\nlicense: mit\n---\n# x", "mit"),
        ("# x", ""),
        ("---\n: [", ""),
        ("---\nlicense: [a]\n---\n", ""),
        ("---\n1\n---\n", ""),
    ],
)
def test_licence_is_taken_from_the_card_of_the_baseline(tmp_path: Path, front: str, licence: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "README.md").write_text(front)
    assert licence_of(str(tmp_path)) == licence
    assert licence_of("quantgate/reference") == "apache-2.0" and licence_of("org/not-here") == ""


def kept(report: RunReport, tmp_path: Path) -> tuple[Path, RunReport]:
    """A run's folder with an artifact of ours for W8A8."""
    run = tmp_path / "run"
    artifact(run / "artifacts" / "W8A8", "W8A8")
    digest = Manifest.load(run / "artifacts" / "W8A8" / "manifest.json").digest
    first = report.variants[0].model_copy(update={"artifact": digest})
    found = report.model_copy(update={"variants": (first, *report.variants[1:])})
    found.save(run / "report.json")
    return run, found
