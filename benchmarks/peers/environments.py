"""Each peer's virtual environment, made once from its pinned requirements and used again while they stay the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from quantgate.records import digest_of

HERE = Path(__file__).parent
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")


class Unavailable(Exception):
    """A peer that cannot be had on this machine; the sentence becomes its rows."""


def requirements(tool: str) -> str:
    """The pinned versions of a peer, as pip reads them; nothing for our own tool, which runs in this environment."""
    file = HERE / f"{tool}.txt"
    return file.read_text("utf-8") if file.is_file() else ""


def python_of(tool: str, cache: Path) -> Path:
    """The interpreter that runs ``tool``. Raises Unavailable when its environment cannot be made."""
    pins = requirements(tool)
    if not pins:
        return Path(sys.executable)
    folder = cache / tool / "venv"
    python, stamp = folder / "bin" / "python", folder / "made-from"
    if stamp.is_file() and stamp.read_text("utf-8") == digest_of(pins):
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], f"{tool}: no virtual environment")
    torch = [line for line in pins.splitlines() if line.startswith("torch==")]
    for what in filter(None, (torch, ["-r", str(HERE / f"{tool}.txt")])):  # torch first: pip takes its CPU build
        _run([str(python), *PIP, *what], f"{tool}: pip could not install its pinned packages")
    stamp.write_text(digest_of(pins), "utf-8")
    return python


def _run(command: list[str], failed: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"{failed} ({last[:160]})")
