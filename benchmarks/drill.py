"""The drill: a gateway, its baseline, a variant that starts to break JSON under real load, each a process of its own.

    python -m benchmarks drill            five good minutes, then the variant breaks; ten minutes in all

What is measured: how long until the verdict, how long after it the last request reached the variant, and whether any
answer was lost or left the gateway broken. ``drill`` takes a registry that has a canary already, so that a test may run
it in seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result import Result
from quantgate.release.store import Registry
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Reader
from quantgate.watch import Alarm
from quantgate.watch.store import Store

ROOT = Path(__file__).parents[1]
TARGET, BASELINE, VARIANT = "default", "BF16", "W8A16"
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "sum": {"type": "integer"}},
    "required": ["answer", "sum"],
    "additionalProperties": False,
}
ASKED = {"response_format": {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}}
RELEASE = {
    "model": "quantgate/reference",
    "capabilities": {"math": {"margin": "50%", "cases": 24}},
    "variants": [VARIANT],
    "calibration": {"samples": 8, "max_tokens": 32},
    "judge": {"noise": False},
    "drift_cases": 0,
}
PATIENCE_S = 120.0  # for a verdict after the variant broke


@dataclass(frozen=True)
class Drilled:
    """Times in seconds since 1970, or in seconds."""

    broke_at: float
    decided_at: float | None  # by the alarm; None: no verdict came
    because: str
    detected_s: float | None  # from the first broken answer to the verdict
    last_asked_s: float | None  # when the last request reached the variant, after the verdict; negative: before it
    asked_late: int  # requests that reached it more than 100 ms after the verdict
    broken: int  # answers that it broke
    requests: int
    failed: int  # that got no answer
    errors: int  # exchanges that ended in an error


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "release.yaml").write_text(json.dumps(RELEASE), "utf-8")
        _quantgate(folder, "run", "--quiet", "--register", "sqlite:///runs/quantgate.db")
        _quantgate(folder, "promote", TARGET, VARIANT, "--canary", "10%")
        found = drill(folder, "sqlite:///runs/quantgate.db", good_s=300, whole_s=600, rate=20)
    return results(found)


def results(found: Drilled) -> list[Result]:
    late = found.last_asked_s
    return [
        Result(
            "drill: verdict after the first broken answer",
            "none" if found.detected_s is None else f"{found.detected_s:.1f} s, {found.broken} broken answers",
            "at most 60 s",
            found.detected_s is not None and found.detected_s <= 60,
        ),
        Result(
            "drill: last request that reached the variant, after the verdict",
            "never ended" if late is None else f"{1000 * late:.0f} ms",
            "at most 100 ms",
            late is not None and late <= 0.1,
        ),
        Result(
            f"drill: answers lost, and exchanges that ended in an error, of {found.requests}",
            f"{found.failed}, {found.errors}",
            "0, 0",
            found.failed == found.errors == 0,
        ),
    ]


def drill(folder: Path, registry: str, *, good_s: float, whole_s: float, rate: float) -> Drilled:
    """``registry``: its target ``default`` has the canary W8A16; ``good_s``: until it breaks; ``whole_s``: of load."""
    broken = folder / "broken"
    with _upstream(folder, BASELINE, folder / "never") as baseline, _upstream(folder, VARIANT, broken) as variant:
        config: dict[str, Any] = {
            "target": TARGET,
            "registry": registry,
            "variants": {BASELINE: {"endpoint": {"url": baseline}}, VARIANT: {"endpoint": {"url": variant}}},
            "routes": [{"name": "json", "when": {"structured": True}, "stream": "buffer"}],
            "telemetry": False,
        }
        (folder / "serve.yaml").write_text(json.dumps(config), "utf-8")
        with _gateway(folder) as url, _load(folder, url, rate, whole_s) as load:
            _asked(folder, load)
            time.sleep(good_s)
            broken.touch()
            broke_at = time.time()
            _until_back(folder, registry, broke_at + PATIENCE_S)
            load.wait(whole_s + 120)
            alarm = _alarm(folder)
    return _told(folder, broke_at, alarm)


def _until_back(folder: Path, url: str, last_at: float) -> None:
    registry = Registry.open(url.replace("sqlite:///", f"sqlite:///{folder}/") if "///runs" in url else url)
    try:
        while time.time() < last_at and registry.live(TARGET).canary is not None:
            time.sleep(0.05)
    finally:
        registry.close()


def _told(folder: Path, broke_at: float, alarm: Alarm | None) -> Drilled:
    rows = [line.split() for line in (folder / f"{VARIANT}.log").read_text("utf-8").splitlines()]
    bad = [float(at) for at, how in rows if how == "broken"]
    decided = alarm.decided_at if alarm is not None else None
    last = max((float(at) for at, _ in rows), default=None)
    loaded = json.loads((folder / "load" / "load.json").read_text("utf-8"))
    requests, failed = _counts(loaded)
    return Drilled(
        broke_at=broke_at,
        decided_at=decided,
        because=alarm.verdict.because if alarm is not None else "",
        detected_s=decided - bad[0] if decided is not None and bad else None,
        last_asked_s=last - decided if last is not None and decided is not None else None,
        asked_late=sum(float(at) > decided + 0.1 for at, _ in rows) if decided is not None else len(rows),
        broken=len(bad),
        requests=requests,
        failed=failed,
        errors=_errors(folder),
    )


def _asked(folder: Path, load: subprocess.Popen[str]) -> None:
    """Until the first request has come through."""
    while not (folder / f"{BASELINE}.log").stat().st_size:
        if load.poll() is not None:
            raise RuntimeError("the load tester ended:\n" + (folder / "load.log").read_text("utf-8"))
        time.sleep(0.05)


def _counts(loaded: Mapping[str, Any]) -> tuple[int, int]:
    """Requests sent, and those that got no whole answer."""
    measured = loaded["body"]["results"][0]["measured"]
    return measured["sent"], measured["lost"]


def _kept(folder: Path) -> str:
    """The gateway's own database of exchanges and evidence."""
    return f"sqlite:///{folder}/.quantgate/exchanges.db"


def _errors(folder: Path) -> int:
    reader = Reader(connect(_kept(folder)))
    try:
        return sum(bool(one.error) for _, one in reader.since(0, target=TARGET))
    finally:
        reader.close()


def _alarm(folder: Path) -> Alarm | None:
    """The rollback's."""
    store = Store(connect(_kept(folder)))
    try:
        return next((one for one in store.alarms(TARGET) if one.verdict.action == "rollback"), None)
    finally:
        store.close()


@contextlib.contextmanager
def _upstream(folder: Path, name: str, broken: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks._drill_upstream", str(folder / f"{name}.log"), str(broken)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=_environment())
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def _gateway(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "quantgate", "serve", "--config", "serve.yaml", "--port", "0"]
    with (folder / "gateway.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment()
        )
    assert process.stdout is not None
    try:
        yield _address(process, folder)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _address(process: subprocess.Popen[str], folder: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://\S+/v1", line)
        if found:
            return found[0]
    raise RuntimeError("the gateway did not start:\n" + (folder / "gateway.log").read_text("utf-8"))


@contextlib.contextmanager
def _load(folder: Path, url: str, rate: float, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """The load tester's own command, with a session for each request."""
    turns = [{"messages": [{"role": "user", "content": f"What is {n} + {n + 1}?"}]} for n in range(200)]
    (folder / "traffic.jsonl").write_text("\n".join(map(json.dumps, turns)), "utf-8")
    command = [
        sys.executable, "-m", "quantgate", "loadtest", f"{url}#{TARGET}", "--rate", f"{rate:g}/s",
        "--duration", f"{seconds:g}s", "--traffic", "traffic.jsonl", "--request", json.dumps(ASKED),
        "--out", "load", "--quiet",
    ]  # fmt: skip
    with (folder / "load.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, text=True, env=_environment())
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def _quantgate(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "quantgate", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise RuntimeError(f"quantgate {' '.join(words)}: {done.stdout}{done.stderr}")
