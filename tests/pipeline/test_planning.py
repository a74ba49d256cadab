"""Before anything is spent: the plan says what a run needs and takes, from what is known in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quantgate import pipeline
from quantgate.cli import app
from quantgate.errors import UsageError
from quantgate.models import open_model
from quantgate.pipeline.planning import ASSUMED_FLIPS, Plan, plan
from quantgate.release_config import load_config


def test_plan_of_a_fresh_folder_counts_prompts_and_assumes_flips(release: Any, tmp_path: Path) -> None:
    config = load_config(release())
    found = plan(config, tmp_path / "run", probe=False)
    assert [one.capability for one in found.capabilities] == ["echo", "count"]
    assert not (tmp_path / "run").exists()
    model = open_model(config.model)
    for one, asked in zip(found.capabilities, ("echo", "count"), strict=True):
        assert (one.flip_rate, one.flips_from, one.answers_from) == (ASSUMED_FLIPS, "assumed", "their limit")
        assert one.seconds is None
        assert one.answer_tokens == 3 * one.asked * 3  # 3 models, 3 tokens at most
        mean = one.prompt_tokens / one.asked / 3
        lengths = [len(model.encode([{"role": "user", "content": f"{asked} {at * at}"}])) for at in range(80)]
        assert min(lengths) <= mean <= max(lengths)
    assert (found.seconds, found.price) == (None, None)


def test_probe_measures_and_an_hourly_price_follows_the_time(release: Any, tmp_path: Path) -> None:
    found = plan(load_config(release(price="3600/h")), tmp_path / "run")
    assert found.seconds is not None and found.seconds > 0
    assert found.price == pytest.approx(found.seconds)
    assert found.seconds_from == "a few cases asked now"


def test_finished_run_gives_its_flips_answers_and_times_to_the_next_plan(release: Any, tmp_path: Path) -> None:
    told = list[Plan]()
    config = load_config(release(price={"prompt": "1/k", "completion": "2/k"}))
    report = pipeline.run(config, planned=told.append)
    out = tmp_path / "run"
    assert [Plan.load(out / "plan.json")] == told
    found = plan(config, out)
    for one in found.capabilities:
        rows = [row for evidence in report.evidence for row in evidence.comparisons]
        rows = [row for row in rows if row.gate.capability == one.capability and row.finding.verdict != "fail"]
        rates = [(row.finding.losses + row.finding.gains) / row.n for row in rows]
        assert one.flip_rate == max(*rates, 1 / rows[0].n) if len(rates) > 1 else max(rates[0], 1 / rows[0].n)
        assert one.flips_from.startswith("W8A16, ")
        assert one.answers_from.endswith(" earlier answers")
        assert one.seconds is not None
    assert found.seconds_from == "earlier answers in the folder"
    assert found.price == pytest.approx((found.prompt_tokens + 2 * found.answer_tokens) / 1000)


def test_gate_that_cannot_pass_is_refused_by_the_plan_as_by_the_run(release: Any, place: Path, tmp_path: Path) -> None:
    config = load_config(release(capabilities={"echo": {"suite": str(place / "echo.jsonl"), "margin": "3%"}}))
    for ask in (plan, lambda config, out: pipeline.run(config, out=out)):
        with pytest.raises(UsageError, match=r"echo: a margin of 3 % .* needs at least \d+ cases, 60 are available"):
            ask(config, tmp_path / "run")


def test_command_prints_the_plan_and_starts_nothing(release: Any, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(release(price="2.50/h")), "--plan"])
    assert done.exit_code == 0, done.output
    assert "3 models x about" in done.output and "price 0.0" in done.output
    assert not (tmp_path / "run").exists()
