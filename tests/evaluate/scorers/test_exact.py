"""exact: the whole answer, in a normal form, is one of the accepted strings."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers.exact import normal, score


def value_of(answer: str, reference: Any) -> float:
    made = score(answer, reference)
    assert isinstance(made, Score)
    return made.value


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Montag", "Montag"),
        (" montag.\n", "Montag"),
        ("**Montag**", "Montag"),
        ("\u201eMontag\u201c", "Montag"),
        ("\u00abMontag\u00bb", "Montag"),
        ("`red`", "red"),
        ("```\nred\n```", "red"),
        ("```text\nred\n```\n", "red"),
        ("Tom\u2019s", "Tom's"),
        ("wei\u00df", "weiss"),
        (unicodedata.normalize("NFD", "mi\u00e9rcoles"), "mi\u00e9rcoles"),
        ("63,\n  41", "63, 41"),
        ("\uff14\uff17", "47"),  # full-width digits
        ("U.S.", "u.s"),
        ("63 41", {"accept": ["63, 41", "63 41"]}),
    ],
)
def test_dress_does_not_count(answer: str, reference: Any) -> None:
    assert value_of(answer, reference) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("", "red"),
        ("It is red.", "red"),
        ("red blue", "red"),
        ("redd", "red"),
        ("63 41", "63, 41"),
        ("miercoles", "mi\u00e9rcoles"),
        ("a-b-c", "abc"),
        ("-5", "5"),
        ("red", {"accept": ["Red"], "case": True}),
        ("red.", {"accept": ["red"], "strip": False}),
    ],
)
def test_words_letters_and_what_was_asked_for_count(answer: str, reference: Any) -> None:
    assert value_of(answer, reference) == 0.0


def test_a_wrong_answer_names_what_was_expected() -> None:
    assert score("blue", {"accept": ["red", "rot"]}) == Score(
        value=0.0, answer="blue", because="expected 'red' or 'rot'"
    )
    assert score(" ", "red") == Score(value=0.0, because="the answer is empty")


def test_case_and_strip_are_flags() -> None:
    assert value_of("ZorVel.", {"accept": ["ZorVel"], "case": True}) == 1.0
    assert value_of("...", {"accept": ["..."], "strip": False}) == 1.0


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (7, "the reference is int"),
        (None, "the reference is NoneType"),
        (["red"], "the reference is list"),
        ({}, "the reference accepts nothing"),
        ({"accept": []}, "the reference accepts nothing"),
        ({"accept": [7]}, "the reference accepts nothing"),
        ({"accept": "red"}, "the reference accepts nothing"),
        ({"accept": ["red"], "strip": 1}, "'strip' in the reference is not true or false"),
        ({"accept": ["red"], "any": []}, "unknown key 'any'"),
        ({"accept": ["red", "..."]}, "nothing of '...' is left to compare"),
        ("", "nothing of '' is left to compare"),
    ],
)
def test_a_bad_reference_is_unscored(reference: Any, reason: str) -> None:
    made = score("red", reference)
    assert isinstance(made, Unscored)
    assert reason in made.reason


@given(st.text(min_size=1, max_size=40))
def test_a_string_equals_itself_or_is_no_reference(text: str) -> None:
    made = score(text, text)
    assert isinstance(made, Unscored) if not normal(text) else made == Score(value=1.0, answer=text.strip())


@given(st.text(alphabet="aB \u00df\u0130.*\"'`_\n\u00b4\u2026", max_size=20))
def test_the_normal_form_is_stable(text: str) -> None:
    assert normal(normal(text)) == normal(text)
