"""The noise floor: how often a baseline contradicts itself, and what a comparison makes of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantgate.engines import Completion, Prompt
from quantgate.engines.scripted import ScriptedEngine, last
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, Task, compare, visiting_order
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.noise import TOGETHER, Again, noise_floor, pace_of


class Moody:
    """Answers sums rightly the first time, and the second time not those that it is told to miss."""

    def __init__(self, misses: set[str]) -> None:
        self.misses, self.seen = misses, set[str]()

    def __call__(self, prompt: Prompt) -> str:
        text = last(prompt)
        again, self.seen = text in self.seen, self.seen | {text}
        first = int(text.split()[0])
        return "no idea" if again and text in self.misses else str(2 * first + 1)


def gate() -> Gate:
    return Gate(capability="sums", suite="sums", margin=0.1, cases=400)


def side(engine: ScriptedEngine, folder: Path) -> Side:
    return Side(engine, Answers(folder, engine.identity))


def test_flips_are_counted_over_the_first_cases_of_the_seeds_order(sums, tmp_path):
    cases = sums.cases(120)
    chosen = visiting_order(cases, 0)[:40]
    engine = ScriptedEngine(
        Moody({case.messages[-1].content for case in [*chosen[:3], *visiting_order(cases, 0)[60:]]})
    )
    (found,) = noise_floor([Task(gate(), cases)], side(engine, tmp_path), tmp_path, 40)
    assert (found.n, found.flips, found.differ, found.rate) == (40, 3, 3, 0.075)
    assert found.low == pytest.approx(0.01574, abs=1e-5)  # Clopper-Pearson for 3 of 40
    assert found.high == pytest.approx(0.20386, abs=1e-5)


def test_an_engine_that_repeats_itself_has_no_flips_and_a_wide_enough_interval(sums, tmp_path):
    (found,) = noise_floor([Task(gate(), sums.cases(60))], side(sums.engine(), tmp_path), tmp_path, 50)
    assert (found.flips, found.differ, found.low) == (0, 0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 50))


def test_the_second_asking_comes_from_the_back_a_few_at_a_time(sums, tmp_path):
    batches: list[list[str]] = []

    class Watched(ScriptedEngine):
        def generate(self, prompts):
            batches.append([last(one) for one in prompts])
            return super().generate(prompts)

    engine = Watched(lambda prompt: last(prompt).upper())
    prompts = [Prompt(turns=(("user", f"say {at}"),), max_tokens=8) for at in range(20)]
    answers = Again(engine).generate(prompts)
    assert [one.text for one in answers if isinstance(one, Completion)] == [f"SAY {at}" for at in range(20)]
    assert [len(one) for one in batches] == [TOGETHER, 20 - TOGETHER] and batches[0][0] == "say 19"


def test_a_run_that_goes_on_asks_nothing_twice(sums, tmp_path):
    task = Task(gate(), sums.cases(60))
    first = noise_floor([task], side(sums.engine(), tmp_path), tmp_path, 50)
    later = sums.engine()
    assert noise_floor([task], side(later, tmp_path), tmp_path, 50) == first
    assert later.asked == []


def test_both_askings_have_journals_of_their_own(sums):
    engine = sums.engine()
    assert Again(engine).identity.key != engine.identity.key


def test_cases_that_could_not_be_asked_are_left_out_and_an_empty_capability_has_no_row(sums, tmp_path):
    some = sums.engine(fails=sums.share(0.5))
    (found,) = noise_floor([Task(gate(), sums.cases(60))], side(some, tmp_path), tmp_path, 60)
    assert 10 < found.n < 50
    none = sums.engine(fails=lambda _: True, weights="other")
    assert noise_floor([Task(gate(), sums.cases(60))], side(none, tmp_path), tmp_path, 60) == []
    assert noise_floor([Task(gate(), sums.cases(60))], side(sums.engine(), tmp_path), tmp_path, 0) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_baseline_against_itself_never_fails_its_own_gate(seed, sums, tmp_path):
    """2 % of the answers flip at random in both directions: a gate of 10 % passes or stays open."""
    moody = ScriptedEngine(
        lambda prompt: "no idea" if sums.share(0.02, f"first {seed}")(prompt) else str(2 * sums.number(prompt) + 1)
    )
    again = ScriptedEngine(
        lambda prompt: "no idea" if sums.share(0.02, f"second {seed}")(prompt) else str(2 * sums.number(prompt) + 1),
        runtime=("again",),
    )
    found = compare(gate(), sums.cases(300), side(moody, tmp_path), side(again, tmp_path))
    assert found.finding.verdict != "fail"


def test_the_pace_is_that_of_the_engines_clock():
    made = [
        Completion(text="a", tokens=30, prompt_tokens=5, finish="stop", prefill_s=0.1, decode_s=0.5),
        Completion(text="b", tokens=70, prompt_tokens=5, finish="stop", decode_s=1.5, drafted=40, accepted=10),
    ]
    found = pace_of(made)
    assert found is not None and (found.tokens_per_s, found.acceptance, found.cases) == (50.0, 0.25, 2)
    assert pace_of([Completion(text="a", tokens=3, prompt_tokens=5, finish="stop")]) is None
