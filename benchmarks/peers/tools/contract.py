"""What the driver and a tool's process agree on: ``python -m benchmarks.peers.tools.NAME work.json``.

The driver writes ``work.json`` (a Work with its Jobs). For each job the tool fills the folder ``out`` and the file
``report.json`` in it, failed jobs included. Standard library only: this file runs in every environment.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPORT = "report.json"
IDLE = "idle"  # the method of a job that imports what the tool needs and makes nothing: what its memory is held against
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class Job:
    """One variant to make. ``group`` None: a scale per output channel; ``inputs8``: int8 inputs, a scale a token."""

    name: str
    bits: int
    group: int | None
    symmetric: bool = True
    inputs8: bool = False
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """``model`` a folder, ``ids`` a JSON file of calibration token ids (rows of one length), ``out`` a folder."""

    model: str
    ids: str
    out: str
    threads: int
    jobs: tuple[Job, ...]

    def rows(self) -> list[list[int]]:
        found: list[list[int]] = json.loads(Path(self.ids).read_bytes())
        return found

    def folder(self, job: Job) -> Path:
        return Path(self.out) / job.name

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Work:
        told = json.loads(path.read_bytes())
        return cls(**{**told, "jobs": tuple(Job(**job) for job in told["jobs"])})


Facts = dict[str, Any]  # what a tool says of its artifact: "plain", "bits", "inputs8", "note"


def one_by_one(make: Callable[[Work, Job], Facts], packages: Sequence[str]) -> None:
    """Make the jobs in turn, each timed alone; a job that fails is a report that says why, and the next one runs."""
    work = _begin()
    for job in work.jobs:
        _timed(work, (job,), partial(_one, make, work, job), packages)


def all_at_once(make: Callable[[Work], dict[str, Facts]], packages: Sequence[str]) -> None:
    """Make all jobs together; each is reported with the seconds of all of them."""
    work = _begin()
    _timed(work, work.jobs, lambda: make(work), packages)


def copy_tokenizer(model: str, out: Path) -> None:
    """The baseline's own tokenizer files, in the place of what a tool wrote of them."""
    for name in TOKENIZER:
        (out / name).unlink(missing_ok=True)
        if (Path(model) / name).is_file():
            shutil.copy(Path(model) / name, out / name)


def _one(make: Callable[[Work, Job], Facts], work: Work, job: Job) -> dict[str, Facts]:
    return {} if job.method == IDLE else {job.name: make(work, job)}


def _begin() -> Work:
    import torch

    work = Work.load(Path(sys.argv[1]))
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    return work


def _timed(work: Work, jobs: Sequence[Job], make: Callable[[], dict[str, Facts]], packages: Sequence[str]) -> None:
    for job in jobs:
        shutil.rmtree(work.folder(job), ignore_errors=True)
    began, used = time.perf_counter(), _cpu()
    made, failed = dict[str, Facts](), ""
    try:
        made = make()
    except Exception as problem:  # whatever a peer raises becomes its row in the table
        traceback.print_exc()
        first = (str(problem).strip().splitlines() or [""])[0]
        failed = f"{type(problem).__name__}: {first}"[:200]
    cost = {"seconds": time.perf_counter() - began, "cpu_s": _cpu() - used, "together": len(jobs)}
    for job in jobs:
        folder = work.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        told = {**cost, "failed": failed, "facts": made.get(job.name, {}), "versions": versions_of(packages)}
        (folder / REPORT).write_text(json.dumps(told), encoding="utf-8")
        print(f"{job.name}: {failed or 'made'} in {cost['seconds']:.1f} s", flush=True)


def _cpu() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
