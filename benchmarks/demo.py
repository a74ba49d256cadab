"""The demo end to end: wall time, and what stopping early saves at which verdicts."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.result import Result
from quantgate import pipeline
from quantgate.examples import demo_config


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report = pipeline.run(demo_config(400), out=Path(folder))
        seconds = time.perf_counter() - began
    rows = [row for one in report.evidence for row in one.comparisons]
    asked, available = sum(row.asked for row in rows), sum(row.available for row in rows)
    stages = ", ".join(f"{stage.name} {stage.seconds:.0f} s" for stage in report.stages if stage.seconds >= 1)
    return [
        Result(
            "demo: baseline + 6 variants x 8 suites, up to 400 cases",
            f"{seconds:.0f} s ({stages})",
            "at most 360 s",
            seconds <= 360,
        ),
        Result(
            "demo: cases asked of those available", f"{asked / available:.0%}", "at most 50 %", asked <= available / 2
        ),
    ]
