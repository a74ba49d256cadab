"""Artifacts of other programs in a release and in a comparison: judged as our own are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from quantgate import pipeline
from quantgate.errors import ArtifactError, ModelError, UsageError
from quantgate.models import open_model
from quantgate.pipeline import compare_models
from quantgate.pipeline.quantize_only import quantize
from quantgate.quantize import Recipe, open_artifact
from quantgate.quantize.sweep import sweep
from quantgate.records import canonical
from quantgate.release_config import load_config

RECIPES = [
    Recipe(scheme="W8A16", label="good", container="gptq"),
    Recipe(scheme="W2A16", group_size=32, method="rtn", label="bad"),
]


@pytest.fixture(scope="module")
def others(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``good`` and ``bad`` as folders without a manifest, and ``ours``, which has one."""
    out = tmp_path_factory.mktemp("others")
    for made in sweep(open_model(place / "model"), None, RECIPES, out):
        shutil.copytree(made.path, out / f"{made.name}-copy")
        (made.path / "manifest.json").unlink()
    (out / "good-copy").rename(out / "ours")
    return out


def test_an_artifact_of_others_is_judged_like_one_of_ours(release: Any, others: Path) -> None:
    shutil.copytree(others / "bad", Path(release()).parent / "their-bad")
    variants = [{"name": "theirs", "artifact": str(others / "good")}, "W8A16", {"artifact": "their-bad"}]
    report = pipeline.run(load_config(release(variants=variants)))
    verdicts = {one.variant: one.verdict for one in report.decision.verdicts}
    assert verdicts == {"theirs": "pass", "W8A16": "pass", "their-bad": "fail"}
    assert [one.name for one in report.candidates] == ["theirs", "W8A16", "their-bad"]
    assert all(one.pass_alpha == pytest.approx(0.05 / 3) for one in report.gates)
    summary = report.variants[0]
    assert (summary.scheme, summary.method, summary.path) == ("W8A16", "gptq", str(others / "good"))
    assert summary.bits_per_weight == open_artifact(others / "ours").manifest.bits_per_weight
    assert "artifact: made by: quantgate" in summary.notes
    assert any(note.startswith("artifact: calibration: what it was calibrated on is not on record")
               for note in summary.notes)  # fmt: skip
    assert report.evidence[0].kernels[0].startswith("2 linears")
    assert [stage.name for stage in report.stages][2] == "open the artifacts of others"


def test_a_release_of_imports_alone_chooses_no_calibration_set_and_resumes(release: Any, others: Path) -> None:
    path = release(variants=[{"artifact": str(others / "good")}, {"artifact": str(others / "ours"), "name": "mine"}])
    first = pipeline.run(load_config(path))
    assert first.calibration is None
    assert [one.name for one in first.candidates] == ["good", "mine"]
    assert {one.variant for one in first.evidence} == {"good", "mine"}
    again = pipeline.run(load_config(path))
    assert canonical([one.body() for one in again.evidence]) == canonical([one.body() for one in first.evidence])
    assert not (Path(load_config(path).out) / "artifacts").exists()


def test_compare_takes_a_folder_of_others(place: Path, others: Path, tmp_path: Path) -> None:
    suite = [str(place / "echo.jsonl")]
    result = compare_models(str(place / "model"), str(others / "good"), suite, margin=0.2, out=tmp_path / "good")
    assert result.verdicts[0].verdict == "pass"
    result = compare_models(str(place / "model"), str(others / "bad"), suite, margin=0.2, out=tmp_path / "bad")
    assert result.verdicts[0].verdict == "fail"


def test_a_broken_folder_is_refused_before_anything_is_made(release: Any, others: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(others / "good", broken)
    raw = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(raw[:-8])
    path = release(variants=["W8A16", {"artifact": str(broken)}])
    with pytest.raises(ModelError, match="truncated"):
        pipeline.run(load_config(path))
    assert not Path(load_config(path).out).exists()
    with pytest.raises(ModelError, match=r"nowhere: no such folder"):
        pipeline.run(load_config(release(variants=[{"artifact": "./nowhere"}])))


def test_the_baseline_is_no_artifact(release: Any, place: Path) -> None:
    with pytest.raises(ArtifactError, match="it is neither an artifact of quantgate nor a quantized model of another"):
        pipeline.run(load_config(release(variants=[{"name": "x", "artifact": str(place / "model")}])))


def test_names_are_checked_before_a_model_is_opened(release: Any, place: Path) -> None:
    twice = [{"name": "W8A16", "artifact": "a/b"}, "W8A16"]
    with pytest.raises(UsageError, match="variants: two are called 'W8A16'; give one of them another 'name'"):
        pipeline.run(load_config(release(variants=twice, model="./missing")))
    with pytest.raises(UsageError, match="variants, number 1: 'my awq' cannot name a variant"):
        pipeline.run(load_config(release(variants=[{"artifact": "./my awq"}], model="./missing")))
    with pytest.raises(UsageError, match="variants: 'b' is an artifact already, and there is nothing to make"):
        quantize(str(place / "model"), [{"artifact": "a/b"}])
