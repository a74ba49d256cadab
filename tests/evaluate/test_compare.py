"""One variant against its baseline: what is decided and when, what counts as a loss, that a kill changes nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.errors import DataError
from quantgate.evaluate.answers import Answers, prompt_of
from quantgate.evaluate.compare import BATCH, MAX_FLIPS, Side, Task, compare, compare_all, visiting_order
from quantgate.evaluate.evidence import MAX_UNSCORED, Gate
from quantgate.records import canonical

SOURCE = Path(__file__).parents[2] / "src"
GATE = Gate(capability="sums", suite="sums", margin=0.05, cases=400)


def test_identical_answers_pass_when_there_are_enough_cases(sums: Any, side: Any) -> None:
    found = compare(GATE, sums.cases(400), side(sums.engine()), side(sums.engine(weights="w4")))
    assert found.finding.verdict == "pass"
    assert (found.n, found.asked, found.available) == (100, 100, 400)  # 90 cases would do, two batches hold them
    assert (found.baseline_score, found.variant_score) == (1.0, 1.0)
    assert not found.unscored and not found.flips


def test_identical_answers_are_inconclusive_when_there_are_too_few_cases(sums: Any, side: Any) -> None:
    found = compare(GATE, sums.cases(60), side(sums.engine()), side(sums.engine(weights="w4")))
    assert (found.finding.verdict, found.asked) == ("inconclusive", 60)
    assert found.finding.needed is not None and found.finding.needed >= 90


@settings(max_examples=15)
@given(share=st.floats(0, 1), count=st.integers(1, 130), relative=st.booleans(), seed=st.integers(0, 9))
def test_identical_answers_never_fail(sums: Any, share: float, count: int, relative: bool, seed: int) -> None:
    gate = GATE.model_copy(update={"relative": relative, "seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for weights in ("a", "b"):
            engine = sums.engine(sums.share(share), weights=weights)
            sides.append(Side(engine, Answers(Path(folder), engine.identity)))
        found = compare(gate, sums.cases(count), *sides)
    assert found.finding.verdict != "fail"
    assert (found.finding.gains, found.finding.losses) == (0, 0)


@pytest.mark.parametrize(("share", "batches"), [(1.0, 1), (0.5, 1), (0.3, 3)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_collapse_is_stopped_within_a_few_batches(
    sums: Any, side: Any, share: float, batches: int, seed: int
) -> None:
    gate = GATE.model_copy(update={"seed": seed, "margin": 0.03})
    worse = sums.engine(sums.share(share), weights="w2")
    found = compare(gate, sums.cases(1000), side(sums.engine()), side(worse))
    assert found.finding.verdict == "fail"
    assert found.asked <= batches * BATCH


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.4, 1.0])
def test_exhaustive_run_gives_the_verdict_of_the_early_stop(sums: Any, side: Any, share: float) -> None:
    cases, base, worse = sums.cases(400), side(sums.engine()), side(sums.engine(sums.share(share), weights="w3"))
    early = compare(GATE, cases, base, worse)
    whole = compare(GATE, cases, base, worse, exhaustive=True)
    assert whole.finding.verdict == early.finding.verdict != "inconclusive"
    assert early.asked <= whole.asked / 2 == 200


def test_only_as_many_cases_reach_the_engines_as_the_verdict_needed(sums: Any, side: Any) -> None:
    base, other = sums.engine(), sums.engine(weights="w4")
    found = compare(GATE, sums.cases(400), side(base), side(other))
    assert len(base.asked) == len(other.asked) == found.asked == 100


def test_looks_come_early_and_then_every_fifty_cases(sums: Any, side: Any) -> None:
    seen = []
    compare(
        GATE.model_copy(update={"margin": 0.01}), sums.cases(120), side(sums.engine()), side(sums.engine(weights="w4")),
        progress=lambda done, _available, undecided: seen.append(done) if undecided else None,
    )  # fmt: skip
    assert seen == [10, 20, 40, 50, 100, 120]


def test_a_test_for_a_fixed_number_of_cases_asks_all_of_them(sums: Any, side: Any) -> None:
    gate = GATE.model_copy(update={"test": "exact", "relative": False})
    found = compare(gate, sums.cases(300), side(sums.engine()), side(sums.engine(weights="w4")))
    assert (found.asked, found.finding.test, found.finding.verdict) == (300, "exact", "pass")


def test_empty_suite_is_refused(sums: Any, side: Any) -> None:
    with pytest.raises(DataError, match="sums: the suite is empty, so there is nothing to compare; give it cases"):
        compare(GATE, [], side(sums.engine()), side(sums.engine(weights="w4")))


def test_a_variant_that_cannot_answer_loses_the_case_and_is_named(sums: Any, side: Any) -> None:
    broken = sums.engine(fails=lambda prompt: sums.number(prompt) == 3, weights="w4")
    found = compare(GATE, sums.cases(20), side(sums.engine()), side(broken))
    assert (found.n, found.finding.losses) == (20, 1)
    assert found.unscored == ("sums-3: variant: the script says that this prompt fails",)
    (flip,) = found.flips
    assert (flip.case, flip.variant_score, flip.variant_answer) == ("sums-3", 0.0, "")
    assert flip.because == "not scored: the script says that this prompt fails"
    assert found.gaps  # 1 of 20


def test_a_baseline_that_cannot_answer_voids_the_case(sums: Any, side: Any) -> None:
    broken = sums.engine(fails=lambda prompt: sums.number(prompt) == 3)
    found = compare(GATE, sums.cases(20), side(broken), side(sums.engine(lambda p: sums.number(p) == 3, weights="w4")))
    assert (found.n, found.asked, found.finding.losses) == (19, 20, 0)
    assert found.unscored == ("sums-3: baseline: the script says that this prompt fails",)


def test_an_unreadable_reference_is_nobodys_loss(sums: Any, side: Any) -> None:
    cases = [case.model_copy(update={"reference": 5}) for case in sums.cases(3)]
    found = compare(GATE, cases, side(sums.engine()), side(sums.engine(weights="w4")))
    assert (found.n, found.baseline_score, found.variant_score) == (0, None, None)
    assert all("baseline: exact: the reference is int" in line for line in found.unscored)
    assert found.finding.verdict == "inconclusive"


def test_a_pass_waits_until_few_enough_cases_are_unscored(sums: Any, side: Any) -> None:
    cases = sums.cases(400)
    early = {sums.number(prompt_of(case)) for case in visiting_order(cases, 0)[:5]}
    broken = sums.engine(fails=lambda one: sums.number(one) in early)
    found = compare(GATE, cases, side(broken), side(sums.engine(weights="w4")))
    assert (found.finding.verdict, len(found.unscored), found.gaps) == ("pass", 5, False)
    assert found.asked == 250  # 5 of 100, 150 and 200 are more than 2 %
    assert len(found.unscored) == MAX_UNSCORED * found.asked


@settings(max_examples=20)
@given(shuffled=st.permutations(range(30)), seed=st.integers(0, 1000))
def test_visiting_order_does_not_depend_on_how_cases_are_listed(sums: Any, shuffled: Any, seed: int) -> None:
    cases = sums.cases(30)
    assert visiting_order([cases[at] for at in shuffled], seed) == visiting_order(cases, seed)


def test_visiting_order_is_another_with_another_seed_and_keeps_its_relative_order_with_more_cases(sums: Any) -> None:
    few, many = visiting_order(sums.cases(50), 0), visiting_order(sums.cases(90), 0)
    assert few != visiting_order(sums.cases(50), 1)
    assert few != sums.cases(50)
    assert [case for case in many if case in few] == few


def test_listing_order_changes_nothing_in_the_record(sums: Any, tmp_path: Path) -> None:
    records = []
    for name in ("one", "two"):
        cases = sums.cases(120)
        random.Random(name).shuffle(cases)
        engines = sums.engine(), sums.engine(sums.share(0.1), weights="w3")
        sides = [Side(engine, Answers(tmp_path / name, engine.identity)) for engine in engines]
        records.append(canonical(compare(GATE, cases, *sides).body()))
    assert records[0] == records[1]


def test_hard_cases_are_reported_and_never_judged(sums: Any, side: Any) -> None:
    hard = [case.model_copy(update={"reference": "unknown"}) for case in sums.cases(30)]
    found = compare(GATE, sums.cases(200), side(sums.engine()), side(sums.engine(weights="w4")), hard=hard)
    assert found.finding.verdict == "pass"
    whole = found.hard[0]
    assert (whole.name, whole.n, whole.baseline, whole.variant) == ("all", 30, 0.0, 0.0)


def test_slices_add_up_and_flips_hold_both_answers(sums: Any, side: Any) -> None:
    worse = sums.engine(lambda p: sums.number(p) in (4, 7), weights="w4")
    better = sums.engine(lambda p: sums.number(p) == 9)
    found = compare(GATE, sums.cases(40), side(better), side(worse))
    whole, even, odd = found.slices
    assert [row.name for row in found.slices] == ["all", "last=0", "last=1"]
    assert (whole.n, even.n + odd.n) == (40, 40)
    assert (whole.losses, whole.gains, even.losses, odd.losses, odd.gains) == (2, 1, 1, 1, 1)
    assert [(flip.case, flip.baseline_score) for flip in found.flips][2:] == [("sums-9", 0.0)]  # gains stand last
    assert {flip.case for flip in found.flips[:2]} == {"sums-4", "sums-7"}
    flip = next(flip for flip in found.flips if flip.case == "sums-4")
    assert flip.prompt == "user: 4 + 5"
    assert (flip.reference, flip.baseline_answer, flip.variant_answer) == ("9", "9", "no idea")
    assert flip.because == "expected '9'"


def test_flips_are_limited(sums: Any, side: Any) -> None:
    found = compare(
        GATE, sums.cases(50), side(sums.engine()), side(sums.engine(lambda _: True, weights="w2")), exhaustive=True
    )
    assert (len(found.flips), found.finding.losses) == (MAX_FLIPS, 50)


def test_progress_counts_the_cases(sums: Any, side: Any) -> None:
    seen = []
    compare(
        GATE, sums.cases(400), side(sums.engine()), side(sums.engine(weights="w4")),
        progress=lambda done, available, undecided: seen.append((done, available, undecided)),
    )  # fmt: skip
    steps = [(done, 400, ["sums"]) for done in (10, 20, 40, 50, 100)]
    assert seen == [*steps, (400, 400, [])]  # what is saved counts as done


def test_capabilities_asked_together_are_decided_as_if_alone(
    sums: Any, side: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One passes after 100 cases, one fails after 10, one stays open; no question is longer than the next piece's."""
    monkeypatch.setattr("quantgate.evaluate.compare.PIECE", 32)
    pieces: list[list[int]] = []
    engines = sums.engine(), sums.engine(lambda prompt: sums.number(prompt) >= 500, weights="w3")
    whole = engines[1].generate

    def generate(prompts: Any) -> Any:
        pieces.append([len(prompt.turns[0][1]) for prompt in prompts])
        return whole(prompts)

    monkeypatch.setattr(engines[1], "generate", generate)
    every = sums.cases(1000)
    parts = {"good": every[:300], "bad": every[500:800], "short": every[300:360]}
    tasks = [Task(GATE.model_copy(update={"capability": name}), cases, every[400:420]) for name, cases in parts.items()]
    seen: list[list[str]] = []
    sides = side(engines[0]), side(engines[1])
    found = compare_all(tasks, *sides, progress=lambda done, available, undecided: seen.append(undecided))
    assert [(one.finding.verdict, one.asked) for one in found] == [("pass", 100), ("fail", 10), ("inconclusive", 60)]
    assert [len(piece) for piece in pieces] == [30, 20, 32, 8, 20, 32, 28, 20]  # the hard cases are shared
    assert all(piece == sorted(piece) for piece in pieces)
    assert max(pieces[2]) <= min(pieces[3]) and max(pieces[5]) <= min(pieces[6])
    assert seen[0] == ["good", "bad", "short"] and seen[-2:] == [["good", "short"], []]
    alone = [compare(task.gate, task.cases, *sides, hard=task.hard) for task in tasks]
    assert [canonical(one.body()) for one in alone] == [canonical(one.body()) for one in found]


KILLER = """
import os, random, signal, sys, threading
from pathlib import Path
from quantgate.engines.scripted import ScriptedEngine, last
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, compare
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.suites import Case, Message

out, seed = Path(sys.argv[1]), int(sys.argv[2])
def case(at):
    turn = Message(role="user", content=at)
    return Case(suite="s", id=at, messages=(turn,), scorer="exact", reference=at)

cases = [case(str(at)) for at in range(300)]
gate = Gate(capability="s", suite="s", margin=0.05, test="exact", relative=False)

def evaluate(folder, die_at=None, delay=None):
    "One attempt in a process of its own; True when it was killed."
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
        return os.WIFSIGNALED(status)
    log = os.open(folder.with_suffix(".log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    asked = 0
    def answer(who):
        def one(prompt):
            nonlocal asked
            asked += 1
            if asked == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(log, f"{who}/{last(prompt)}\\n".encode())
            return "wrong" if who == "variant" and int(last(prompt)) % 9 == 0 else last(prompt)
        return one
    sides = []
    for who in ("baseline", "variant"):
        engine = ScriptedEngine(answer(who), weights=who)
        sides.append(Side(engine, Answers(folder, engine.identity)))
    if delay is not None:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    compare(gate, cases, *sides).save(folder.with_suffix(".json"))
    os._exit(0)

assert not evaluate(out / "whole")
rng, kills = random.Random(seed), 0
for _ in range(6):
    kills += evaluate(out / "killed", die_at=rng.randrange(1, 200))
for _ in range(6):
    kills += evaluate(out / "killed", delay=rng.uniform(0, 0.02))
evaluate(out / "killed")
print(kills)
"""


def test_kill_9_at_any_point_resumes_to_the_identical_comparison(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), "5"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kills = int(done.stdout)
    assert kills >= 3
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    for journal in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / journal.name).read_bytes() == journal.read_bytes()
    asked = (tmp_path / "killed.log").read_text().split()
    assert len(set(asked)) == 600
    assert len(asked) - 600 <= kills * BATCH  # a kill costs at most the batch that was under way
