"""A finished run in the registry: its own bytes, its own engines, the decision of each target."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quantgate import pipeline
from quantgate.cli import app
from quantgate.engines.torch import open_engine
from quantgate.errors import ArtifactError, NotPromoted, RecordError, ReleaseError
from quantgate.models import open_model
from quantgate.pipeline.registering import read_run, register_run
from quantgate.pipeline.variants import open_variant
from quantgate.release.checking import problems
from quantgate.release.lifecycle import promote, rollback
from quantgate.release.store import Registry
from quantgate.report import RunReport


@pytest.fixture(scope="module")
def once(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunReport]:
    folder = tmp_path_factory.mktemp("registered")
    settings = {
        "model": str(place / "model"),
        "calibration": {"traffic": str(place / "traffic.jsonl"), "samples": 8, "max_tokens": 32},
        "capabilities": {name: {"suite": str(place / f"{name}.jsonl"), "margin": "20%"} for name in ("echo", "count")},
        "variants": ["W8A16", {"scheme": "W2A16", "group_size": 32, "method": "rtn"}],
        "drift_cases": 0,
        "out": str(folder / "run"),
    }
    (folder / "release.yaml").write_text(json.dumps(settings))
    return folder / "run", pipeline.run(folder / "release.yaml")


@pytest.fixture
def finished(once: tuple[Path, RunReport], tmp_path: Path) -> tuple[Path, RunReport]:
    """A finished run's folder, to be changed."""
    return shutil.copytree(once[0], tmp_path / "run"), once[1]


def test_a_run_is_registered_and_its_proven_variant_promoted(
    finished: tuple[Path, RunReport], place: Path, tmp_path: Path
) -> None:
    folder, report = finished
    run = read_run(folder)
    registry = Registry.open(str(tmp_path / "quantgate.db"), "ada", create=True)
    assert register_run(registry, run).opened == ("default",)
    assert register_run(registry, run).added == 0
    live = registry.live("default")
    model = open_model(place / "model")
    assert (live.stable.artifact, live.stable.location) == (model.weights_digest, str((place / "model").resolve()))
    live = promote(registry, "default", "W8A16", canary=0.1)
    assert live.canary is not None
    artifact = open_variant(live.canary.location, model, "W8A16")
    assert artifact.manifest.digest == live.canary.artifact
    assert open_engine(model, artifact).identity.key == live.canary.engine  # what the decision judged
    assert registry.evidence(live.canary.artifact, live.canary.engine) == (report.evidence[0],)
    assert registry.decisions("default") == (report.decision,)
    with pytest.raises(NotPromoted, match=r"failed|not proven"):
        promote(registry, "default", report.candidates[1].name)
    assert rollback(registry, "default", why="test")
    assert problems(registry).problems == ()


def test_what_was_changed_since_the_run_is_not_registered(finished: tuple[Path, RunReport]) -> None:
    folder, report = finished
    path = folder / report.variants[0].path / "manifest.json"
    other = json.loads((folder / report.variants[1].path / "manifest.json").read_text())
    path.write_text(json.dumps(other))
    with pytest.raises(ArtifactError, match="the run judged"):
        read_run(folder)
    path.unlink()
    path.parent.rename(folder / "elsewhere")
    run = read_run(folder)
    assert run.variants[0].location == "" and "not in the run's folder any more" in run.notes[0]


def test_another_baseline_replaces_nothing_unasked(finished: tuple[Path, RunReport], tmp_path: Path) -> None:
    folder, report = finished
    registry = Registry.open(str(tmp_path / "quantgate.db"), "ada", create=True)
    register_run(registry, read_run(folder))
    promote(registry, "default", "W8A16")
    evidence = tuple(one.model_copy(update={"baseline": "sha256:v2"}) for one in report.evidence)
    decision = report.decision.model_copy(update={"baseline": "sha256:v2"})
    newer = report.model_copy(update={"baseline": "sha256:v2", "evidence": evidence, "decision": decision})
    newer.save(folder / "report.json")
    with pytest.raises(ReleaseError, match="to serve that one from now on, say --new-baseline"):
        register_run(registry, read_run(folder))
    assert registry.revision("default") == 2 and len(registry.decisions("default")) == 1
    register_run(registry, read_run(folder), new_baseline=True)
    live = registry.live("default")
    assert (live.baseline.artifact, live.stable.artifact, live.revision) == ("sha256:v2", "sha256:v2", 3)
    assert promote(registry, "default", "W8A16").revision == 4


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such RunReport; run the step"):
        read_run(tmp_path)


def test_the_target_of_a_run_without_any_is_named(finished: tuple[Path, RunReport]) -> None:
    folder, _ = finished
    assert list(read_run(folder, target="fleet").decisions) == ["fleet"]


def test_a_run_registers_itself_when_asked_and_is_told_first_if_it_cannot(
    once: tuple[Path, RunReport], tmp_path: Path
) -> None:
    config, database = once[0].parent / "release.yaml", tmp_path / "quantgate.db"
    done = CliRunner().invoke(app, ["run", str(config), "--quiet", "--register", str(database)])
    assert done.exit_code == 0 and "default, new, serves the baseline: may be promoted: W8A16" in done.output
    assert Registry.open(str(database)).targets() == ("default",)
    database.write_text("not a database" * 100)
    refused = CliRunner().invoke(app, ["run", str(config), "--quiet", "--register", str(database)])
    assert isinstance(refused.exception, ReleaseError) and "report:" not in refused.output
