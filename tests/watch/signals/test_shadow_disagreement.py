"""shadow_disagreement: who of two was worse on one prompt, and that the two may change places."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from tests.watch.signals.made import calling, marked, read, said

from quantgate.watch import Talk

GOOD = said("The train to Ulm leaves at noon from track four.", tools=False)
WORSE = [  # each is worse than all behind it
    said("{", faulty=True),
    said(""),
    said("and so on " * 60),
    said(calling(arguments='{"from": "Ul'), tools=True),
    said("The train leaves at noon, I believe.", tools=True),
    said({**calling(), "refusal": "I will not do that."}, tools=True),
    said(calling(), tools=True),
]


def worse(live: Talk, shadow: Talk) -> float | None:
    return marked("shadow_disagreement", replace(live, shadow=shadow))


def test_the_first_fault_in_which_they_differ_decides() -> None:
    for bad, better in combinations(WORSE, 2):
        assert (worse(better, bad), worse(bad, better)) == (1.0, 0.0)


def test_a_refusal_is_worse_than_an_answer_to_the_same_prompt() -> None:
    declined = said("I'm sorry, but I can't help with that.")
    assert (worse(GOOD, declined), worse(declined, GOOD)) == (1.0, 0.0)


def test_other_words_are_no_disagreement() -> None:
    assert worse(GOOD, said("At noon, from track 4.")) is None
    assert worse(WORSE[0], WORSE[0]) is None


@pytest.mark.parametrize("missing", [said(), said(finish="stop")])
def test_an_answer_that_never_came_is_no_worse_answer(missing: Talk) -> None:
    assert worse(GOOD, missing) is None and worse(missing, GOOD) is None
    assert marked("shadow_disagreement", GOOD) is None


def test_a_pair_stands_on_the_shadows_exchange() -> None:
    marks = {"shadow_disagreement": 1.0}
    assert read("shadow_disagreement", marks=marks) is None
    assert read("shadow_disagreement", marks=marks, shadow=True) == 1.0
