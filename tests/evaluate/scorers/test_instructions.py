"""instructions: every check by hand, right and wrong; all must hold; what cannot be checked is unscored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers.instructions import CHECKS, score, sentences

FRUITS = ["pear", "fig", "lime"]
KNOWN: list[tuple[dict[str, Any], list[str], list[str]]] = [  # check, answers that pass, answers that fail
    ({"check": "words_exactly", "n": 3}, ["It's a fox.", "one two three"], ["a fox", "one two three four"]),
    ({"check": "words_at_least", "n": 2}, ["a b", "a b c"], ["a"]),
    ({"check": "words_at_most", "n": 2}, ["a b", "a"], ["a b c"]),
    ({"check": "lines_exactly", "n": 2}, ["a\nb", "a\n\nb\n"], ["a", "a\nb\nc"]),
    ({"check": "sentences_exactly", "n": 2}, ["A b. C d!", "It cost 3.5. Why?"], ["A b.", "A. B. C."]),
    ({"check": "bullets", "n": 2}, ["- a\n- b", "* a\n\u2022 b"], ["- a", "a\nb"]),
    ({"check": "starts_with", "text": "okay"}, ["Okay, pear", '"okay pear"'], ["okayish", "pear okay"]),
    ({"check": "ends_with", "text": "done"}, ["pear, done.", "[pear, DONE]"], ["pear undone", "done pear"]),
    ({"check": "ends_with", "text": "?"}, ["Is it?", '"Is it?"'], ["Is it?!", "It is."]),
    ({"check": "includes", "text": "fox"}, ["The fox.", "A FOX is"], ["foxes", "cat"]),
    ({"check": "includes", "text": "fig", "n": 2}, ["fig, fig", "Fig fig"], ["fig", "fig fig fig"]),
    ({"check": "excludes", "text": "fox"}, ["foxes", "a cat"], ["a Fox"]),
    ({"check": "excludes_letter", "letter": "e"}, ["a fox is cold"], ["the fox", "THE FOX"]),
    ({"check": "all_upper"}, ["PEAR 1", "A!"], ["Pear", "123"]),
    ({"check": "all_lower"}, ["pear 1"], ["Pear"]),
    ({"check": "wrapped", "left": "[", "right": "]"}, ["[pear]"], ["pear", "[pear", "[pear]."]),
    ({"check": "quoted"}, ['"pear"', "\u201cpear\u201d"], ["'pear'", "pear"]),
    ({"check": "items", "items": FRUITS, "separator": ","}, ["pear, fig, lime", "PEAR,FIG,LIME."], ["pear; fig; lime"]),
    ({"check": "items", "items": FRUITS, "separator": ";"}, ["(pear; fig; lime)"], ["pear; lime; fig", "pear; fig"]),
    (
        {"check": "items", "items": FRUITS, "separator": "-"},
        ["pear - fig - lime", "pear-fig-lime"],
        ["pear, fig, lime"],
    ),
    ({"check": "items", "items": FRUITS, "separator": "line"}, ["pear\nfig\nlime"], ["pear, fig, lime"]),
    (
        {"check": "items", "items": FRUITS, "separator": "numbered"},
        ["1. pear\n2. fig\n3. lime", "1) pear\n2) fig\n3) lime"],
        ["pear\nfig\nlime", "1. pear\n1. fig\n1. lime", "1. pear, 2. fig, 3. lime"],
    ),
    ({"check": "items", "items": FRUITS}, ["pear fig lime", "1. pear\n2. fig\n3. lime"], ["Here: pear, fig, lime"]),
    ({"check": "items", "items": FRUITS, "ordered": False}, ["lime, pear, fig"], ["lime, pear"]),
    ({"check": "items", "items": ["Fig"], "case": True}, ["Fig"], ["fig"]),
    ({"check": "no_commas"}, ["a b"], ["a, b"]),
    ({"check": "json_valid"}, ['{"a": 1}', '```json\n{"a": 1}\n```'], ["{a: 1}"]),
]


@pytest.mark.parametrize(("check", "right", "wrong"), KNOWN, ids=lambda value: str(value)[:50])
def test_each_check_passes_and_fails_as_known(check: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    for answer in right:
        made = score(answer, {"checks": [check]})
        assert isinstance(made, Score) and made.value == 1.0, (answer, made)
    for answer in ["", *wrong]:
        made = score(answer, {"checks": [check]})
        assert isinstance(made, Score) and made.value == 0.0, (answer, made)
        assert made.because == "the answer is empty" if not answer else made.because.startswith(check["check"])


def test_every_check_has_a_known_answer() -> None:
    assert {check["check"] for check, _, _ in KNOWN} == set(CHECKS)


def test_one_failed_check_of_three_scores_zero_and_is_the_only_one_named() -> None:
    checks = [{"check": "all_upper"}, {"check": "words_exactly", "n": 2}, {"check": "no_commas"}]
    assert score("PEAR FIG", {"checks": checks}) == Score(value=1.0, answer="PEAR FIG")
    made = score("PEAR FIG LIME", {"checks": checks})
    assert made == Score(value=0.0, answer="PEAR FIG LIME", because="words_exactly: 3 words where exactly 2 were asked")


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        {"checks": []},
        {"checks": ["all_upper"]},
        {"checks": [{"check": "no_such"}]},
        {"checks": [{"check": "words_exactly"}]},
        {"checks": [{"check": "words_exactly", "n": "many"}]},
        {"checks": [{"check": "items", "items": ["a"], "separator": "tab"}]},
    ],
)
def test_what_cannot_be_checked_is_unscored_with_a_reason(reference: object) -> None:
    made = score("", reference)
    assert isinstance(made, Unscored) and made.reason.startswith("instructions: ")


@given(st.lists(st.sampled_from(FRUITS), min_size=1, max_size=6), st.sampled_from([", ", "; ", "\n", " - ", " "]))
def test_a_list_without_a_separator_asked_for_may_use_any(items: list[str], joint: str) -> None:
    made = score(joint.join(items), {"checks": [{"check": "items", "items": items}]})
    assert isinstance(made, Score) and made.value == 1.0


@given(st.lists(st.sampled_from(["It is so", "A fox runs", "Go"]), min_size=1, max_size=5), st.sampled_from(".!?"))
def test_sentences_are_counted_by_their_ends(parts: list[str], mark: str) -> None:
    assert sentences(" ".join(part + mark for part in parts)) == len(parts)
