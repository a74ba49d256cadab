"""A capability that runs code: how it was shut in stands in the evidence, the result and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantgate import pipeline
from quantgate.errors import SandboxError
from quantgate.evaluate.evidence import Evidence
from quantgate.sandbox.choose import ready


@pytest.fixture
def code(tmp_path: Path) -> str:
    """Sixty cases whose answer is a few random words: none of it defines ``f``."""
    rows = [
        {
            "id": f"code-{at}",
            "prompt": f"write f {at}",
            "scorer": "python_tests",
            "reference": {"tests": f"assert f({at}) == {2 * at}", "entry": "f"},
            "max_tokens": 3,
        }
        for at in range(60)
    ]
    path = tmp_path / "code.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_the_tier_stands_in_the_evidence_and_in_the_report(release: Any, code: str, tmp_path: Path) -> None:
    try:
        sentence = ready().sentence
    except SandboxError as reason:
        pytest.skip(str(reason))
    suite = {"suite": code, "margin": "10%"}
    report = pipeline.run(release(capabilities={"code": suite}, drift_cases=0), out=tmp_path / "out")
    assert {one.sandbox for one in report.evidence} == {sentence}
    assert sentence in (tmp_path / "out" / "report.html").read_text("utf-8")
    judged = report.evidence[0].comparisons[0]
    assert judged.baseline_score == 0.0 and not judged.unscored


def test_evidence_without_code_is_saved_as_before(release: Any, tmp_path: Path) -> None:
    report = pipeline.run(release(drift_cases=0), out=tmp_path / "out")
    assert [one.sandbox for one in report.evidence] == [""] * len(report.evidence)
    assert "sandbox" in Evidence.model_fields and "sandbox" not in report.evidence[0].body()
    assert "generated code" not in (tmp_path / "out" / "report.html").read_text("utf-8")
