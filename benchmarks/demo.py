"""The demo end to end: wall time, and what stopping early saves at which verdicts."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.result import Result
from quantgate import pipeline
from quantgate.engines import Engine
from quantgate.engines.torch import open_engine
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, compare
from quantgate.examples import demo_config
from quantgate.models import REFERENCE, open_model
from quantgate.pipeline.cases import cases_of
from quantgate.quantize import baseline, open_artifact
from quantgate.report import RunReport


def run(cases: int = 400) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report = pipeline.run(demo_config(cases), out=Path(folder))
        seconds = time.perf_counter() - began
        rows = [row for one in report.evidence for row in one.comparisons]
        asked, available = sum(row.asked for row in rows), sum(row.available for row in rows)
        same = _same_verdicts(report, cases, Path(folder))
    stages = ", ".join(f"{stage.name} {stage.seconds:.0f} s" for stage in report.stages if stage.seconds >= 1)
    return [
        Result(
            f"demo: baseline + 6 variants x 8 suites, up to {cases} cases",
            f"{seconds:.0f} s ({stages})",
            "at most 360 s",
            seconds <= 360,
        ),
        Result(
            "demo: cases asked of those available", f"{asked / available:.0%}", "at most 50 %", asked <= available / 2
        ),
        Result(
            "demo: verdicts that asking every case confirms", f"{same} of {len(rows)}", "all of them", same == len(rows)
        ),
    ]


def _same_verdicts(report: RunReport, limit: int, out: Path) -> int:
    """Ask the cases that the early verdicts saved; how many verdicts stay as they were."""
    model = open_model(REFERENCE)
    drawn = cases_of(demo_config(limit), len(report.evidence))
    base, same = _side(open_engine(model, baseline(model)), out), 0
    for one in report.evidence:
        side = _side(open_engine(model, open_artifact(out / "artifacts" / one.variant)), out)
        for early in one.comparisons:
            whole = compare(early.gate, drawn.gate[early.gate.capability], base, side, exhaustive=True)
            same += whole.finding.verdict == early.finding.verdict
    return same


def _side(engine: Engine, out: Path) -> Side:
    return Side(engine, Answers(out / "answers", engine.identity))
