"""math: worked answers are right step by step, problems are named without their wording."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest

from quantgate.evaluate import suites
from quantgate.evaluate.scorers import Score
from quantgate.evaluate.scorers.numeric import score
from quantgate.evaluate.suites import Difficulty, Draft, math

LEVELS: tuple[Difficulty, ...] = ("default", "hard")


def drawn(level: Difficulty, count: int = 1500) -> list[Draft]:
    rng = random.Random(7)
    return [math.draw(rng, level) for _ in range(count)]


def value_of(answer: str, draft: Draft) -> float:
    made = score(answer, draft.reference)
    assert isinstance(made, Score)
    return made.value


def solve(identity: str) -> int:
    """The answer from the identity alone: ``add 47 85``, ``word 34 + 12 - 9``."""
    op, *rest = identity.split()
    numbers = [int(part) for part in rest if part not in "+-*"]
    if op == "add":
        return sum(numbers)
    if op == "mul":
        return numbers[0] * numbers[1]
    if op == "sub":
        return numbers[0] - numbers[1]
    total = numbers[0]
    for sign, n in zip([part for part in rest if part in "+-*"], numbers[1:], strict=True):
        total = {"+": total + n, "-": total - n, "*": total * n}[sign]
    return total


@pytest.mark.parametrize("level", LEVELS)
def test_the_gold_answer_scores_one(level: Difficulty) -> None:
    for draft in drawn(level):
        assert value_of(draft.answer, draft) == 1.0
        assert draft.reference == solve(draft.identity)
        assert value_of(str(draft.reference + 1), draft) == 0.0


@pytest.mark.parametrize("level", LEVELS)
def test_every_step_of_a_worked_answer_holds(level: Difficulty) -> None:
    steps = 0
    for draft in drawn(level):
        for a, sign, b, result in re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", draft.answer):
            steps += 1
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(result)
    assert steps > 500


@pytest.mark.parametrize("level", LEVELS)
def test_numbers_of_the_prompt_are_those_of_the_identity(level: Difficulty) -> None:
    for draft in drawn(level):
        prompt, name = draft.messages[0][1], draft.identity
        assert sorted(re.findall(r"\d+", prompt)) == sorted(re.findall(r"\d+", name))


def test_order_of_summands_and_story_are_wording() -> None:
    prompts: dict[str, list[str]] = {}
    for draft in drawn("default", 20_000):
        prompts.setdefault(draft.identity, []).append(draft.messages[0][1])
    sums = [asked for identity, asked in prompts.items() if identity.startswith("add")]
    orders = [{tuple(re.findall(r"\d+", prompt)) for prompt in asked} for asked in sums]
    assert sum(len(order) == 2 for order in orders) > 100  # 47 + 85 and 85 + 47 bear one name

    told = [math.story(random.Random(seed), 2).identity for seed in range(200)]
    assert all(re.fullmatch(r"word [\d+*\- ]+", name) for name in told)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("degenerate", ["", "abc", "0", "10", "Answer: 12"])
def test_degenerate_answers_score_badly(level: Difficulty, degenerate: str) -> None:
    made = drawn(level)
    assert sum(value_of(degenerate, draft) for draft in made) / len(made) < 0.05
    assert sum(value_of(draft.messages[0][1], draft) for draft in made) / len(made) < 0.05


def test_default_is_never_below_zero_and_stories_stay_small() -> None:
    for draft in drawn("default"):
        assert draft.reference >= 0
        if draft.slices["op"] == "word":
            assert max(int(number) for number in re.findall(r"\d+", draft.identity)) < 100
            assert max(int(number) for number in re.findall(r"= (\d+)", draft.answer)) < 200


def test_slices_hold_every_declared_value() -> None:
    seen: Counter[str] = Counter()
    for draft in itertools.chain(drawn("default"), drawn("hard")):
        seen.update(f"{key}={value}" for key, value in draft.slices.items())
    assert set(seen) == {"op=add", "op=sub", "op=mul", "op=word", "digits=2", "digits=3", "digits=4"}


def test_hard_reaches_below_zero_and_beyond_three_steps() -> None:
    made = drawn("hard")
    assert any(draft.reference < 0 for draft in made)
    assert max(draft.answer.count("=") for draft in made) == 5


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["calibrate", "tune", "gate"])
def test_every_split_gives_400_cases(level: Difficulty, split: suites.Split) -> None:
    assert len({case.id for case in suites.cases("math", split, 400, difficulty=level)}) == 400
