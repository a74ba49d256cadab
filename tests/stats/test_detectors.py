"""E-detectors: their mean time between false alarms by enumeration, and a state that survives JSON bit for bit."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import UsageError
from quantgate.stats.detectors import FACTORS, Detector, Form

FORMS: list[Form] = ["sr", "cusum"]
UNITS = st.lists(st.booleans(), max_size=60)


def after(units: list[bool] | tuple[bool, ...], form: Form = "sr", bound: float = 0.2) -> Detector:
    made = Detector(bound, form)
    for bad in units:
        made.add(bad)
    return made


def test_two_units_are_worth_what_the_definition_says() -> None:
    bad, good = ([f / (1 + (a - 1) * 0.2) for a, f in zip(FACTORS, by, strict=True)] for by in (FACTORS, (1,) * 4))
    sr = sum((1 + b) * g for b, g in zip(bad, good, strict=True)) / 4  # (1 + 1 e_1) e_2
    cusum = sum(max(1, b) * g for b, g in zip(bad, good, strict=True)) / 4
    assert after([True, False]).log_m == pytest.approx(math.log(sr))
    assert after([True, False], "cusum").log_m == pytest.approx(math.log(cusum))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rate", [0.2, 0.05])
def test_no_stopping_rule_gathers_more_than_the_units_it_took(form: Form, rate: float) -> None:
    """The definition of an e-detector, E[M at the stop] <= E[units until it], over every rule of twelve units."""

    def value(past: tuple[bool, ...]) -> float:
        now = math.exp(after(past, form).log_m) - len(past) if past else 0.0
        if len(past) == 12:
            return now
        return max(now, rate * value((*past, True)) + (1 - rate) * value((*past, False)))

    assert value(()) <= 1e-9


@given(UNITS)
def test_the_sum_over_starts_is_never_below_the_best_start(units: list[bool]) -> None:
    assert after(units).log_m >= after(units, "cusum").log_m - 1e-12


@given(UNITS, UNITS, st.sampled_from(FORMS))
def test_a_restart_anywhere_changes_no_bit(before: list[bool], later: list[bool], form: Form) -> None:
    whole = after([*before, *later], form)
    kept = json.loads(json.dumps(after(before, form).state(), allow_nan=False))
    again = Detector.of(kept)
    for bad in later:
        again.add(bad)
    assert again == whole
    assert again.state() == whole.state()


@pytest.mark.parametrize("form", FORMS)
def test_a_fault_is_found_soon_after_a_long_good_time(form: Form) -> None:
    """One unit in fifty is bad, then one in ten; ten thousand good units slow nothing down."""
    found = Detector(0.025, form)
    for unit in range(10_000):
        found.add(unit % 50 == 0)
        assert found.log_m < math.log(1e6)
    taken = 0
    while found.log_m < math.log(1e6):
        found.add(taken % 10 == 0)
        taken += 1
    assert taken < 500
    found.renew()
    assert found == Detector(0.025, form)


def test_nothing_seen_is_no_evidence() -> None:
    assert Detector(0.1).log_m == -math.inf


@pytest.mark.parametrize("bound", [0.0, 1.0, -0.2, math.nan])
def test_a_bound_that_is_no_rate_is_refused(bound: float) -> None:
    with pytest.raises(UsageError, match="outside 0"):
        Detector(bound)
