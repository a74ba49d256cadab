"""Releases in a real MLflow database; and an MLflow that is away, hangs or breaks, which stops no release."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.release.given import ENGINE, register
from tests.report.conftest import evidence

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'quantgate[mlflow]'")

from quantgate.release import lifecycle
from quantgate.release.store import Registry
from quantgate.release.tracking import figures, track


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A database of MLflow's, which takes seconds to be made, and a folder for its files."""
    folder = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{folder / 'mlflow.db'}", str(folder / "files")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """One target, one variant with evidence, tried as a canary and then promoted."""
    made = Registry.open(f"sqlite:///{tmp_path / 'quantgate.db'}", "ada", create=True)
    (variant,) = register(made, W4A16="pass")
    proof = evidence("W4A16", 3, 1.0).model_copy(update={"artifact": variant.artifact, "engine": ENGINE})
    made.register(proofs=[proof])
    lifecycle.promote(made, "fleet", "W4A16", canary=0.05, why="looks good")
    lifecycle.promote(made, "fleet", "W4A16")
    yield made
    made.close()


def runs_of(uri: str, experiment: str) -> list[Any]:
    """What MLflow's own client says, oldest revision first. Read in a process of its own, as MLflow changes logging."""
    code = (
        "import json, sys, logging; logging.disable(logging.WARNING)\n"
        "from mlflow import MlflowClient\n"
        "client = MlflowClient(tracking_uri=sys.argv[1])\n"
        "number = client.get_experiment_by_name(sys.argv[2]).experiment_id\n"
        "found = [dict(status=one.info.status, tags=one.data.tags, params=one.data.params, metrics=one.data.metrics,\n"
        "    files=[part.path for part in client.list_artifacts(one.info.run_id)])\n"
        "    for one in client.search_runs([number])]\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code, uri, experiment], capture_output=True, text=True, check=True)
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return sorted(found, key=lambda one: int(one["tags"]["quantgate.revision"]))


def test_moves_become_runs_once_each(registry: Registry, there: tuple[str, str], tmp_path: Path) -> None:
    uri, files = there
    card = tmp_path / "README.md"
    card.write_text("# proven")
    first = track(registry, "fleet", uri, card=card, experiment="once", artifacts=files, timeout_s=600)
    assert (first.logged, first.known, first.problem) == (1, 0, "")
    rest = track(registry, "fleet", uri, all=True, experiment="once", artifacts=files, timeout_s=600)
    assert (rest.logged, rest.known, rest.problem) == (2, 1, "")
    opened, canary, promoted = runs_of(uri, "once")
    assert {one["status"] for one in (opened, canary, promoted)} == {"FINISHED"}
    assert [one["tags"]["quantgate.what"] for one in (opened, canary, promoted)] == ["open", "canary", "promote"]
    assert canary["tags"]["quantgate.why"] == "looks good" and canary["params"]["share"] == "0.05"
    live = registry.live("fleet")
    assert promoted["tags"]["quantgate.artifact"] == live.stable.artifact
    assert promoted["tags"]["quantgate.baseline"] == live.baseline.artifact
    assert promoted["tags"]["quantgate.decision"].startswith("sha256:")
    assert promoted["metrics"]["json_tools.variant"] == pytest.approx(197 / 200)
    assert promoted["metrics"]["json_tools.change_low"] < promoted["metrics"]["json_tools.change_high"]
    assert promoted["params"]["math.margin"] == "0.05" and promoted["files"] == ["README.md"]
    assert "math.variant" not in opened["metrics"]  # the baseline was compared with nothing


def test_what_was_not_measured_is_no_figure() -> None:
    proof = evidence("W4A16", 0, 1.0)
    bare = proof.comparisons[0].model_copy(update={"variant_score": None})
    found = figures(proof.model_copy(update={"comparisons": (bare,), "drift": None}))
    assert "math.variant" not in found and "math.baseline" in found and "drift.kl_mean" not in found


def test_mlflow_that_is_away_is_told_and_stops_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = registry.live("fleet")
    found = track(registry, "fleet", "http://me:secret@127.0.0.1:9", timeout_s=600)
    assert found.logged == 0 and found.problem.startswith("http://127.0.0.1:9: MLflow did not take it")
    assert "secret" not in found.model_dump_json() and "\n" not in found.problem
    assert "quantgate track --all" in found.problem
    assert registry.live("fleet") == before


def test_mlflow_that_hangs_is_given_up(registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the kernel takes the connection, and nobody ever answers
        found = track(registry, "fleet", f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=5)
    assert "did not answer within 5 s" in found.problem and found.logged == 0


def test_address_that_is_none_of_mlflows_is_told(registry: Registry) -> None:
    found = track(registry, "fleet", "nonsense://x", timeout_s=600)
    assert found.logged == 0 and found.problem.startswith("nonsense://x: MLflow did not take it")
