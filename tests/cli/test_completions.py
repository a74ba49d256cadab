"""What a shell completes, asked for as a shell asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
COMMAND = [sys.executable, "-c", "import sys; sys.argv = ['quantgate']; from quantgate.cli import main; main()"]


def completed(line: str) -> list[str]:
    """The words that ``line`` may end with, by the protocol of typer's script for bash."""
    asks = {"_QUANTGATE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(
        COMMAND, env={**os.environ, "PYTHONPATH": str(SOURCE), **asks}, capture_output=True, text=True, timeout=120
    )
    assert not done.stderr
    return sorted(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("quantgate plan m --on h100", ["h100-pcie", "h100-sxm"]),
        ("quantgate plan m --on h100-sxm,b2", ["h100-sxm,b200"]),
        ("quantgate plan m -v NVFP", ["NVFP4", "NVFP4A16"]),
        ("quantgate loadtest m --suite long", ["long_context"]),
        ("quantgate loadtest m --arrivals pois", ["poisson"]),
    ],
)
def test_names_of_devices_schemes_and_suites_are_completed(line: str, words: list[str]) -> None:
    assert completed(line) == words


def test_runtimes_are_completed_behind_a_device() -> None:
    from quantgate.cli.completions import on
    from quantgate.hardware import runtimes

    assert on("t4:") == [f"t4:{one}" for one in runtimes()]


def test_completion_loads_nothing_heavy() -> None:
    told = (
        "import sys; from quantgate.cli import completions as c; c.on('h'); c.suite('m'); c.scheme('W'); "
        "c.kv_cache('q'); print(sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
