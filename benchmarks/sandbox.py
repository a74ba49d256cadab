"""What a run of generated code costs in the sandbox, tier by tier: start, run, verdict; and many side by side."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.result import Result
from quantgate.errors import SandboxError
from quantgate.sandbox import Job, Tier
from quantgate.sandbox.box import Box
from quantgate.sandbox.choose import best
from quantgate.sandbox.probes import PROBES

RUNS, MANY = 200, 400
JOB = Job(
    code="import math, re, collections\ndef f(x):\n    return [x * i for i in range(10)]\n",
    tests="\n".join(f"assert f({x}) == {[x * i for i in range(10)]}" for x in range(5)),
)
TARGET_MS = 30.0


def run() -> list[Result]:
    results = [_bare()]
    for tier in (1, 2):
        try:
            results += _tier(tier)
        except SandboxError as reason:
            results.append(Result(f"tier {tier}", f"not on this machine: {reason}"))
    return results


def _tier(tier: Tier) -> list[Result]:
    began = time.perf_counter()
    box = best([tier], PROBES)
    tested = time.perf_counter() - began
    runs = [_seconds(box) for _ in range(RUNS)]
    times = sorted(wall for wall, _ in runs)
    median, late = 1000 * statistics.median(times), 1000 * times[int(0.95 * RUNS)]
    work = 1000 * statistics.median(cpu for _, cpu in runs)
    began = time.perf_counter()
    box.run_many([JOB] * MANY)
    rate = MANY / (time.perf_counter() - began)
    box.close()
    return [
        Result(
            f"{box.sentence}: start and run of code with 5 assertions, median",
            f"{median:.1f} ms",
            f"at most {TARGET_MS:g} ms",
            median <= TARGET_MS,
        ),
        Result(f"tier {tier}: the same, 95th percentile of {RUNS}", f"{late:.1f} ms"),
        Result(f"tier {tier}: processor time of its two processes, median", f"{work:.1f} ms"),
        Result(f"tier {tier}: as many side by side as there are cores", f"{rate:.0f} runs/s"),
        Result(f"tier {tier}: start of the server and self-test by {len(PROBES)} probes, once", f"{tested:.1f} s"),
    ]


def _seconds(box: Box) -> tuple[float, float]:
    """By the clock, and of the processor."""
    began = time.perf_counter()
    outcome = box.run(JOB)
    took = time.perf_counter() - began
    if outcome.verdict != "passed":
        raise SystemExit("sandbox: the job that is timed does not pass")
    return took, outcome.cpu_s


def _bare() -> Result:
    """What starting an interpreter alone costs, with nothing shut in and nothing run."""
    times = []
    for _ in range(20):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        times.append(time.perf_counter() - began)
    return Result("for comparison: starting a bare interpreter, median", f"{1000 * statistics.median(times):.1f} ms")
