"""The walk down the frontier: who is asked, and who need not be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.decide.conftest import comparison_of, evidence_of, gate_of, load_of
from tests.pipeline.conftest import Release

from quantgate import pipeline
from quantgate.decide import Candidate
from quantgate.decide.rules import TargetRules
from quantgate.hardware.targets import Place
from quantgate.pipeline import deciding
from quantgate.pipeline.walk import Walk
from quantgate.records import digest_of
from quantgate.release_config import load_config
from quantgate.report import RunReport
from quantgate.target_config import OF_LLAMACPP, auto_variants

MARGIN = gate_of("math")


def walked(passes: list[bool], targets: int) -> tuple[list[int], list[int]]:
    """Who was asked of variants from the largest on, and who would have been by the rule written out."""
    candidates = [
        Candidate(name=f"v{at}", artifact=digest_of(f"v{at}"), stored_bytes=100 - at, bits_per_weight=4)
        for at in range(len(passes))
    ]
    place = Place.model_validate({"hardware": "l4", "runtime": "torch"})
    rules = [TargetRules(name=f"t{at}", place=place, gates=(MARGIN,)) for at in range(targets)]
    asked: list[int] = []

    def ask(at: int) -> Any:
        asked.append(at)
        return evidence_of(f"v{at}", comparison_of(MARGIN, 200, 0 if passes[at] else 60))

    found = Walk([MARGIN], rules, None).down(candidates[::-1], lambda at: ask(len(passes) - 1 - at))
    assert [one.variant for one in found] == [f"v{at}" for at in asked]
    first = passes.index(False) if False in passes else len(passes) - 1
    return asked, list(range(first + 1))


@given(passes=st.lists(st.booleans(), min_size=1, max_size=8), targets=st.integers(0, 2))
def test_variants_are_asked_from_the_largest_to_the_first_that_does_not_pass(passes: list[bool], targets: int) -> None:
    asked, wanted = walked(passes, targets)
    assert asked == wanted


def test_auto_stands_for_what_the_targets_runtimes_read() -> None:
    def of(**runtimes: dict[str, str]) -> list[Any]:
        return auto_variants(runtimes)

    assert of(a={"runtime": "vllm"}) == ["W8A8", "W4A16-g32", "W4A16"]
    assert of(a={"runtime": "llama.cpp", "stack": "any"}) == list(OF_LLAMACPP)
    assert of(a={"runtime": "llama.cpp"}) == [{"scheme": one, "engine": "llamacpp"} for one in OF_LLAMACPP]
    assert of(a={"runtime": "llama.cpp"}, b={"runtime": "llamacpp", "stack": "any"}) == of(a={"runtime": "llama.cpp"})
    assert {"scheme": "auto", "bits": 4.5} in of(a={"runtime": "torch"}) and "W8A16" in of()
    both = of(a={"runtime": "vllm"}, b={"runtime": "torch"})
    assert len(both) == len({json.dumps(one) for one in both})
    assert of(a={"runtime": "no such thing"})  # refused by the target itself


def test_auto_is_a_fixed_sequence_unless_the_user_says_otherwise(release: Release) -> None:
    assert load_config(release(variants="auto")).judge.order == "fixed-sequence"
    assert load_config(release(variants="auto", judge={"order": "e-bonferroni"})).judge.order == "e-bonferroni"
    assert load_config(release(variants=["W4A16"])).judge.order == "e-bonferroni"


HERE = {"hardware": "here", "runtime": "torch"}
TINY = {**HERE, "memory": "64MiB"}  # less than the process takes


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This machine, told and not measured."""
    from quantgate.hardware import profile as find

    folder = tmp_path_factory.mktemp("here")
    return find("cpu-avx512").model_copy(update={"name": "here", "memory_bytes": 8 * 10**9}).save(folder / "here.json")


def test_a_run_decides_for_every_target_and_asks_nobody_behind_the_end(
    release: Release, tmp_path: Path, profile: Path
) -> None:
    variants = [
        "W8A16",
        {"scheme": "W2A16", "group_size": 32, "method": "rtn"},
        {"scheme": "W2A16", "group_size": 64, "method": "rtn", "name": "last"},
    ]
    targets = {"server": {**HERE, "capabilities": {"echo": "30%"}}, "tiny": TINY}
    config = release(variants=variants, judge={"order": "fixed-sequence", "noise": 0}, targets=targets)
    report = pipeline.run(config, here=profile)
    server, tiny = report.targets
    assert (server.chosen, tiny.chosen) == ("W8A16", None)
    assert [one.variant for one in report.evidence] == ["W8A16", "W2A16-g32-rtn"]
    last = server.of("last")
    assert last and last.sentence.startswith("not asked: W2A16-g32-rtn, which is larger, did not pass before it")
    (own,) = report.evidence[0].for_targets
    assert (own.gate.capability, own.gate.margin) == ("echo", 0.3)
    assert RunReport.load(tmp_path / "run" / "report.json") == report
    assert deciding.again(report, []).targets == report.targets


def test_a_margin_of_a_targets_own_asks_no_case_twice(release: Release, tmp_path: Path, profile: Path) -> None:
    plain = pipeline.run(release(variants=["W8A16"], judge={"noise": 0}))
    journals = {file.name: file.stat().st_size for file in (tmp_path / "run" / "answers").glob("*.jsonl")}
    wide = pipeline.run(
        release(variants=["W8A16"], judge={"noise": 0}, targets={"server": {**HERE, "capabilities": {"echo": "40%"}}}),
        here=profile,
    )
    assert wide.evidence[0].comparisons == plain.evidence[0].comparisons
    assert wide.evidence[0].for_targets[0].n <= plain.evidence[0].comparisons[0].n
    assert {file.name: file.stat().st_size for file in (tmp_path / "run" / "answers").glob("*.jsonl")} == journals


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    source = str(Path(pipeline.__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "COLUMNS": "120"}
    return subprocess.run([sys.executable, "-m", "quantgate", *words], cwd=cwd, env=env, capture_output=True, text=True)


def test_the_command_explains_any_variant_and_exits_by_the_targets(
    release: Release, tmp_path: Path, profile: Path
) -> None:
    pipeline.run(release(judge={"noise": 0}, targets={"server": HERE, "tiny": TINY}), here=profile)
    told = command("decide", "run", "--why", "W2A16-g32-rtn", cwd=tmp_path)
    assert told.returncode == 1  # one target rejects all
    assert "W2A16-g32-rtn is not chosen for server: it breaks" in told.stdout
    assert "to pass, it would take:" in told.stdout
    assert "became" in told.stdout  # an answer that was lost
    alone = command("decide", "run", "--target", "server", "--json", cwd=tmp_path)
    assert alone.returncode == 0
    assert [one["target"] for one in json.loads(alone.stdout)] == ["server"]
    unknown = command("decide", "run", "--why", "W8A61", cwd=tmp_path)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "unknown variant 'W8A61'; did you mean 'W8A16'?" in unknown.stderr
    nowhere = command("decide", "run", "--target", "serve", cwd=tmp_path)
    assert "unknown target 'serve'; did you mean 'server'?" in nowhere.stderr


def test_a_release_without_targets_is_explained_as_well(release: Release, tmp_path: Path) -> None:
    pipeline.run(release(judge={"noise": 0}))
    told = command("decide", "run", "--why", "W8A16", cwd=tmp_path)
    assert told.returncode == 0
    assert "W8A16 is chosen: it keeps both capabilities within their margins, and it is the smallest" in told.stdout


def test_a_load_test_that_came_later_is_heard_and_kept(release: Release, tmp_path: Path) -> None:
    shop = {
        "hardware": "cpu-avx512",
        "memory": "8GiB",
        "runtime": "torch",
        "rate": "4/s",
        "e2e_p95": "1s",
        "prompt": 128,
        "answer": 16,
    }
    before = pipeline.run(release(judge={"noise": 0}, variants=["W8A16"], targets={"shop": shop}))
    assert before.targets[0].chosen is None
    assert "not measured there" in command("decide", "run", "--why", "W8A16", cwd=tmp_path).stdout
    bytes_ = (before.baseline, before.candidates[0].artifact)
    load_of({4.0: 0.4}, names=("baseline", "W8A16"), weights=bytes_).save(tmp_path / "load" / "load.json")
    told = command("decide", "run", "--load", "shop:W8A16=load/load.json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    after = RunReport.load(tmp_path / "run" / "report.json")
    assert after.targets[0].chosen == "W8A16" and len(after.loads) == 1
    assert "400 ms" in (tmp_path / "run" / "targets" / "shop.html").read_text("utf-8")
    for wrong, sentence in {
        "shop:W8A16=nowhere": "nowhere",
        "shop": "TARGET:VARIANT=path/load.json",
        "shp:W8A16=load": "did you mean 'shop'?",
        "shop:W8=load": "did you mean 'W8A16'?",
    }.items():
        refused = command("decide", "run", "--load", wrong, cwd=tmp_path)
        assert refused.returncode in (2, 4) and refused.stderr.count("\n") == 1 and sentence in refused.stderr
    assert RunReport.load(tmp_path / "run" / "report.json") == after
