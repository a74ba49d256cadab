"""numeric: reads the number an answer ends at, however it is written."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers.numeric import read, score


def value_of(answer: str, reference: Any) -> float:
    made = score(answer, reference)
    assert isinstance(made, Score)
    return made.value


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("132", "132"),
        ("  132.\n", "132"),
        ("47 + 85 = 132", "132"),
        ("-62", "-62"),
        ("\u221262", "-62"),  # the minus sign
        ("(-4)", "-4"),
        ("$-62$", "-62"),
        ("-$5.50", "-5.5"),
        ("USD 12", "12"),
        ("1,234", "1234"),
        ("1,234,567.89", "1234567.89"),
        ("1.234,5", "1234.5"),
        ("1.234.567", "1234567"),
        ("1.234", "1.234"),
        ("1'234", "1234"),
        ("1\u2019234", "1234"),
        ("1\u202f234", "1234"),
        ("12,5", "12.5"),
        ("0,125", "0.125"),
        (".5", "0.5"),
        ("3/4", "0.75"),
        ("2e3", "2000"),
        ("1.5E-2", "0.015"),
        ("37%", "37"),
        ("37 km/h", "37"),
        ("The box holds 12 m3.", "12"),
        ("That makes 12 m^2", "12"),
        ("46-9", "9"),
        ("from 3\u20135", "5"),
    ],
)
def test_a_number_is_read_as_people_write_it(answer: str, number: str) -> None:
    found = read(answer)
    assert found is not None
    assert found[1] == Fraction(number)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("34 + 12 = 46, 46 - 9 = 37. Answer: 37", 37),
        ("Answer: 37 marbles are left of 46", 37),
        ("**Answer:** 37, because 46 - 9 is that", 37),
        ("**Answer**: **37**. I took 9 away.", 37),
        ("Answer:\n\n37\n\nCheck: 37 + 9 = 46", 37),
        ("Answer: 5. No, wait. Answer: 6 apples of 9", 6),
        ("Answer: - 3", -3),
        ("Answer: $1,250.00 in 3 days", 1250),
        ("Answer: 46 - 9 = 37", 37),
        ("Answer: 20 * 4 = 80 = 80", 80),
        ("Answer: 37 (34 + 12 = 46, less 9)", 37),
        ("Answer: x = 37", 37),
        (r"So we get \boxed{1{,}234} of 5.", 1234),
        (r"Answer: \boxed{-62}, not 62", -62),
        ("20 and 3\n#### 92", 92),
        ("#### 1. Add\n80 + 12 = 92", 92),
    ],
)
def test_what_follows_the_last_marker_counts(answer: str, number: int) -> None:
    assert value_of(answer, number) == 1.0


@pytest.mark.parametrize("answer", ["", "abc", "Answer: N", "7 then Answer: seven", "H2O", "..."])
def test_no_number_is_a_wrong_answer_and_says_so(answer: str) -> None:
    assert score(answer, 7) == Score(value=0.0, because="there is no number where the answer should be")


@pytest.mark.parametrize("answer", ["1.2.3", "1,2,3", "1/0", "9" * 5000])
def test_a_muddle_of_digits_is_a_wrong_answer(answer: str) -> None:
    assert value_of(answer, 3) == 0.0


def test_a_wrong_number_is_named() -> None:
    assert score("It is 131.", 132) == Score(value=0.0, answer="131", because="read 131, expected 132")


def test_sign_and_tolerance_count() -> None:
    assert value_of("62", -62) == 0.0
    assert value_of("3.14", {"value": 3.1416, "tolerance": 0.01}) == 1.0
    assert value_of("3.2", {"value": 3.1416, "tolerance": 0.01}) == 0.0
    assert value_of("0.3", 0.3) == 1.0
    assert value_of("0.30000001", 0.3) == 0.0


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("132", "the value in the reference is not a finite number"),
        (True, "the value in the reference is not a finite number"),
        (None, "the value in the reference is not a finite number"),
        (float("nan"), "the value in the reference is not a finite number"),
        ({"tolerance": 1}, "the value in the reference is not a finite number"),
        ({"value": 1, "tolerance": "a"}, "the tolerance in the reference is not a finite number"),
        ({"value": 1, "tolerance": -1}, "the tolerance in the reference is negative"),
        ({"value": 1, "tol": 1}, "unknown key 'tol'"),
    ],
)
def test_a_bad_reference_is_unscored(reference: Any, reason: str) -> None:
    made = score("1", reference)
    assert isinstance(made, Unscored)
    assert reason in made.reason


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "{:,}", "Answer: {:,} of 7", "It is {}.", "**{}**"]))
def test_every_integer_survives_being_written(number: int, form: str) -> None:
    assert value_of(form.format(number), number) == 1.0
    assert value_of(form.format(number), number + 1) == 0.0


@given(st.text(alphabet="0123456789.,-+/=eE$ ()*#\n'x_{}\\^Answer: boxed", max_size=80))
def test_no_text_breaks_the_reader(answer: str) -> None:
    assert value_of(answer, 123456) in (0.0, 1.0)
