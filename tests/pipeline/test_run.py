"""A release from release.yaml to the report: right, resumable, and refused early where it must be."""

from __future__ import annotations

import os
import shutil
import signal
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from quantgate import pipeline
from quantgate.errors import DataError, ModelError, Overlap, Stopped, UnknownName, UsageError
from quantgate.evaluate.overlap import Overlaps
from quantgate.pipeline.lock import alone_in
from quantgate.records import canonical, digest_file
from quantgate.release_config import load_config
from quantgate.report import RunReport

LOW = "W2A16-g32-rtn"


def tree(folder: Path) -> Any:
    return {str(file.relative_to(folder)): digest_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def proof(report: Any) -> Any:
    """What must not depend on how often a run was stopped."""
    return canonical(
        [report.decision.body(), [one.body() for one in report.evidence], [v.body() for v in report.variants]]
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def finished(release: Any, shared: Path) -> Any:
    """An undisturbed run; made once, since a second one only reads its caches."""
    return shared / "run", pipeline.run(load_config(release()), out=shared / "run")


def test_intact_variant_is_chosen_and_the_broken_one_named(finished: Any) -> None:
    out, report = finished
    assert report.decision.chosen == "W8A16"
    assert {one.variant: one.verdict for one in report.decision.verdicts} == {"W8A16": "pass", LOW: "fail"}
    assert report.decision.sentence == "W8A16 is the smallest of 2 variants that is proven safe"
    assert {one.baseline_score for evidence in report.evidence for one in evidence.comparisons} == {1.0}
    assert all(one.pass_alpha == 0.025 for one in report.gates)
    assert [one.suite for one in report.gates] == ["echo.jsonl", "count.jsonl"]
    assert RunReport.load(out / "report.json") == report
    page = (out / "report.html").read_text("utf-8")
    assert report.decision.sentence in page
    assert {case.get("name") for case in ET.parse(out / "junit.xml").iter("testcase")} >= {"echo", "count"}


def test_every_digest_in_the_decision_is_that_of_the_bytes(finished: Any) -> None:
    from quantgate.quantize import open_artifact

    out, report = finished
    for verdict, evidence in zip(report.decision.verdicts, report.evidence, strict=True):
        artifact = open_artifact(out / "artifacts" / verdict.variant)
        assert verdict.artifact == evidence.artifact == artifact.manifest.digest
        assert evidence.baseline == report.decision.baseline == report.baseline
        assert evidence.kernels


def test_second_run_asks_and_quantizes_nothing(release: Any, finished: Any) -> None:
    out, report = finished
    kept = {name: digest for name, digest in tree(out).items() if name.startswith(("answers", "artifacts", "drift"))}
    times = {name: (out / name).stat().st_mtime_ns for name in kept}
    again = pipeline.run(load_config(release()), out=out)
    assert proof(again) == proof(report)
    after = {name: (out / name).stat().st_mtime_ns for name in tree(out) if name in kept}
    assert after == times
    assert len(list((out / "answers").iterdir())) == 4  # the baseline, asked twice, and both variants


def ctrl_c_at(stage: str, event: int) -> Any:
    """A progress callback that presses Ctrl-C at the ``event``-th report of a stage, or of a part of one."""
    seen = []

    def progress(now: Any, done: Any, _total: Any, note: Any) -> None:
        if stage in (now, f"{now}: {note}"):
            seen.append(done)
            if len(seen) == event:
                os.kill(os.getpid(), signal.SIGINT)

    return progress


@pytest.mark.parametrize(
    ("stage", "event"), [("quantize: quantize", 2), ("quantize: write", 1), ("evaluate", 1), ("evaluate", 4)]
)
def test_ctrl_c_keeps_what_is_finished_and_the_same_run_goes_on_to_the_same_proof(
    release: Any, finished: Any, tmp_path: Path, stage: str, event: int
) -> None:
    config = load_config(release())
    with pytest.raises(Stopped, match=r"stopped; .* goes on from there"):
        pipeline.run(config, progress=ctrl_c_at(stage, event))
    assert not (tmp_path / "run" / "report.json").exists()
    held = {name: (tmp_path / "run" / name).stat().st_mtime_ns for name in tree(tmp_path / "run")}
    finished_artifacts = {name for name in held if name.startswith("artifacts/W")}
    assert bool(finished_artifacts) == (stage != "quantize: quantize")
    report = pipeline.run(config)
    assert proof(report) == proof(finished[1])
    assert all((tmp_path / "run" / name).stat().st_mtime_ns == held[name] for name in finished_artifacts)


def test_requantizing_in_place_replays_no_answer(release: Any, tmp_path: Path) -> None:
    first = [{"scheme": "W8A16", "name": "small"}]
    second = [{"scheme": "W8A16", "name": "small", "group_size": 32}]
    reports = [pipeline.run(load_config(release(variants=variants))) for variants in (first, second)]
    artifacts = [report.evidence[0].artifact for report in reports]
    engines = [report.evidence[0].engine for report in reports]
    assert len(set(artifacts)) == len(set(engines)) == 2
    journals = sorted((tmp_path / "run" / "answers").iterdir())
    assert len(journals) == 4  # of the baseline, of the baseline asked again, of both variants
    asked = sorted(path.read_bytes().count(b'"completion"') for path in journals)
    assert asked == [80, 80, 100, 100]  # 40 of each suite by both variants, 50 by the baseline and by it again


def test_baseline_that_solves_nothing_proves_nothing(release: Any, place: Path) -> None:
    lost = {"lost": {"suite": str(place / "lost.jsonl"), "margin": "50%"}}
    report = pipeline.run(load_config(release(capabilities=lost, variants=["W8A16"])))
    assert report.decision.chosen is None
    assert report.decision.verdicts[0].verdict == "inconclusive"


def test_drift_is_measured_on_built_in_suites(release: Any) -> None:
    capabilities = {"rare_vocabulary": {"margin": "50%", "cases": 20, "hard": 2}}
    config = load_config(release(capabilities=capabilities, variants=["W8A16"], drift_cases=4))
    report = pipeline.run(config)
    (evidence,) = report.evidence
    assert evidence.drift is not None and evidence.drift.tokens > 4
    assert 0 <= evidence.drift.kl_mean < 0.5
    assert evidence.comparisons[0].hard[0].n == 2
    assert proof(pipeline.run(config)) == proof(report)


def refused(error: Any, release: Any, **changes: Any) -> Any:
    """The sentence of a refusal, which comes before anything is written."""
    config = load_config(release(**changes))
    with pytest.raises(error) as told:
        pipeline.run(config)
    assert not os.path.exists(config.out)
    return str(told.value)


def test_gate_that_cannot_pass_is_refused_before_the_model_is_looked_for(release: Any, place: Path) -> None:
    strict = {"echo": {"suite": str(place / "echo.jsonl"), "margin": "1%"}}
    assert refused(UsageError, release, capabilities=strict, model="./missing") == (
        "echo: a margin of 1 % at alpha 5 % over 2 variants needs at least 545 cases, 60 are available; "
        "widen the margin, add cases, or judge fewer variants"
    )


def test_wrong_names_are_refused_with_the_nearest(release: Any) -> None:
    assert "unknown capability 'maths'; did you mean 'math'?" in refused(UnknownName, release, capabilities=["maths"])
    assert refused(UnknownName, release, variants=["W4A17"]).startswith(
        "variants, number 1: unknown scheme 'W4A17'; did you mean"
    )
    told = refused(UnknownName, release, variants=["W8A16", {"scheme": "W4A16-g32", "method": "gtpq"}])
    assert "unknown method 'gtpq'; did you mean 'gptq'?" in told
    assert "missing: no such folder" in refused(ModelError, release, model="./missing")


def test_variants_must_be_different_and_nameable(release: Any) -> None:
    assert refused(UsageError, release, variants=["W8A16", "w8a16"]) == (
        "variants: two are called 'W8A16'; give one of them another 'name'"
    )
    assert refused(UsageError, release, variants=["BF16", "baseline"]) == (
        "variants: names no variant besides the baseline; add one, such as W4A16"
    )
    told = refused(UsageError, release, variants=[{"scheme": "W8A16", "name": "../up"}])
    assert told.startswith("variants, number 1: '../up' cannot name a folder; use letters, digits")


def test_hard_cases_of_a_suite_file_are_refused(release: Any, place: Path) -> None:
    wanted = {"echo": {"suite": str(place / "echo.jsonl"), "margin": "50%", "hard": 5}}
    assert refused(UsageError, release, capabilities=wanted) == (
        "capabilities: echo: 'hard' is for built-in suites; leave it out beside a suite file"
    )


def test_calibration_sample_that_is_a_gate_case_is_refused(release: Any, tmp_path: Path) -> None:
    traffic = tmp_path / "traffic.jsonl"
    traffic.write_text('{"prompt": "hello"}\n{"prompt": "Echo  4", "completion": "x"}\n')
    with pytest.raises(Overlap) as told:
        pipeline.run(load_config(release(calibration={"traffic": str(traffic), "samples": 8})))
    start = "calibration overlaps with the gate: sample 2 ('Echo 4') is 'echo-2' of echo (the same conversation)"
    assert str(told.value).startswith(start)
    listed = tmp_path / "run" / "overlap.json"
    assert str(listed) in str(told.value)
    assert [(pair.sample, pair.case, pair.item) for pair in Overlaps.load(listed).pairs] == [(2, "echo-2", True)]


def test_overlap_that_is_allowed_by_name_does_not_stop_a_run(release: Any, tmp_path: Path) -> None:
    traffic = tmp_path / "traffic.jsonl"
    traffic.write_text('{"prompt": "hello"}\n{"prompt": "Echo  4", "completion": "x"}\n')
    calibration = {"traffic": str(traffic), "samples": 8, "allow_overlap": ["eco"]}
    told = refused(UsageError, release, calibration=calibration)
    assert told == "overlap: 'eco' is no suite and no case (suite/id) of this run; mend or remove it"
    report = pipeline.run(load_config(release(calibration=calibration | {"allow_overlap": ["echo/echo-2"]})))
    assert report.decision.verdicts
    assert report.overlap is not None and (report.overlap.allowed, report.overlap.items) == (1, 0)
    assert "1 are allowed by name" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_broken_traffic_line_is_told_with_its_number(release: Any, tmp_path: Path) -> None:
    traffic = tmp_path / "traffic.jsonl"
    traffic.write_text('{"prompt": "hello"}\n{"prompt": \n')
    told = refused(DataError, release, calibration={"traffic": str(traffic)})
    assert "traffic.jsonl, line 2: not valid JSON" in told


def test_more_cases_than_wanted_are_chosen_by_the_seed_not_by_their_place(place: Path, release: Any) -> None:
    from quantgate.pipeline.cases import cases_of

    chosen = []
    for seed in (0, 0, 1):
        wanted = {"echo": {"suite": str(place / "echo.jsonl"), "margin": "50%", "cases": 10}}
        config = load_config(release(capabilities=wanted, judge={"seed": seed}))
        chosen.append([case.id for case in cases_of(config, 1).gate["echo"]])
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] != [f"echo-{at}" for at in range(10)]


def test_a_lost_artifact_is_made_again(release: Any, finished: Any, tmp_path: Path) -> None:
    out, report = finished
    shutil.copytree(out, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "artifacts" / "W8A16")
    again = pipeline.run(load_config(release()))
    assert proof(again) == proof(report)


def test_two_runs_in_one_folder_are_refused_and_a_killed_one_leaves_no_lock(release: Any, tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with alone_in(tmp_path / "run"):
            (tmp_path / "ready").touch()
            signal.pause()
    while not (tmp_path / "ready").exists():
        time.sleep(0.005)
    with pytest.raises(UsageError, match="another run works here; wait for it, or give this one a folder with --out"):
        pipeline.run(load_config(release()), out=tmp_path / "run")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with alone_in(tmp_path / "run"):
        pass


def test_a_rule_about_the_ledger_keeps_a_variant_from_being_chosen(release: Any) -> None:
    """o_proj is kept, which is a line of the ledger for its one layer."""
    variants = [{"scheme": "W8A16", "keep": ["o_proj"], "name": "kept"}]
    free = pipeline.run(release(variants=variants))
    assert free.decision.chosen == "kept"
    bound = pipeline.run(release(variants=variants, judge={"ledger": {"kept": 0}}))
    assert bound.decision.chosen is None
    assert "1 line of kept in its ledger, 0 allowed" in bound.decision.verdicts[0].sentence
    with pytest.raises(UsageError, match="'falback' is no event of the ledger; did you mean 'fallback'"):
        load_config(release(judge={"ledger": {"falback": 0}}))
