"""Which exchanges count, once, for whom; the same rows give the same evidence, whatever happens in between."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.watch.trials import (
    ALL,
    BAD,
    BASE,
    CALLS,
    CONFIG,
    EACH,
    GOOD,
    GRADE,
    LENGTH,
    OTHER,
    PAIR,
    SLOW,
    START,
    exchange,
    folded,
    restarted,
    traffic,
)

from quantgate.errors import RecordError, UsageError
from quantgate.stats import attribution
from quantgate.watch.fold import Fold
from quantgate.watch.judging import judge
from quantgate.watch.signals import Signal
from quantgate.watch_config import SignalConfig, WatchConfig


def counts(fold: Fold, signal: str = "bad", direction: str = "more") -> tuple[int, int, int, int]:
    """(bad, units) of the trial, then of the control."""
    one = next(one for one in fold.findings() if (one.signal, one.direction) == (signal, direction))
    return one.trial.bad, one.trial.units, one.control.bad, one.control.units


def messy(n: int, seed: int) -> list[Any]:
    """All signals, few sessions that come back, doubles, late ones, strangers, a ramp and a promotion."""
    chance = random.Random(seed)
    rows = []
    for number in range(1, n + 1):
        odds = 0.1 if number < n // 3 else 0.3
        ours = chance.random() < odds
        promoted = number > 2 * n // 3
        cohort = ("stable" if ours else "holdback") if promoted else ("canary" if ours else "stable")
        marks = {
            "slow": chance.lognormvariate(0, 1),
            "grade": chance.random(),
            "calls": float(chance.random() < 0.5),
            "length": float(chance.randint(1, 50)),
            "pair": float(chance.random() < 0.4),
        }
        told = {"session": f"s{chance.randint(1, n // 3)}"} if chance.random() < 0.7 else {}
        one = exchange(
            number if chance.random() > 0.05 else chance.randint(1, number),
            "trial" if ours else "control",
            chance.choice([None, 0.0, 0.0, 1.0]),
            odds=odds,
            share=odds,
            cohort=cohort,
            revision=2 + (number >= n // 3) + promoted,
            at=START + number * 40.0 - (1000.0 if chance.random() < 0.05 else 0.0),
            stream=chance.random() < 0.5,
            marks={key: value for key, value in marks.items() if chance.random() < 0.9},
            **told,
        )
        if chance.random() < 0.1:
            one = one.model_copy(update={"shadow": True, "side": "", "artifact": GOOD[1], "against": BASE[1]})
        rows.append((number, one))
    return rows


def test_bad_events_and_sessions_are_counted_by_side():
    fold = folded([(1, exchange(1)), (2, exchange(2, "control", 1.0)), (3, exchange(3, "trial", 1.0))])
    assert counts(fold) == (1, 2, 1, 1)
    found = fold.findings()[0]
    assert found.log_e == attribution.log_worse({0.1: [2, 1]})
    assert found.examples == ("r3",)
    assert fold.trial is not None
    assert (fold.trial.variant, fold.trial.control) == (GOOD[0], BASE[0])


def test_a_session_counts_once_and_with_its_first_bad_event():
    rows = [(n, exchange(n, "trial", float(n in (3, 4)), session="a")) for n in range(1, 6)]
    assert counts(folded(rows)) == (1, 1, 0, 0)


def test_a_request_without_a_session_is_its_own_and_a_signal_may_count_requests():
    rows = [(n, exchange(n, "trial", 1.0, session="a" if n < 4 else None)) for n in range(1, 6)]
    fold = folded(rows, (BAD, EACH))
    assert counts(fold) == (3, 3, 0, 0)
    assert counts(fold, "each") == (5, 5, 0, 0)


def test_a_signal_that_does_not_apply_counts_on_neither_side():
    fold = folded([(1, exchange(1, "trial", None)), (2, exchange(2, "control"))])
    assert counts(fold) == (0, 0, 0, 1)
    assert fold.sessions() == (1, 1)


@pytest.mark.parametrize(
    "told",
    [
        {"cohort": "pinned"},
        {"shadow": True},
        {"drawn": "", "odds": 0.0, "cohort": "stable"},
        {"odds": 0.0},
        {"odds": 1.0},
        {"odds": -0.5},
        {"against": ""},
        {"artifact": OTHER[1]},
        {"against": OTHER[1]},
        {"revision": 1, "artifact": OTHER[1]},
        {"at": START - 1000.0},
    ],
)
def test_what_does_not_count(told):
    rows = [(1, exchange(1, "control")), (2, exchange(2))]
    before = folded(rows).findings()
    assert folded([*rows, (3, exchange(3, "trial", 1.0, **told))]).findings() == before


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["event", "graded", "pair"]))
def test_a_value_that_no_signal_may_have_counts_nowhere(value, kind):
    signal = Signal("wild", "wild", kind, lambda one, _before: value)
    fold = folded([(1, exchange(1)), (2, exchange(2, "control")), (3, exchange(3, shadow=True))], (signal,))
    allowed = value in (0.0, 1.0) if kind != "graded" else 0.0 <= value <= 1.0
    units = sum(one.trial.units for one in fold.findings())
    assert (units > 0) is allowed
    assert all(math.isfinite(one.log_e) for one in fold.findings())


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.floats(allow_nan=True, allow_infinity=True)), min_size=1, max_size=30))
def test_hostile_quantities_are_survived(values):
    at = iter([value for _, value in values])
    signal = Signal("wild", "wild", "quantity", lambda _one, _before: next(at), worse="either")
    fold = folded(
        [(n, exchange(n, "trial" if ours else "control")) for n, (ours, _) in enumerate(values, 1)], (signal,)
    )
    json.dumps(fold.state(), allow_nan=False)
    assert fold.crossed() is None


def test_a_signal_that_fails_is_silent_and_told():
    def read(_one, _before):
        raise KeyError("no such thing")

    fold = folded([(1, exchange(1, "trial", 1.0))], (BAD, Signal("broken", "broken", "event", read)))
    assert fold.uncounted.broken == {"broken": 1}
    assert counts(fold) == (1, 1, 0, 0)


def test_doubles_and_rows_out_of_order_change_nothing():
    rows = traffic(400, trial=0.2)
    whole = folded(rows)
    again = folded([*rows, rows[10], (401, rows[20][1]), (402, rows[399][1])])
    assert again.findings() == whole.findings()
    assert again.uncounted.twice == 2


def test_odds_are_each_exchange_s_own_so_a_ramp_by_hand_is_nothing_special():
    rows = traffic(300, odds=0.1) + traffic(300, odds=0.37, first=301, revision=3, seed=2)
    bad = [(one.odds, one.side == "trial") for _, one in rows if one.marks["bad"]]
    counted: attribution.Counts = {}
    for odds, ours in bad:
        row = counted.setdefault(odds, [0, 0])
        row[0] += 1
        row[1] += ours
    assert folded(rows).findings()[0].log_e == attribution.log_worse(counted)


def test_evidence_of_a_canary_is_kept_until_it_is_promoted_and_begins_anew_then():
    rows = traffic(400, trial=0.1)
    fold = folded(rows)
    before = fold.findings()[0].log_e
    assert before != 0.0
    for number in range(401, 405):
        fold.add(number, exchange(number, "control", revision=3, cohort="holdback", odds=0.98))
    assert fold.findings()[0].log_e == before
    fold.add(405, exchange(405, "trial", 1.0, revision=3, cohort="stable", odds=0.98, share=0.0))
    assert counts(fold) == (1, 1, 0, 0)
    assert fold.standing is not None
    assert fold.standing.held


def test_other_bytes_in_a_newer_release_begin_from_nothing_and_stragglers_count_no_more():
    fold = folded(traffic(200, trial=0.5))
    fold.add(201, exchange(201, "trial", 0.0, pair=(OTHER, BASE), revision=3))
    fold.add(202, exchange(202, "trial", 1.0, revision=2))
    fold.add(203, exchange(203, "control", 0.0, pair=(OTHER, BASE), revision=3))
    assert counts(fold) == (0, 1, 0, 1)
    assert fold.trial is not None
    assert fold.trial.variant == OTHER[0]
    assert fold.uncounted.strangers == 1


def test_a_trial_that_was_taken_away_and_comes_back_begins_from_nothing():
    fold = folded(traffic(200, trial=0.5))
    fold.add(201, exchange(201, "control", drawn="", odds=0.0, share=0.0, against="", revision=3))
    fold.add(202, exchange(202, "trial", 1.0, revision=2))
    assert fold.standing is not None
    assert fold.standing.gone == 3
    assert fold.uncounted.strangers == 1
    fold.add(203, exchange(203, "trial", 0.0, revision=4))
    assert counts(fold) == (0, 1, 0, 0)
    assert fold.standing.gone is None


def test_a_replica_where_the_canary_is_not_up_does_not_end_the_trial():
    fold = folded(traffic(200, trial=0.3))
    before = fold.findings()
    fold.add(201, exchange(201, "control", drawn="", odds=0.0, share=0.0, against="", revision=3))
    fold.add(202, exchange(202, "trial", None, revision=3))
    assert fold.standing is not None
    assert fold.standing.gone is None
    assert {one.signal: one.log_e for one in fold.findings()} == {one.signal: one.log_e for one in before}


def test_with_a_stable_variant_and_a_holdback_its_own_sessions_are_neither_side_s():
    """Three arms: the canary is held against the holdback, and the stable variant's sessions end no trial."""
    fold = Fold(CONFIG, "t", (BAD,))
    chance = random.Random(3)
    for number in range(1, 2000):
        at = chance.random()
        revision = 2 + number // 500
        if at < 0.05 or at >= 0.98:
            told = {"odds": 0.05 / 0.07, "share": 0.05, "pair": (OTHER, BASE), "revision": revision}
            side = "trial" if at < 0.05 else "control"
            one = exchange(number, side, 0.0, cohort="canary" if at < 0.05 else "holdback", **told)
        else:
            one = exchange(number, drawn="", odds=0.0, share=0.05, against="", cohort="stable", revision=revision)
        fold.add(number, one)
        assert fold.standing is None or fold.sessions() != (0, 0)
    assert sum(fold.sessions()) > 100
    assert fold.uncounted.strangers == 0
    found = judge(fold, live=None, config=CONFIG, now=START)
    assert found is not None
    assert "more sessions of W3A16" in found.missing[0]


def test_copies_of_another_variant_begin_a_trial_only_where_none_is_live():
    copy: dict[str, Any] = {"drawn": "", "shadow": True, "cohort": "pinned", "pair": (OTHER, BASE)}
    fold = folded(traffic(50), (BAD, PAIR))
    fold.add(51, exchange(51, revision=3, **copy))
    assert fold.uncounted.strangers == 1
    fold.add(52, exchange(52, "control", drawn="", odds=0.0, share=0.0, against="", revision=3))
    fold.add(53, exchange(53, drawn="", shadow=True, cohort="pinned", revision=3))
    assert fold.standing is not None
    assert (fold.standing.variant, fold.standing.copied) == (GOOD[1], False), "what was taken back does not come again"
    fold.add(54, exchange(54, revision=3, **copy))
    assert (fold.standing.variant, fold.standing.copied) == (OTHER[1], True)


def test_the_arm_that_was_drawn_counts_whoever_answered():
    fold = folded([(1, exchange(1, "trial", 1.0, answered_by=BASE[0])), (2, exchange(2, "control"))])
    assert counts(fold) == (1, 1, 0, 1)


def test_quantities_are_held_against_thresholds_of_the_control_s_past():
    chance = random.Random(5)
    fold = Fold(CONFIG, "t", (SLOW,))
    for number in range(1, 201):
        fold.add(number, exchange(number, "control", marks={"slow": chance.lognormvariate(0, 0.5)}))
    assert fold.findings()[0].log_e == 0.0
    for number in range(201, 261):
        ours = number % 4 == 0
        slow = chance.lognormvariate(2.0 if ours else 0.0, 0.5)
        fold.add(number, exchange(number, "trial" if ours else "control", odds=0.25, marks={"slow": slow}))
    found = fold.findings()[0]
    assert found.log_e > 5.0
    assert found.low is not None
    assert found.low > 2.0
    assert found.trial.bad > 10
    assert found.trial.total > 15 * 4
    assert "at least" in found.sentence


def test_a_stratum_waits_for_values_of_its_own():
    rows = [(n, exchange(n, "control", marks={"slow": 1.0})) for n in range(1, 201)]
    rows += [(n, exchange(n, "trial", stream=True, marks={"slow": 9.0})) for n in range(201, 230)]
    assert folded(rows, (SLOW,)).findings()[0].log_e == 0.0
    rows += [(n, exchange(n, "trial", marks={"slow": 9.0})) for n in range(230, 240)]
    assert folded(rows, (SLOW,)).findings()[0].log_e > 5.0


def test_grades_are_held_against_each_other():
    rows = [
        (n, exchange(n, "trial" if n % 2 else "control", odds=0.5, marks={"grade": 0.9 if n % 2 else 0.2}))
        for n in range(1, 200)
    ]
    found = folded(rows, (GRADE,)).findings()[0]
    assert found.log_e > 10.0
    assert found.ratio == pytest.approx(0.7, abs=0.02)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.7 < found.high


def test_pairs_are_read_from_copies_of_the_two_that_are_on_trial():
    rows = [(1, exchange(1)), (2, exchange(2, "control"))]
    told: dict[str, Any] = {"drawn": "", "shadow": True, "cohort": "pinned"}
    copies = [(n, exchange(n, marks={"pair": float(n % 10 > 0)}, **told)) for n in range(3, 63)]
    other = [(99, exchange(99, marks={"pair": 1.0}, pair=(OTHER, BASE), **told))]
    found = folded([*rows, *copies, *other], (PAIR,)).findings()[0]
    assert (found.trial.bad, found.control.bad) == (54, 6)
    assert found.log_e == attribution.log_worse({0.5: [60, 54]})
    assert found.ratio == pytest.approx(9.0)


def test_either_direction_shares_the_weight_and_finds_its_own():
    rows = [
        (n, exchange(n, "trial" if n % 2 else "control", odds=0.5, marks={"calls": float(not n % 2)}))
        for n in range(1, 100)
    ]
    found = {one.direction: one for one in folded(rows, (CALLS, BAD)).findings() if one.signal == "calls"}
    assert found["less"].log_e > 10.0 > 0.0 > found["more"].log_e
    assert found["less"].weight == found["more"].weight == 0.25


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.1, 0.25, 0.5])), max_size=60))
def test_changing_the_sides_names_turns_the_findings_round(told):
    both = Signal("both", "both", "event", BAD.read, worse="either")
    rows = [
        (n, exchange(n, "trial" if ours else "control", float(b), odds=o)) for n, (ours, b, o) in enumerate(told, 1)
    ]
    turned = [
        (n, exchange(n, "control" if ours else "trial", float(b), odds=1.0 - o, pair=(BASE, GOOD)))
        for n, (ours, b, o) in enumerate(told, 1)
    ]
    plain = {one.direction: one.log_e for one in folded(rows, (both,)).findings()}
    other = {one.direction: one.log_e for one in folded(turned, (both,)).findings()}
    assert plain.get("more") == pytest.approx(other.get("less"))
    assert plain.get("less") == pytest.approx(other.get("more"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 240), max_size=6))
def test_killed_and_begun_again_anywhere_it_is_the_same_bit_for_bit(seed, cuts):
    rows = messy(240, seed)
    config = WatchConfig(period=4000.0)
    whole = folded(rows, ALL, config)
    cut = Fold(config, "t", ALL)
    for at, (number, one) in enumerate(rows):
        if at in cuts:
            cut = restarted(cut, rows)
        cut.add(number, one)
    assert json.dumps(cut.state()) == json.dumps(whole.state())
    assert cut.findings() == whole.findings()
    assert cut.log_e() == whole.log_e()


def test_rows_that_are_told_again_after_a_restart_count_once():
    rows = traffic(300, trial=0.3)
    fold = folded(rows[:200])
    again = restarted(fold, rows)
    for number, one in rows:
        again.add(number, one)
    assert again.state() == folded(rows).state()


def test_late_rows_are_left_out_and_counted():
    rows = traffic(100)
    fold = folded([*rows, (101, exchange(101, "trial", 1.0, at=START - 400.0))])
    assert fold.uncounted.late == 1
    assert fold.findings() == folded(rows).findings()


def test_after_a_promotion_evidence_is_renewed_within_a_period_and_anew_after_it():
    config = WatchConfig(period=7200.0)  # a copy starts every ten seconds
    fold = Fold(config, "t", (BAD,))
    for number in range(1, 202):
        side, cohort = ("trial", "stable") if number % 2 else ("control", "holdback")
        fold.add(number, exchange(number, side, float(number % 10 == 1), cohort=cohort, odds=0.5))
    process = fold.processes[0]
    assert process.starts == [0, 8, 16, 18, 19, 20]
    assert [evidence.events() for evidence in process.since()] == [21, 13, 5, 3, 2, 1]
    for number in range(202, 7210):
        fold.add(number, exchange(number, "control", 0.0, cohort="holdback", odds=0.5))
    assert process.starts == [0]
    assert counts(fold)[2] == 0


def test_a_variant_that_was_good_for_long_is_caught_soon_after_it_turns():
    """A copy of the evidence that began after the good times does not know them."""
    config = WatchConfig(period=20_000.0)

    def found(renewed: bool) -> int:
        fold = Fold(config, "t", (BAD,))
        chance = random.Random(7)
        for number in range(1, 12_000):
            ours = chance.random() < 0.5
            rate = 0.1 if not ours else 0.03 if number < 8000 else 0.3
            cohort = ("stable" if ours else "holdback") if renewed else ("canary" if ours else "stable")
            bad = float(chance.random() < rate)
            fold.add(number, exchange(number, "trial" if ours else "control", bad, cohort=cohort, odds=0.5))
            if number > 8000 and number % 20 == 0 and fold.crossed() is not None:
                return number - 8000
        return 10**6

    assert found(renewed=True) < 700 < found(renewed=False)


def test_under_the_null_few_trials_ever_cross():
    """Alpha 20 %, 150 trials of 200 sessions, looked at every ten; two signals and three processes."""
    config = WatchConfig(alpha=0.2)
    crossed = 0
    for seed in range(150):
        chance = random.Random(seed)
        fold = Fold(config, "t", (BAD, CALLS))
        for number in range(1, 201):
            ours = chance.random() < 0.3
            marks = {"calls": float(chance.random() < 0.5)}
            bad = float(chance.random() < 0.2)
            fold.add(number, exchange(number, "trial" if ours else "control", bad, odds=0.3, marks=marks))
            if number % 10 == 0 and fold.crossed() is not None:
                crossed += 1
                break
    assert crossed <= 30


def test_a_signal_that_is_new_after_an_upgrade_begins_from_nothing():
    rows = traffic(200, trial=0.3)
    fold = folded(rows)
    made = Fold.of(fold.state(), CONFIG, "t", (CALLS, BAD))
    assert counts(made) == counts(fold)
    made.add(201, exchange(201, "trial", 0.0, marks={"calls": 1.0}))
    assert counts(made, "calls") == (1, 1, 0, 0)
    without = Fold.of(made.state(), CONFIG, "t", (CALLS,))
    assert counts(without, "calls") == (1, 1, 0, 0)


def test_signals_that_are_gone_give_their_bits_back():
    state = folded(traffic(50)).state()
    state["order"] = [f"old{at}" for at in range(63)] + ["bad"]
    made = Fold.of(state, CONFIG, "t", (BAD, CALLS))
    assert made.order == ["bad", "calls"]
    made.add(51, exchange(51, session="a"))
    assert Fold.of(json.loads(json.dumps(made.state())), CONFIG, "t", (BAD, CALLS)).state() == made.state()


@pytest.mark.parametrize(
    "change", [{"version": 99}, {"processes": {"bad/event/more": {}}}, {"clock": {"x": 1}}, {"seen": 3}]
)
def test_a_state_that_cannot_be_read_says_so(change):
    state = folded(traffic(20)).state() | change
    with pytest.raises(RecordError, match=r"watch of t: its state .* delete the row"):
        Fold.of(state, CONFIG, "t", (BAD,))


def test_a_state_stays_small_however_much_was_met():
    fold = Fold(CONFIG, "t", ALL)
    chance = random.Random(1)
    for number in range(1, 12_000):
        marks = {"slow": chance.lognormvariate(0, 1), "length": float(chance.randint(1, 999)), "calls": 1.0}
        side = "trial" if chance.random() < 0.1 else "control"
        fold.add(number, exchange(number, side, 1.0, session=f"s{number}", marks=marks))
    assert len(json.dumps(fold.state())) < 200_000


def test_signals_that_are_off_have_no_part_in_the_error_rate():
    config = WatchConfig(signals={"calls": SignalConfig(off=True), "each": SignalConfig(weight=3.0)})
    fold = Fold(config, "t", (BAD, CALLS, EACH))
    assert {one.signal.name: one.weight for one in fold.rules} == {"bad": 0.25, "each": 0.75}


def test_points_say_where_each_process_stands():
    fold = folded(traffic(300, trial=0.3))
    (point,) = fold.points(5.0)
    found = fold.findings()[0]
    assert (point.at, point.log_e, point.low, point.share) == (5.0, found.log_e, found.low, 0.1)


def test_lengths_have_a_low_side_too():
    chance = random.Random(2)
    rows = []
    for number in range(1, 600):
        ours = number > 300 and chance.random() < 0.3
        length = float(chance.randint(5, 30) if ours else chance.randint(50, 300))
        rows.append((number, exchange(number, "trial" if ours else "control", odds=0.3, marks={"length": length})))
    found = {one.direction: one for one in folded(rows, (LENGTH,)).findings()}
    assert found["less"].log_e > 10.0 > found["more"].log_e


def test_an_answer_that_took_long_is_not_late_and_one_that_came_long_after_its_end_is():
    """On time is what arrives about when it ended: to count from the start would drop the slow side's slow ones."""
    rows = traffic(400)
    fold = folded([*rows, (401, exchange(401, "trial", 1.0, at=START - 500.0, total_s=895.0))])
    assert fold.uncounted.late == 0
    assert fold.findings()[0].trial.bad == folded(rows).findings()[0].trial.bad + 1
    late = folded([*rows, (401, exchange(401, "trial", 1.0, at=START - 500.0, total_s=500.0))])
    assert late.uncounted.late == 1


def test_an_end_beyond_all_time_counts_nowhere():
    rows = traffic(50)
    fold = folded([*rows, (51, exchange(51, "trial", 1.0, at=1.5e308, total_s=1.5e308))])
    assert fold.findings() == folded(rows).findings()
    assert fold.uncounted.odd == 1
    json.dumps(fold.state(), allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_who_is_slow_changes_nothing_but_times(seed):
    """The same sessions with answers that take 20 minutes on one side, on the other, or on neither."""
    chance = random.Random(seed)
    ends = sorted(START + 3600.0 * chance.random() for _ in range(60))
    sides = [chance.random() < 0.4 for _ in ends]
    bad = [float(chance.random() < 0.3) for _ in ends]

    def evidence(slow: bool | None) -> list[Any]:
        rows = []
        for number, (end, ours, value) in enumerate(zip(ends, sides, bad, strict=True), 1):
            took_s = 1200.0 if slow is ours else 1.0
            told = {"at": end - took_s, "total_s": took_s, "odds": 0.4}
            rows.append((number, exchange(number, "trial" if ours else "control", value, **told)))
        return [one.log_e for one in folded(rows).findings()]

    assert evidence(True) == evidence(False) == evidence(None)


def test_a_canary_that_went_back_and_comes_again_begins_from_nothing_though_nothing_came_between():
    fold = folded(traffic(200, trial=0.5, draw="d1"))
    for number, revision in ((201, 3), (202, 4)):  # a ramp, a hold
        fold.add(number, exchange(number, "trial", 1.0, draw="d1", revision=revision, odds=0.3, share=0.3))
    before = counts(fold)
    assert before[1] > 10
    fold.add(203, exchange(203, "control", 0.0, draw="d2", revision=6))
    assert counts(fold) == (0, 0, 0, 1)
    fold.add(204, exchange(204, "trial", 1.0, draw="d1", revision=4))
    assert fold.uncounted.strangers == 1, "an answer of before that ended after"
    fold.add(205, exchange(205, "trial", 1.0, draw="d2", revision=6))
    assert counts(fold) == (1, 1, 0, 1)
    assert restarted(fold, []).state() == fold.state()


def test_exchanges_of_before_an_upgrade_tell_no_draw_and_the_trial_goes_on():
    fold = folded(traffic(200, trial=0.5))
    _, units, _, control = counts(fold)
    fold.add(201, exchange(201, "trial", 0.0, draw="d1", revision=3))
    fold.add(202, exchange(202, "control", 0.0, revision=3))
    assert (counts(fold)[1], counts(fold)[3]) == (units + 1, control + 1)


def test_a_promotion_from_a_canary_keeps_its_draw_and_a_canary_after_it_is_another_trial():
    fold = folded(traffic(100, draw="d1"))
    fold.add(101, exchange(101, "trial", 0.0, draw="d1", revision=3, cohort="stable", odds=0.98, share=0.0))
    assert fold.standing is not None
    assert fold.standing.held
    fold.add(102, exchange(102, "control", 1.0, draw="d1", revision=4, cohort="holdback", odds=0.98, share=0.0))
    assert counts(fold) == (0, 1, 1, 1)
    fold.add(103, exchange(103, "trial", 0.0, revision=6, cohort="canary"))
    assert (counts(fold), fold.standing.held) == ((0, 1, 0, 0), False)


def test_a_replica_without_the_canary_ends_no_draw_however_often_the_release_moves():
    fold = folded(traffic(200, trial=0.3, draw="d1"))
    units = counts(fold)[1]
    fold.add(201, exchange(201, "control", drawn="", odds=0.0, share=0.0, against="", revision=3))
    fold.add(202, exchange(202, "trial", 0.0, revision=4, draw="d1"))
    assert counts(fold)[1] == units + 1


def test_a_signal_that_is_new_has_proven_nothing_by_what_it_did_not_see():
    fold = folded(traffic(3000, trial=0.001, control=0.001, odds=0.5))
    made = Fold.of(fold.state(), CONFIG, "t", (BAD, CALLS))
    found = [one for one in made.findings() if one.signal == "calls"]
    assert all(one.log_better == 0.0 < one.log_better_threshold for one in found)
    assert Fold.of(made.state(), CONFIG, "t", (BAD, CALLS)).findings() == made.findings()


def test_a_bound_of_what_is_no_event_is_refused():
    with pytest.raises(UsageError, match=r"bounds: 'slow' is no event that is counted here; choose from bad"):
        Fold(WatchConfig(bounds={"slow": 0.1}), "t", (BAD, SLOW))
