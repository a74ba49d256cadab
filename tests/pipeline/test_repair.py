"""A variant that fails is repaired with layers of its neighbours, and judged on cases that nobody has asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.pipeline.conftest import BUDGET, Release, write_suite
from typer.testing import CliRunner

from quantgate import pipeline
from quantgate.cli import app
from quantgate.engines import Completion, Prompt
from quantgate.engines.torch import open_engine
from quantgate.errors import Overlap, UsageError
from quantgate.evaluate.compare import visiting_order
from quantgate.evaluate.files import read_suite
from quantgate.evaluate.scorers.exact import normal
from quantgate.models import open_model
from quantgate.pipeline import repair as repairs
from quantgate.quantize import baseline, open_artifact
from quantgate.records import digest_of
from quantgate.report.repairs import Repair, bought_sentence, lifted_sentence, smaller_sentence
from quantgate.report.terminal import repair_hint

ASKED, REST = 60, 300


@pytest.fixture(scope="module")
def suite(place: Path) -> Path:
    """360 cases whose right answers are the baseline's."""
    engine = open_engine(model := open_model(place / "model"), baseline(model))
    prompts = [f"say {at * at + 7}" for at in range(ASKED + REST + 60)]
    asked = [Prompt(turns=(("user", one),), max_tokens=BUDGET) for one in prompts]
    texts = [one.text if isinstance(one, Completion) else "" for one in engine.generate(asked)]
    kept = [at for at, text in enumerate(texts) if normal(text)][: ASKED + REST]
    write_suite(place / "say.jsonl", [prompts[at] for at in kept], [texts[at] for at in kept])
    return place / "say.jsonl"


def settings(suite: Path) -> dict[str, object]:
    return {"capabilities": {"say": {"suite": str(suite), "margin": "20%", "cases": ASKED}}}


@pytest.fixture
def repaired(release: Release, suite: Path) -> tuple[Path, Repair]:
    config = release(
        **settings(suite), targets={"shop": {"hardware": "cpu-avx512", "memory": "8GiB", "runtime": "torch"}}
    )
    pipeline.run(config)
    return config, repairs.repair(config, "W2A16-g32-rtn")


def test_the_repaired_variant_has_lifted_layers_and_passes_on_unseen_cases(
    repaired: tuple[Path, Repair], suite: Path
) -> None:
    config, found = repaired
    run = Path(json.loads(config.read_text())["out"])
    made = open_artifact(run / "artifacts" / found.repaired)
    failed, whole = (open_artifact(run / "artifacts" / name) for name in ("W2A16-g32-rtn", "W8A16"))
    assert found.targets == ("say",)
    assert found.report.decision.chosen == "W2A16-g32-rtn+repair"
    assert 0 < found.bytes_after - found.bytes_before == sum(one.bytes_added for one in found.lifts)
    lifted = {layer: one.source for one in found.lifts for layer in one.layers}
    for layer in failed.quantized:
        if layer not in lifted:
            assert made.linear(layer).codes.equal(failed.linear(layer).codes)
        elif lifted[layer] == "W8A16":
            assert made.linear(layer).codes.equal(whole.linear(layer).codes)
            fate = next(one for one in made.manifest.fates if one.name == layer)
            assert fate.because == "lifted for say"
        else:
            assert layer not in made.quantized
    assert found.trials[-1].kept
    (shop,) = found.report.targets
    assert (shop.chosen, len(shop.verdicts)) == (found.repaired, 1)
    assert shop.verdicts[0].artifact == made.manifest.digest
    assert [one.bytes for one in found.trials] == sorted(one.bytes for one in found.trials)

    order = visiting_order(read_suite(suite, "say"), 0)
    before, fresh = {case.digest for case in order[:ASKED]}, found.report.evidence[0].comparisons[0]
    tuned = {case.digest for case in order[ASKED::2]}
    unseen = [case for case in order if case.digest not in before | tuned]
    assert fresh.available == 2 * ASKED
    assert fresh.gate.pass_alpha == 0.025
    assert fresh.suite_digest == digest_of([case.digest for case in visiting_order(unseen[: fresh.available], 0)])


def test_the_record_is_kept_and_told_in_words(repaired: tuple[Path, Repair]) -> None:
    config, found = repaired
    folder = Path(json.loads(config.read_text())["out"]) / "repairs" / found.repaired
    assert Repair.load(folder / "repair.json") == found
    assert {"report.html", "report.json", "junit.xml"} <= {file.name for file in folder.iterdir()}
    assert f"{found.bytes_after - found.bytes_before:,} bytes more" in lifted_sentence(found)
    assert "cases that nobody had asked: say" in bought_sentence(found)
    assert "W2A16-g32-rtn+repair is proven" in smaller_sentence(found)
    again = CliRunner().invoke(app, ["repair", "W2A16-g32-rtn", "--config", str(config), "--quiet"])
    assert again.exit_code == 0, again.output
    assert "tried on the tune split" in again.output
    assert "is proven" in " ".join(again.output.split())
    assert Repair.load(folder / "repair.json").report.decision == found.report.decision


def test_what_cannot_be_repaired_is_told(release: Release, suite: Path) -> None:
    config = release(**settings(suite))
    with pytest.raises(UsageError, match=r"no .*report\.json; finish the run first"):
        repairs.repair(config, "W2A16-g32-rtn")
    pipeline.run(config)
    with pytest.raises(UsageError, match="'W2A16' is no variant"):
        repairs.repair(config, "W2A16")
    with pytest.raises(UsageError, match="W8A16 passed on every capability; there is nothing to repair"):
        repairs.repair(config, "W8A16")
    with pytest.raises(UsageError, match="cannot name the repaired variant"):
        repairs.repair(config, "W2A16-g32-rtn", label="W8A16")
    changed = release(**settings(suite) | {"drift_cases": 8})
    with pytest.raises(UsageError, match="is of another configuration; run it again"):
        repairs.repair(changed, "W2A16-g32-rtn")


def test_a_run_names_the_variant_that_can_be_repaired_and_how(release: Release, suite: Path, tmp_path: Path) -> None:
    config = release(**settings(suite))
    report = pipeline.run(config)
    assert repair_hint(report, config).endswith(f"quantgate repair W2A16-g32-rtn --config {config}[/]")
    assert repair_hint(report, config, tmp_path).endswith(f" --out {tmp_path}[/]")
    folded = [{"scheme": "W2A16", "group_size": 32, "method": "awq"}, "W8A16"]
    assert repair_hint(pipeline.run(release(**settings(suite), variants=folded)), config) == ""


def test_a_second_repair_is_asked_other_cases_at_half_the_rate(release: Release, suite: Path) -> None:
    config = release(**settings(suite) | {"capabilities": {"say": {"suite": str(suite), "margin": "20%", "cases": 36}}})
    pipeline.run(config)
    one = repairs.repair(config, "W2A16-g32-rtn", label="one")
    two = repairs.repair(config, "W2A16-g32-rtn", label="two")
    again = repairs.repair(config, "W2A16-g32-rtn", label="one")
    assert (one.number, two.number, again.number) == (1, 2, 1)
    rows = [made.report.evidence[0].comparisons[0] for made in (one, two)]
    assert [row.gate.pass_alpha for row in rows] == [0.025, 0.0125]
    assert rows[0].suite_digest != rows[1].suite_digest
    assert again.report.decision == one.report.decision
    assert again.bytes_after == two.bytes_after == one.bytes_after  # the same layers, on the same tune split


def test_a_suite_that_grew_since_the_run_is_refused(release: Release, suite: Path, tmp_path: Path) -> None:
    lines = suite.read_text().splitlines(keepends=True)
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(lines[:200]))
    config = release(**settings(mine) | {"capabilities": {"say": {"suite": str(mine), "margin": "20%", "cases": 60}}})
    pipeline.run(config)
    mine.write_text("".join(lines))
    with pytest.raises(UsageError, match="cases of say are no longer those of the run"):
        repairs.repair(config, "W2A16-g32-rtn")


def test_calibration_samples_among_the_unseen_cases_are_refused(release: Release, suite: Path, tmp_path: Path) -> None:
    case = visiting_order(read_suite(suite, "say"), 0)[ASKED + 1]
    traffic = tmp_path / "traffic.jsonl"
    rows = [{"prompt": f"tell me about {at}", "completion": "no"} for at in range(11)]
    rows.append({"prompt": case.messages[-1].content, "completion": "yes"})
    traffic.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = release(**settings(suite), calibration={"traffic": str(traffic), "samples": 12, "max_tokens": 32})
    pipeline.run(config)
    with pytest.raises(Overlap):
        repairs.repair(config, "W2A16-g32-rtn")


def test_an_artifact_that_was_not_judged_is_refused(release: Release, suite: Path) -> None:
    config = release(**settings(suite))
    pipeline.run(config)
    run = Path(json.loads(config.read_text())["out"])
    shutil.rmtree(run / "artifacts" / "W2A16-g32-rtn")
    shutil.copytree(run / "artifacts" / "W8A16", run / "artifacts" / "W2A16-g32-rtn")
    with pytest.raises(UsageError, match=r"is not what .* judged; run it again"):
        repairs.repair(config, "W2A16-g32-rtn")


def test_a_suite_without_unseen_cases_is_refused(release: Release, suite: Path) -> None:
    config = release(capabilities={"say": {"suite": str(suite), "margin": "20%", "cases": ASKED + REST - 4}})
    pipeline.run(config)
    with pytest.raises(UsageError, match=r"needs at least \d+ cases, 2 are available"):
        repairs.repair(config, "W2A16-g32-rtn")
