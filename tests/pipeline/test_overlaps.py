"""quantgate overlap: pairs and exit 1 where traffic holds a suite's cases, exit 0 where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quantgate.cli import app
from quantgate.errors import UsageError
from quantgate.evaluate import suites
from quantgate.pipeline.overlaps import compare


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Clean traffic, traffic with one case in it, and the suite."""
    texts = [
        f"Which of the {at * 13 + 5} harbours on the route from port {at * 7} has the deepest water?" for at in range(5)
    ]
    suite, clean, leaky = (tmp_path / f"{name}.jsonl" for name in ("harbours", "clean", "leaky"))
    rows = [{"id": f"h{at}", "prompt": text, "scorer": "exact", "reference": "a"} for at, text in enumerate(texts)]
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))
    clean.write_text('{"prompt": "Who painted the ceiling of the old library, and when was that?"}\n')
    leaky.write_text(clean.read_text() + json.dumps({"prompt": texts[2].upper()}) + "\n")
    return clean, leaky, suite


def test_exit_codes_and_pairs(files: tuple[Path, Path, Path]) -> None:
    clean, leaky, suite = files
    run = CliRunner().invoke
    assert run(app, ["overlap", str(clean), "--suite", str(suite)]).exit_code == 0
    found = run(app, ["overlap", str(leaky), "--suite", str(suite)])
    assert found.exit_code == 1
    assert "harbours/h2" in found.output and "1 of 2 samples are among the 5 cases of harbours" in found.output
    told = run(app, ["overlap", str(leaky), "--suite", str(suite), "--json"])
    assert json.loads(told.output)["pairs"][0]["case"] == "h2"
    allowed = run(app, ["overlap", str(leaky), "--suite", str(suite), "--allow", "harbours/h2"])
    assert allowed.exit_code == 0 and "1 are allowed by name" in allowed.output


def test_built_in_suites_are_compared_by_name(tmp_path: Path) -> None:
    case = suites.cases("math", "gate", 30)[17]
    traffic = tmp_path / "traffic.jsonl"
    traffic.write_text(json.dumps({"prompt": case.messages[-1].content}) + "\n")
    assert [pair.case for pair in compare(traffic, ["math"], cases=30).blocking] == [case.id]
    with pytest.raises(UsageError, match="a suite called 'math' is named already"):
        compare(traffic, ["math", "math"], cases=30)
