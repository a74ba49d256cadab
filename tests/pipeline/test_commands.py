"""The same through the commands: exit codes, and one sentence on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantgate.cli import main

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Type a command; gives the exit code, what it printed, and what it complained about in one line."""

    def type_(*arguments: Any) -> Any:
        monkeypatch.setattr(sys, "argv", ["quantgate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, " ".join(printed.err.split())

    return type_


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("shared") / "run"


LOW = {"scheme": "W2A16", "group_size": 32, "method": "rtn"}


def test_exit_code_says_whether_a_variant_was_accepted(command: Any, release: Any, place: Path, shared: Path) -> None:
    code, out, _ = command("run", release(), "--out", shared, "--quiet")
    assert code == 0
    assert "W8A16 is the smallest of 2 variants that is proven safe" in out
    code, out, _ = command("run", release(variants=[LOW]), "--out", shared, "--quiet")
    assert code == 1
    assert "the only variant is not proven safe: keep the baseline" in " ".join(out.split())
    code, _, _ = command("report", shared)
    assert code == 1  # as the run ended
    lost = {"lost": {"suite": str(place / "lost.jsonl"), "margin": "50%"}}
    code, out, _ = command("run", release(capabilities=lost, variants=["W8A16"]), "--out", shared, "--quiet")
    assert code == 3


def test_comparison_ends_like_a_run(command: Any, place: Path, shared: Path, tmp_path: Path) -> None:
    model, suite = place / "model", place / "echo.jsonl"
    assert command("compare", model, model, "--suite", suite, "--margin", "10%", "--out", tmp_path, "-q")[0] == 0
    lost = place / "lost.jsonl"
    assert command("compare", model, model, "-s", lost, "--margin", "10%", "--out", tmp_path, "-q")[0] == 3


def test_drift_prints_its_tables_and_judges_nothing(command: Any, place: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The fox went home and slept. " * 30)
    model, out = place / "model", tmp_path / "out"
    code, shown, _ = command("drift", model, model, "--text", text, "--context", "32", "--out", out, "-q")
    assert code == 0
    assert "By position in the sequence" in shown and "same top token: 100 %" in shown
    assert (out / "drift.json").exists() and (out / "drift.html").exists()
    code, _, err = command("drift", model, model, "--text", text, "--suite", "math", "--out", out, "-q")
    assert code == 2 and "give texts or suites, not both" in err


def test_runs_that_are_empty_missing_mismatched_or_leaking_never_exit_0(
    command: Any, release: Any, place: Path, tmp_path: Path
) -> None:
    """The same release exits 0 when it is whole (the first test of this file)."""
    empty, leak = tmp_path / "empty.jsonl", tmp_path / "leak.jsonl"
    empty.write_text("")
    asked = json.loads((place / "echo.jsonl").read_text().splitlines()[7])["prompt"]
    leak.write_text(json.dumps({"prompt": asked, "completion": "known"}) + "\n")
    holes: dict[str, dict[str, Any]] = {
        "the suite is empty": {"capabilities": {"echo": {"suite": str(empty)}}},
        "no such file": {"capabilities": {"echo": {"suite": str(tmp_path / "none.jsonl")}}},
        "unknown slice 'op=add'": {
            "capabilities": {"echo": {"suite": str(place / "echo.jsonl"), "margin": "20%", "slices": ["op=add"]}}
        },
        "calibration": {"calibration": {"traffic": str(leak), "samples": 1, "max_tokens": 32}},
    }
    for told, changes in holes.items():
        code, _, err = command("run", release(**changes), "--quiet")
        assert code in (2, 4), told
        assert err.startswith("quantgate: ") and told in err
    mismatched = place / "model" / "missing"
    suite = ("--suite", place / "echo.jsonl", "--margin", "20%")
    code, _, err = command("compare", place / "model", mismatched, *suite, "--out", tmp_path, "-q")
    assert code == 4 and "no such folder" in err


def test_wrong_usage_is_2_and_a_run_that_cannot_start_is_4(command: Any, release: Any, tmp_path: Path) -> None:
    code, out, err = command("run", tmp_path / "none.yaml")
    assert (code, out) == (2, "")
    assert err == f"quantgate: {tmp_path / 'none.yaml'}: no such file; write one with: quantgate init"
    code, _, err = command("run", release(judge={"alhpa": 0.1}))
    assert code == 2 and "unknown key 'alhpa' in 'judge'; did you mean 'alpha'?" in err
    code, _, err = command("run", release(model="./missing"), "--quiet")
    assert code == 4 and "missing: no such folder; name a model folder" in err
    code, _, err = command("report", tmp_path / "nothing")
    assert code == 4 and "no such RunReport; run the step that writes it first" in err
    code, _, err = command("run", "--no-such-option")
    assert code == 2


def test_init_writes_a_release_that_loads_and_does_not_overwrite(command: Any, tmp_path: Path) -> None:
    from quantgate.release_config import load_config

    path = tmp_path / "release.yaml"
    assert command("init", path)[0] == 0
    assert set(load_config(path).capabilities) == {"math", "json_tools", "refusals"}
    code, _, err = command("init", path)
    assert code == 2 and "exists already" in err
    assert command("init", path, "--force")[0] == 0


def test_ctrl_c_is_130_with_one_sentence(release: Any, tmp_path: Path) -> None:
    """The traffic is a pipe, so the command is certain to be in the middle of its work when the signal comes."""
    os.mkfifo(tmp_path / "traffic.jsonl")
    path = release(calibration={"traffic": str(tmp_path / "traffic.jsonl")})
    command = [sys.executable, "-m", "quantgate", "run", str(path), "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with child, (tmp_path / "traffic.jsonl").open("w"):  # opening waits until the command reads
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=300)
    assert child.returncode == 130
    assert out == ""
    told = (
        f"quantgate: stopped; what is finished is kept in {tmp_path / 'run'}, and the same command goes on from there"
    )
    assert "".join(err.split()) == "".join(told.split())  # a terminal's lines may break anywhere
