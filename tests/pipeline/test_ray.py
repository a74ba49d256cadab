"""A run over a real Ray on this machine: two workers, one of them killed in the middle, and the local run's report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantgate import pipeline
from quantgate.records import canonical
from quantgate.release_config import load_config
from quantgate.report import RunReport

pytest.importorskip("ray", reason="ray is not installed: pip install 'quantgate[ray]'")

ROOT = Path(__file__).parents[2]
LIMIT_S = 600  # of one run, on a machine that others use too
SMALL: dict[str, Any] = {
    "variants": ["W8A16", {"scheme": "W2A16", "group_size": 32, "method": "rtn"}],
    "judge": {"noise": 0},
    "drift_cases": 8,
}


def said(report: Any) -> Any:
    """A report without its times and the lines about the machine."""
    return canonical(report.model_copy(update={"environment": None, "stages": (), "paces": {}}).body())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local")


def run(release: Path, out: Path, result: Path, fault: str = "") -> int:
    """The run in a process group of its own, of which nothing is left afterwards."""
    import torch

    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    script = [sys.executable, str(Path(__file__).with_name("ray_run.py")), str(release), str(out), str(result), fault]
    with (result.with_suffix(".log")).open("wb") as log:
        child = subprocess.Popen(script, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            return child.wait(LIMIT_S)
        finally:
            if child.poll() is None:
                child.kill()


def said_by(result: Path) -> str:
    """The end of what the last run printed."""
    return result.with_suffix(".log").read_text(errors="replace")[-2000:]


@pytest.mark.parametrize("fault", ["worker", "driver"])
def test_a_run_that_loses_a_worker_or_its_driver_says_what_the_local_one_says(
    release: Any, shared: Path, tmp_path: Path, fault: str
) -> None:
    """The worker's run also loses its first start of Ray."""
    local = pipeline.run(load_config(release(**SMALL)), out=shared)
    path, out, result = release(**SMALL, executor="ray"), tmp_path / "run", tmp_path / "result"
    code = run(path, out, result, fault)
    if fault == "driver":
        assert code == -signal.SIGKILL, said_by(result)
        assert not (out / "report.json").exists()
        assert any(file.stat().st_size > 1000 for file in (out / "answers").iterdir())
        code = run(path, out, result)
    assert code == 0, said_by(result)
    told = json.loads(result.read_text())
    assert len(set(told["pids"])) == 2 and len(told["killed"]) == (fault == "worker")
    assert said(RunReport.load(out / "report.json")) == said(local)


def test_a_ray_that_never_starts_is_one_sentence(release: Any, tmp_path: Path) -> None:
    result = tmp_path / "result"
    code = run(release(**SMALL, executor="ray"), tmp_path / "run", result, "start")
    assert code == 1 and not result.exists(), said_by(result)
    found = said_by(result).splitlines()[-1]
    assert re.fullmatch(
        r"quantgate\.errors\.EngineError: executor: ray: Ray did not start here in 3 tries \(Timed out .*\); run again "
        "when this machine has less to do, or use executor: local",
        found,
    ), found
