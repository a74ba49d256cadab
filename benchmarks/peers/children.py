"""Run a tool on some jobs, measured, in its own environment; what is there from the same inputs is not repeated."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue

import quantgate
from benchmarks.peers.environments import Unavailable, python_of, requirements
from benchmarks.peers.tools.contract import REPORT, Job, Work
from quantgate.errors import RecordError
from quantgate.records import Record, digest_file, digest_of

LAYOUT = 1  # raised when the same inputs would give other results
MADE = "made.json"
LIMIT_S = 1800.0
ROOT = Path(__file__).parents[2]
METER = Path(__file__).parent / "meter.py"
TOOLS = Path(__file__).parent / "tools"
OFFLINE = {
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip

Say = Callable[[str], None]


class Made(Record):
    """One job's outcome. Times and memory of the process are those of all jobs that it did."""

    key: str  # digest of everything that decides it
    failed: str = ""  # why there is no artifact
    seconds: float = 0.0  # from opening the model to the saved artifact, without imports
    cpu_s: float = 0.0  # the same in CPU seconds
    together: int = 1  # jobs made in that time
    process_s: float = 0.0  # the whole process, imports included
    peak_bytes: int = 0  # largest resident memory, mapped files included
    private_bytes: int = 0  # the same without mapped files
    facts: dict[str, JsonValue] = Field(default_factory=dict)  # what the tool says: plain, bits, inputs8, note
    versions: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Where results are kept and how much of the machine everybody gets."""

    cache: Path
    threads: int = 2
    fresh: bool = False
    say: Say = print
    limit_s: float = LIMIT_S
    venvs: Path | None = None  # where environments are kept; None: in the cache
    versions: list[dict[str, str]] = field(default_factory=list)  # of every job's packages, as they come

    def run(self, tool: str, model: Path, ids: Path, jobs: Sequence[Job], name: str) -> dict[str, Made]:
        """What became of each job; artifacts lie in ``folder(tool, name) / job.name``.

        A job whose record bears the key of the same inputs is taken from there. A process that dies, or a peer that
        cannot be installed, is a Made that says why for each of its jobs; failures are tried again by the next run.
        """
        folder = self.folder(tool, name)
        folder.mkdir(parents=True, exist_ok=True)
        keys = self._keys(tool, model, ids, jobs)
        known = {} if self.fresh else {job.name: one for job in jobs if (one := _known(folder, job, keys[job.name]))}
        todo = tuple(job for job in jobs if job.name not in known)
        if todo:
            self.say(f"{tool}, {name}: {', '.join(job.name for job in todo)}")
            work = Work(str(model), str(ids), str(folder), self.threads, todo)
            made = self._process(tool, work, keys)
            for job in todo:
                made[job.name].save(folder / job.name / MADE)
            known |= made
        self.versions.extend(one.versions for one in known.values())
        return {job.name: known[job.name] for job in jobs}

    def folder(self, tool: str, name: str) -> Path:
        return self.cache / tool / name

    def _keys(self, tool: str, model: Path, ids: Path, jobs: Sequence[Job]) -> dict[str, str]:
        base = [LAYOUT, tool, requirements(tool), _source(tool), _folder_digest(model), digest_file(ids), self.threads]
        shared = [] if requirements(tool) else sorted(job.name for job in jobs)  # ours makes them together
        return {job.name: digest_of([base, shared, asdict(job)]) for job in jobs}

    def _process(self, tool: str, work: Work, keys: dict[str, str]) -> dict[str, Made]:
        folder = Path(work.out)
        log, cost = folder / "log.txt", folder / "cost.json"
        for job in work.jobs:
            (work.folder(job) / REPORT).unlink(missing_ok=True)
        cost.unlink(missing_ok=True)
        for left in folder.glob(".*"):  # of a run that was killed: going on from it would cost less than all of it
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            python = python_of(tool, self.venvs or self.cache)
        except Unavailable as problem:
            return {job.name: Made(key=keys[job.name], failed=str(problem)) for job in work.jobs}
        command = [str(python), "-m", f"benchmarks.peers.tools.{tool}", str(work.save(folder / "work.json"))]
        late = _metered(
            [sys.executable, str(METER), str(cost), str(log), "--", *command], self._env(tool), self.limit_s
        )
        spent: dict[str, Any] = json.loads(cost.read_bytes()) if cost.is_file() else {}
        process = {
            "process_s": spent.get("wall_s", 0.0),
            "peak_bytes": spent.get("peak_bytes", 0),
            "private_bytes": spent.get("private_bytes", 0),
        }
        dead = late or f"its process ended with status {spent.get('rc')} ({_last(log)})"
        made = {}
        for job in work.jobs:
            report = work.folder(job) / REPORT
            told = json.loads(report.read_bytes()) if report.is_file() else {"failed": dead}
            made[job.name] = Made(key=keys[job.name], **told, **process)
            one = made[job.name]
            self.say(f"  {job.name}: {one.failed or f'{one.seconds:.1f} s'}")
        return made

    def _env(self, tool: str) -> dict[str, str]:
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        own = "" if requirements(tool) else f"{os.pathsep}{ROOT / 'src'}"
        return {**os.environ, **OFFLINE, **threads, "PYTHONPATH": f"{ROOT}{own}", "CUDA_VISIBLE_DEVICES": ""}


def _known(folder: Path, job: Job, key: str) -> Made | None:
    try:
        made = Made.load(folder / job.name / MADE)
    except RecordError:
        return None
    return made if made.key == key and not made.failed else None


def _metered(command: list[str], env: dict[str, str], limit_s: float) -> str:
    """Run to its end; why it was stopped, or nothing. The command ends with this process, also on Ctrl-C."""
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, process_group=0)
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit_s:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return ""


def _last(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1].strip()[:160] if lines else "no message"


def _source(tool: str) -> list[str]:
    """Digests of the program: its script, and all of quantgate where that is the tool."""
    files = [TOOLS / "contract.py", TOOLS / f"{tool}.py"]
    if not requirements(tool):
        files += sorted(Path(quantgate.__file__).parent.rglob("*.py"))
    return [digest_file(file) for file in files if file.is_file()]


def _folder_digest(model: Path) -> str:
    files = [file for file in sorted(model.iterdir()) if file.suffix in (".json", ".safetensors", ".jinja")]
    return digest_of([[file.name, digest_file(file)] for file in files])
