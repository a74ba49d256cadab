from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from quantgate.train.devices import Alone, here
from quantgate.train.launch import launched

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
from quantgate.train.devices import here
from tests.train.test_loop import OPTIONS, Tiny, curve, run

devices, folder = here(), Path(sys.argv[1])
network = Tiny(1)
network.head.data *= 0.9  # no grid: rounding makes a step of a difference in the last bit
rows = run(folder / "run", network, OPTIONS.model_copy(update={"steps": 12}), devices=devices)
found = {"count": devices.count, "curve": curve(rows), "head": network.head.tolist()}
(folder / f"found-{devices.rank}.json").write_text(json.dumps(found))
"""


def test_one_process_is_alone() -> None:
    assert not launched()
    assert isinstance(here(), Alone)


def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    for name, start in (("two", launch), ("one", [sys.executable])):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [*start, str(script), str(tmp_path / name)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    one = json.loads((tmp_path / "one" / "found-0.json").read_text())
    first, second = (json.loads((tmp_path / "two" / f"found-{rank}.json").read_text()) for rank in (0, 1))
    assert (one["count"], first["count"], second["count"]) == (1, 2, 2)
    assert first["curve"] == second["curve"] and first["head"] == second["head"]
    torch.testing.assert_close(torch.tensor(first["head"]), torch.tensor(one["head"]), rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(one["curve"], first["curve"], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert mine["more"] == pytest.approx(theirs["more"], rel=1e-2, abs=1e-4)
        assert mine["tokens"] == theirs["tokens"]
    assert sorted(path.name for path in (tmp_path / "two" / "run").glob("*")) == sorted(
        path.name for path in (tmp_path / "one" / "run").glob("*")
    )


def test_several_processes_without_accelerate_name_the_extra(tmp_path: Path) -> None:
    """An interpreter that finds no accelerate, as one of two processes."""
    (tmp_path / "accelerate.py").write_text("raise ImportError('none here')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", "WORLD_SIZE": "2"}
    code = "from quantgate.train.devices import here; here()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "MissingExtra: training on several devices needs the package 'accelerate'" in done.stderr
    assert "pip install 'quantgate[train]'" in done.stderr
