"""A run whose model, artifacts and reports lie elsewhere says what one says that has them here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from quantgate import pipeline
from quantgate.errors import StoreError
from quantgate.pipeline.sharing import folder_of, send_reports
from quantgate.quantize import open_artifact
from quantgate.records import digest_file
from quantgate.release_config import load_config
from quantgate.report import RunReport
from quantgate.store import pull


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_artifacts_and_reports_land_at_the_address_and_another_machine_goes_on_from_them(
    release: Any, home: Path, tmp_path: Path
) -> None:
    url = f"file://{tmp_path / 'bucket' / 'run'}"
    config = load_config(release(out=url, variants=["W8A16"]))
    report = pipeline.run(config)
    there = tmp_path / "bucket" / "run"
    assert RunReport.load(there / "report.json") == report
    assert {file.name for file in there.iterdir()} == {"artifacts", "report.json", "report.html", "junit.xml"}
    pointer = json.loads((there / "artifacts" / "W8A16.json").read_text())
    pulled = open_artifact(pull(f"{url}/artifacts/{pointer['folder']}"))
    assert pulled.manifest.digest == report.candidates[0].artifact
    shutil.rmtree(home)  # another machine
    again = pipeline.run(config)
    assert again.decision == report.decision and again.evidence == report.evidence
    made = folder_of(url) / "artifacts" / "W8A16" / "model.safetensors"
    assert digest_file(made) == digest_file(there / "artifacts" / pointer["folder"] / "model.safetensors")
    assert (
        len(list((there / "artifacts").iterdir())) == 2
    )  # the manifest tells when it was made: a new one would differ


def test_the_pages_of_targets_go_to_the_address_too(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "targets").mkdir(parents=True)
    for name in ("report.json", "report.html", "junit.xml", "targets/fleet.html", "targets/phone.html"):
        (folder / name).write_text(name)
    send_reports(f"file://{tmp_path / 'bucket'}", folder)
    assert (tmp_path / "bucket" / "targets" / "fleet.html").read_text() == "targets/fleet.html"
    assert sorted(one.name for one in (tmp_path / "bucket" / "targets").iterdir()) == ["fleet.html", "phone.html"]


def test_an_artifact_of_another_model_is_not_taken(release: Any, home: Path, place: Path, tmp_path: Path) -> None:
    from tests.pipeline.test_cache_keys import other_weights

    model = Path(shutil.copytree(place / "model", tmp_path / "model"))
    config = load_config(release(model=str(model), out=f"file://{tmp_path / 'run'}", variants=["W8A16"]))
    first = pipeline.run(config)
    shutil.rmtree(home)
    other_weights(model)
    second = pipeline.run(config)
    assert first.candidates[0].artifact != second.candidates[0].artifact
    assert len([one for one in (tmp_path / "run" / "artifacts").iterdir() if one.is_dir()]) == 2


def test_a_student_may_be_an_address_and_what_is_made_of_it_is_shared_too(
    release: Any, home: Path, place: Path, tmp_path: Path
) -> None:
    from tests.models.cutting import with_idle_block

    base = with_idle_block(place / "model", tmp_path / "baseline")
    student = [{"model": f"file://{place / 'model'}", "scheme": scheme, "name": scheme} for scheme in ("BF16", "W8A16")]
    config = load_config(release(model=str(base), variants=student, out=f"file://{tmp_path / 'bucket'}"))
    report = pipeline.run(config)
    assert report.decision.chosen == "W8A16" and [one.relation for one in report.candidates] == ["student", "student"]
    assert (tmp_path / "bucket" / "artifacts" / "W8A16.json").is_file()
    assert not (tmp_path / "bucket" / "artifacts" / "BF16.json").exists()
    shutil.rmtree(home)  # another machine
    again = pipeline.run(config)
    assert again.decision == report.decision and again.evidence == report.evidence


def test_model_and_variant_may_be_addresses(release: Any, place: Path, tmp_path: Path) -> None:
    from quantgate.models import open_model
    from quantgate.quantize import Recipe
    from quantgate.quantize.sweep import sweep
    from quantgate.store import push

    (made,) = sweep(open_model(place / "model"), None, [Recipe(scheme="W8A16", method="rtn")], tmp_path / "made")
    address = push(made.path, f"file://{tmp_path / 'bucket'}")
    url = f"file://{place / 'model'}"
    report = pipeline.run(load_config(release(model=url, variants=[{"artifact": address, "name": "there"}])))
    assert report.model == url and report.decision.chosen == "there"
    assert report.candidates[0].artifact == made.manifest.digest


def test_an_address_that_is_not_there_is_told_before_anything_slow(release: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing is there; check the address"):
        pipeline.run(load_config(release(model=f"file://{tmp_path / 'none'}")))
