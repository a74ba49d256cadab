"""The stage load of a run: the built-in model on this machine, asked under load where nothing else stops a variant."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from quantgate import pipeline
from quantgate.decide.load_evidence import read_load
from quantgate.errors import MissingExtra, Stopped, UsageError
from quantgate.hardware.profiles import Profile
from quantgate.loadtest.result import LoadResult
from quantgate.pipeline.load_plan import asked_of, planned_loads
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.report import RunReport

SOURCE = Path(__file__).resolve().parents[2] / "src"
PLACE = {"hardware": "here", "runtime": "torch", "rate": "2/s", "prompt": 128, "answer": 48, "concurrency": 2}
SHORT = {"load_test": {"seconds": 10, "blocks": 2}}  # some 20 requests: 6 bound a median, 5 late ones show a queue
RELEASE: dict[str, Any] = {
    "capabilities": {"json_tools": {"margin": "40%", "cases": 60}},
    "calibration": {"samples": 16, "max_tokens": 128},
    "variants": [{"scheme": "W8A16", "method": "rtn"}, {"scheme": "W4A16", "method": "rtn", "group_size": 32}],
    "judge": {"noise": 0},
    "drift_cases": 0,
    "targets": {
        "kept": PLACE | SHORT | {"e2e_p50": "60s"},
        "broken": PLACE | SHORT | {"ttft_p50": "2ms"},
    },
}
FAST = Profile(  # so fast that no promise is out of reach before it is measured
    name="here", title="a fast machine", vendor="x86", unit="cpu", memory_bytes=64 * 10**9, bandwidth=1e13,
    rates={"fp32": 1e15, "bf16": 1e15, "int8": 1e15}, call_s=1e-9, measured=True, source="a test", date="2026-11-22",
)  # fmt: skip
SMALL, LARGE = "W8A16-rtn", "W4A16-g32-rtn"  # torch holds int8 codes beside packed 4 bits: 12 in all


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "release.yaml"
    path.write_text(json.dumps(RELEASE | {"out": str(folder / "run")} | changes))
    FAST.save(folder / "here.json")
    return path


def run(folder: Path, **changes: Any) -> RunReport:
    """Measured anew while the machine is too busy to hold the rate, as a user would."""
    config = load_config(written(folder, **changes))
    for _ in range(6):
        report = pipeline.run(config, here=folder / "here.json")
        if all(one.measured.validity.valid for one in report.loads):
            break
    return report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("measured")


@pytest.fixture(scope="module")
def report(folder: Path) -> RunReport:
    return run(folder)


def of(report: RunReport, target: str) -> Any:
    return next(one for one in report.targets if one.target == target)


def speed(report: RunReport, target: str, variant: str) -> Any:
    return next(one for one in of(report, target).of(variant).findings if one.about == "latency")


def test_a_promise_that_is_kept_needs_one_load_test_and_spares_the_larger_variant(report: RunReport) -> None:
    decision = of(report, "kept")
    assert decision.chosen == SMALL, decision.sentence
    assert "run it with at most 2 in flight" in decision.sentence
    assert [one.variant for one in report.loads if one.target == "kept"] == [SMALL]
    assert speed(report, "kept", SMALL).by == "measured"
    assert speed(report, "kept", LARGE).sentence.endswith(f"not measured: {SMALL}, which is smaller, passed")


def test_a_promise_that_is_broken_is_measured_for_every_variant_and_none_is_chosen(report: RunReport) -> None:
    assert [one.variant for one in report.loads if one.target == "broken"] == [SMALL, LARGE]
    assert of(report, "broken").chosen is None
    for name in (SMALL, LARGE):
        found = speed(report, "broken", name)
        assert (found.verdict, found.by) == ("fail", "measured") and "p50 is at least" in found.sentence
        assert "sweep: [1/s, 0.5/s]" in found.needs[0]


def test_evidence_holds_both_arms_the_targets_lengths_and_the_bytes(report: RunReport, folder: Path) -> None:
    evidence = {one.variant: one for one in report.evidence}
    for one in report.loads:
        result = LoadResult.load(folder / "run" / "loads" / f"{one.target}-{one.variant}" / "load.json")
        assert result.digest == one.result and not result.partial
        assert result.weights == (report.baseline, one.artifact) and one.artifact == evidence[one.variant].artifact
        assert one.baseline is not None and one.baseline.sent == one.measured.sent == result.asked[0].requests
        assert one.measured.token_rate and one.answer_tokens == pytest.approx(48) and not one.lighter
        assert (one.rate, one.limit) == (2.0, 2) and {pair.rate for pair in one.pairs} == {2.0}
        assert (folder / "run" / "loads" / f"{one.target}-{one.variant}" / "load.html").is_file()
    assert [stage.name for stage in report.stages].count("load") == 1
    assert RunReport.load(folder / "run" / "report.json") == report


def test_a_load_test_of_the_run_is_evidence_for_a_later_decision_as_well(report: RunReport, folder: Path) -> None:
    rules = [one.rules for one in report.targets]
    for one in report.loads:
        path = folder / "run" / "loads" / f"{one.target}-{one.variant}"
        assert read_load(f"{one.target}:{one.variant}={path}", rules, report.candidates, report.evidence) == one


def test_a_second_run_asks_nothing_again(report: RunReport, folder: Path) -> None:
    journals = {path: path.read_bytes() for path in (folder / "run" / "loads").glob("*/journal/*.jsonl")}
    assert len(journals) == 3
    told: list[str] = []
    config = load_config(written(folder))
    again = pipeline.run(config, here=folder / "here.json", progress=lambda stage, *_: told.append(stage))
    assert (again.loads, again.targets) == (report.loads, report.targets)
    assert {path: path.read_bytes() for path in journals} == journals
    assert not [one for one in told if one.startswith("load ")]


def test_ctrl_c_and_kill_lose_no_whole_stretch_and_decide_nothing(
    report: RunReport, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "loads")
    (tmp_path / "run" / "report.json").unlink()
    targets = {"kept": PLACE | {"e2e_p50": "60s", "load_test": {"seconds": 4, "blocks": 4}}}
    written(tmp_path, targets=targets)
    loads = tmp_path / "run" / "loads" / f"kept-{SMALL}"
    for at, blow in enumerate((signal.SIGINT, signal.SIGKILL)):
        code, told = struck(tmp_path, loads, blow, lines=2 + 2 * at)
        if blow == signal.SIGINT:
            assert code == Stopped.exit_code, told
            partial = LoadResult.load(loads / "load.json")
            assert partial.partial and partial.verdict == "inconclusive"
            rules, candidates = [of(report, "kept").rules], report.candidates
            if any(one.arm == SMALL for one in partial.results):
                assert read_load(f"kept:{SMALL}={loads}", rules, candidates).doubt
        assert not (tmp_path / "run" / "report.json").exists()
        (journal,) = (loads / "journal").glob("*.jsonl")
        whole = journal.read_bytes().splitlines(keepends=True)[: 2 + 2 * at]
    done = pipeline.run(load_config(tmp_path / "release.yaml"), here=tmp_path / "here.json")
    result = LoadResult.load(loads / "load.json")
    assert not result.partial and {one.measured.sent for one in result.results} == {result.asked[0].requests}
    load = done.loads[0]
    assert not load.partial and load.variant == SMALL and load.result == result.digest
    if load.measured.validity.valid:
        assert journal.read_bytes().splitlines(keepends=True)[: len(whole)] == whole, (
            "what was whole is not asked again"
        )


def struck(folder: Path, loads: Path, blow: signal.Signals, *, lines: int) -> tuple[int, str]:
    """Start a run in a process of its own, strike it once the journal has so many lines; exit code and what it said."""
    code = (
        "import sys; from pathlib import Path; from quantgate import pipeline; from quantgate.errors import Stopped\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"try: pipeline.run(Path({str(folder / 'release.yaml')!r}), here=Path({str(folder / 'here.json')!r}))\n"
        "except Stopped as told: print(told, file=sys.stderr); sys.exit(told.exit_code)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if any(path.read_bytes().count(b"\n") > lines for path in (loads / "journal").glob("*.jsonl")):
            break
        time.sleep(0.02)
    process.send_signal(blow)
    _, told = process.communicate(timeout=120)
    return process.returncode, told


def configured(**target: Any) -> ReleaseConfig:
    return ReleaseConfig.model_validate(RELEASE | {"targets": {"desk": PLACE | target}})


def test_the_plan_says_how_many_requests_a_percentile_takes_and_for_how_long() -> None:
    """Two variants at alpha 5 % leave 2.5 % to each on the side that counts, as a two-sided 95 % interval has: 72, or
    with three limits 94 requests bound a p95; four times as many are asked."""
    (one,) = planned_loads(configured(e2e_p95="8s"))
    assert (one.fewest, one.percentile, one.seconds, one.requests) == (72, 0.95, 144.0, 288)
    assert one.takes_s == 2 * 144 and one.variants == 2
    (three,) = planned_loads(configured(e2e_p95="8s", concurrency=8, load_test={"limits": [2, 4], "sweep": ["1/s"]}))
    assert three.limits == (8, 4, 2) and three.rates == (2.0, 1.0) and three.fewest == 94
    assert three.seconds == 4 * 94 and three.takes_s == 2 * 4 * three.seconds
    (quick,) = planned_loads(configured(e2e_p95="8s", rate="50/s"))
    assert quick.seconds == 60
    (asked,) = asked_of(configured(e2e_p95="8s", rate=None))
    assert asked.rates == (1.0,)


def test_every_variant_is_measured_at_its_share_of_the_error_rate() -> None:
    many = RELEASE | {"variants": ["W8A16", "W4A16", "W3A16", "W2A16"], "targets": {"desk": PLACE | {"e2e_p95": "8s"}}}
    (asked,) = asked_of(ReleaseConfig.model_validate(many))
    assert asked.alpha == pytest.approx(0.025) and asked.wanted.alpha == asked.alpha and asked.fewest == 86


@pytest.mark.parametrize("left", [{"hardware": "m4-max"}, {"speed": "planned"}, {"runtime": "vllm"}, {"rate": None}])
def test_only_targets_of_this_machine_that_promise_anything_are_load_tested(left: dict[str, Any]) -> None:
    assert asked_of(configured()) and not asked_of(configured(**left))


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ({"hardware": "h100-sxm", **SHORT}, "'load_test' is for hardware: here, and this is h100-sxm"),
        ({"speed": "planned", **SHORT}, "says 'speed: planned' and sets a 'load_test'"),
        ({"load_test": {"limits": [1, 4]}}, "'limits' has 4, and memory is reckoned for 'concurrency: 2'"),
        ({"load_test": {"limits": [0]}}, "at most 0 requests in flight cannot be"),
        ({"load_test": {"seconds": 0}}, "greater than 0"),
        ({"load_test": {"sweep": [2]}}, "expected a rate such as 8/s with its unit"),
        ({"load_test": {"second": 9}}, "did you mean 'seconds'"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(tmp_path: Path, target: dict[str, Any], sentence: str) -> None:
    path = written(tmp_path, targets={"desk": PLACE | {"e2e_p95": "8s"} | target})
    with pytest.raises(UsageError) as refused:
        load_config(path)
    assert sentence in str(refused.value) and str(refused.value).count("\n") == 0


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (
            {"desk": PLACE | {"e2e_p95": "8s", "prompt": 100_000}},
            "targets.desk: a prompt of 100000 and an answer of 48 tokens",
        ),
        ({"a/b": PLACE | {"e2e_p95": "8s"}}, "'a/b' cannot name a folder of load tests"),
    ],
)
def test_what_cannot_be_load_tested_is_refused_before_anything_is_made(
    tmp_path: Path, targets: dict[str, Any], sentence: str
) -> None:
    path = written(tmp_path, targets=targets)
    with pytest.raises(UsageError, match=sentence):
        pipeline.run(path, here=tmp_path / "here.json")
    assert not (tmp_path / "run" / "artifacts").exists()


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama.cpp is installed here")
def test_a_target_of_llama_cpp_without_it_is_refused_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    targets = {"desk": PLACE | {"runtime": "llama.cpp", "stack": "any", "e2e_p95": "8s"}}
    path = written(tmp_path, targets=targets, variants=["Q8_0"])
    with pytest.raises(MissingExtra, match=r"targets.desk: is load-tested here, .* pip install .* 'speed: planned'"):
        pipeline.run(path, here=tmp_path / "here.json")


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama.cpp is not installed: make llama")
def test_a_target_of_llama_cpp_is_measured_in_it_beside_the_baseline_as_a_file(tmp_path: Path) -> None:
    targets = {"desk": PLACE | SHORT | {"runtime": "llama.cpp", "e2e_p50": "60s"}}
    found = run(tmp_path, targets=targets, variants=[{"scheme": "Q8_0", "engine": "llamacpp"}])
    (load,) = found.loads
    result = LoadResult.load(tmp_path / "run" / "loads" / "desk-Q8_0" / "load.json")
    assert of(found, "desk").chosen == "Q8_0", of(found, "desk").of("Q8_0")
    assert load.answer_tokens == pytest.approx(48) and result.weights[1] == load.artifact
    assert (tmp_path / "run" / "loads" / "baseline.gguf").is_file()
