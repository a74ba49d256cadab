"""One signal's evidence: its share of the error rate, its thresholds, and what it says to people."""

from __future__ import annotations

import math
import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.trials import BAD, CALLS, CONFIG, GRADE, PAIR, SLOW, exchange

from quantgate.errors import UnknownName, UsageError
from quantgate.stats import attribution, exceedance
from quantgate.watch.counts import Events, Grades, Levels
from quantgate.watch.explaining import finding
from quantgate.watch.processes import LEAP, SHARES, Process, alive, rules
from quantgate.watch.proving import Sizes
from quantgate.watch.scales import ELSE, MOST, STRATA, Scale, Scales, bucket, middle
from quantgate.watch.signals import Signal, names, of_mark
from quantgate.watch_config import SignalConfig, WatchConfig

NAMES = ("W3A16", "BF16")
SEEN = Sizes(10_920, 1204)


def process(signal: Signal, config: WatchConfig = CONFIG) -> Process:
    return Process(rules(config, (signal,))[0])


def told(one: Process, config: WatchConfig = CONFIG, seen: Sizes = SEEN) -> str:
    return finding(one, config, NAMES, 1.25, seen).sentence


def counted(one: Process, trial: tuple[int, int], control: tuple[int, int], odds: float = 0.1) -> Process:
    """(bad, units) of both sides."""
    for ours, (bad, units) in ((True, trial), (False, control)):
        for at in range(units):
            one.unit(ours)
            if at < bad:
                one.bad(ours, odds, f"r{at}")
    return one


def test_the_weights_of_all_that_is_on_sum_to_one_and_so_do_the_chances_of_an_error():
    found = rules(CONFIG)
    assert {one.signal.name for one in found} == set(names())
    assert math.fsum(one.weight for one in found) == pytest.approx(1.0)
    assert math.fsum(math.exp(-one.log_threshold) for one in found) == pytest.approx(CONFIG.alpha)


def test_the_configuration_goes_before_what_a_signal_says():
    config = WatchConfig(signals={"bad": SignalConfig(weight=3.0, margin=2.0, floor=0.1, promotes=False)})
    bad, calls, _ = rules(config, (BAD, CALLS))
    assert (bad.weight, bad.margin, bad.floor, bad.promotes) == (0.75, 2.0, 0.1, False)
    assert (calls.weight, calls.margin, calls.floor, calls.promotes) == (0.125, 1.25, 0.005, True)


def test_a_signal_that_nobody_has_and_no_signal_at_all_are_refused():
    with pytest.raises(UnknownName, match="ttft"):
        rules(WatchConfig(signals={"tfft": SignalConfig(off=True)}))
    with pytest.raises(UsageError, match="0 signals are on"):
        rules(WatchConfig(signals={"bad": SignalConfig(off=True)}), (BAD,))


def test_a_sentence_says_what_how_often_how_sure():
    one = counted(process(BAD), (41, 1204), (96, 10_920))
    assert re.fullmatch(
        r"answers that broke: 41 of 1,204 sessions of W3A16 against 96 of 10,920 of BF16: 3.8 times as often "
        r"\((1\.\d|2|2\.\d) to [67]\.\d times, 98 %\); evidence \d\.\de\+0\d against the 1e\+02 needed",
        told(one),
    )
    assert told(process(BAD)) == "answers that broke: does not apply here: none of 12,124 sessions"


def test_an_interval_agrees_with_a_verdict_at_the_same_evidence():
    one = process(BAD)
    for at in range(60):
        one.unit(True)
        one.bad(True, 0.3, "r")
        if at % 3 == 0:
            one.bad(False, 0.3, "r")
        found = finding(one, CONFIG, NAMES, 1.25, SEEN)
        assert (found.log_e >= found.log_threshold) is (found.low is not None and found.low >= 1.0)


def test_quantities_grades_and_pairs_have_words_of_their_own():
    slow = process(SLOW)
    for at in range(600):
        slow.value(at % 2 == 0, 0.5, 1.0 + at % 20 + 10 * (at % 2 == 0 and at > 450), "", "r")
    assert "beyond the control's 95 % in" in told(slow)
    assert "at its most telling quantile" in told(slow)
    grade = process(GRADE)
    for at in range(300):
        grade.value(at % 2 == 0, 0.5, 0.75 if at % 2 == 0 else 0.5, "", "r")
    assert told(grade).startswith(
        "how far off: 0.75 on average of 150 sessions of W3A16 against 0.5 of 150 of BF16: a difference of +0.25 (+"
    )
    pair = process(PAIR)
    for at in range(40):
        pair.pair(at % 4 > 0, "r")
    assert told(pair).startswith(
        "prompts that the shadow answered worse: of 40 prompts answered differently, W3A16's was worse in 30: "
        "3 times as often"
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from([0.1, 0.5])), max_size=60))
def test_copies_of_evidence_count_what_came_after_their_start(told):
    one = process(BAD)
    one.begin(renewed=True)
    events: list[tuple[bool, float, int]] = []
    start = 0
    for ours, more, odds in told:
        for _ in range(more):
            start += 1
            one.copy(start)
        one.bad(ours, odds, "r")
        events.append((ours, odds, start))
    assert one.starts == [at for at in range(start + 1) if alive(at, start)]
    by_hand = math.fsum(SHARES[start + 1 :])  # those to come
    for at, evidence in zip(one.starts, one.since(), strict=True):
        counts = Events("more")
        for ours, odds, when in events:
            if when >= at:
                counts.add(odds, ours)
        assert sorted(evidence.state()) == sorted(counts.state())
        by_hand += SHARES[at] * math.exp(attribution.log_worse(counts.counts))
    assert one.log_e(1.0) == pytest.approx(math.log(by_hand))


@pytest.mark.parametrize("now", [1, 2, 3, 64, 100, 511, 512, 719])
def test_ages_of_copies_double_and_there_are_few(now):
    ages = [now - start for start in range(now + 1) if alive(start, now)]
    assert ages[-1] == 0
    assert len(ages) <= 2 + math.log2(now + 1)
    assert all(older <= 4 * newer + 2 for older, newer in pairwise(ages[1:]))


def test_examples_are_the_newest_of_the_trial():
    one = counted(process(BAD), (9, 9), (9, 9))
    assert list(one.examples) == ["r4", "r5", "r6", "r7", "r8"]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.05, 0.5, 0.98]), st.floats(0, 1)), max_size=60))
def test_a_crossing_is_never_overlooked_though_it_is_not_always_computed(told):
    """Also of a mixture over copies, which every further event raises by LEAP at most."""
    for signal in (BAD, GRADE, SLOW):
        one = process(signal, WatchConfig(alpha=0.3))
        one.begin(renewed=True)
        if one.scales is not None:
            for at in range(200):
                one.scales.of("").learn(at / 200.0)
        before = 0.0
        for at, (ours, odds, value) in enumerate(told):
            if signal is BAD:
                one.bad(ours, odds, "r")
            else:
                one.value(ours, odds, value, "", "r")
            if at % 10 == 9:
                one.copy(1 + at // 10)
            assert one.log_e(1.0) <= before + LEAP + 1e-9
            before = one.log_e(1.0)
            assert one.crossed(1.0) is (before >= one.rule.log_threshold)


def test_a_rare_event_is_no_reason_to_wait_for_and_a_common_one_is():
    config = WatchConfig()
    rare = finding(counted(process(BAD), (0, 3000), (1, 3000)), config, NAMES, 1.25, Sizes(3000, 3000))
    assert rare.log_better >= rare.log_better_threshold == pytest.approx(math.log(20))
    common = finding(counted(process(BAD), (300, 3000), (300, 3000), 0.5), config, NAMES, 1.1, Sizes(3000, 3000))
    assert common.log_better < common.log_better_threshold


def test_what_hardly_any_session_has_is_not_waited_for():
    slow = process(SLOW)
    for at in range(40):
        slow.value(at % 2 == 0, 0.5, 1.0, "", "r")
    assert finding(slow, CONFIG, NAMES, 1.25, Sizes(1000, 1000)).log_better_threshold == 0.0
    assert finding(slow, CONFIG, NAMES, 1.25, Sizes(100, 100)).log_better_threshold > 0.0


def test_limits_of_a_moment_ago_serve_until_there_are_more_events():
    one = counted(process(BAD), (50, 50), (50, 50))
    before = one.limits(0, 0.01)
    one.bad(True, 0.1, "r")
    assert one.limits(0, 0.01, lately=True) == before
    exact = one.limits(0, 0.01)
    assert exact != before
    assert one.limits(0, 0.01, lately=True) == exact


def test_thresholds_are_those_of_the_control_and_move_at_counts_alone():
    chance = random.Random(1)
    values = [chance.lognormvariate(0, 1) for _ in range(2 * MOST)]
    scale = Scale("more")
    moments = []
    for at, value in enumerate(values, 1):
        before = scale.thresholds
        scale.learn(value)
        if scale.thresholds != before:
            moments.append(at)
    assert moments == [200, 400, 800, 1600, 3200, 6400, 12_800]
    exact = exceedance.frozen(values[MOST:])
    assert exact is not None
    assert scale.thresholds is not None
    assert scale.thresholds == pytest.approx(exact, rel=0.011)
    assert Scale.of("more", scale.state()).state() == scale.state()


@given(st.floats(-1e9, 1e9))
def test_a_bucket_s_middle_is_within_a_hundredth(value):
    if abs(value) > 1e-6:
        assert middle(bucket(value)) == pytest.approx(value, rel=0.0101)


def test_strata_are_bounded():
    scales = Scales("more")
    made = {id(scales.of(str(at))) for at in range(STRATA + 50)}
    assert len(made) == STRATA + 1
    assert scales.of("new") is scales.of(ELSE)


def test_margins_of_grades_are_differences():
    grades = Grades("more", [[0.5, 32, 1000, 1000]])
    assert grades.log_better(1.25) == Grades("less", [[0.5, 32, 1000, 1000]]).log_better(1.25)
    assert grades.log_better(2.0) > grades.log_better(1.5) > 0.0
    assert grades.estimate() == 0.0


@pytest.mark.parametrize(
    ("kind", "rows"),
    [(Events, [[0.1, 5, 2]]), (Grades, [[0.1, 3, 4, 5]]), (Levels, [[[0.1, 5, 2]], [], [], [], []])],
)
def test_sums_of_counts_are_counts(kind, rows):
    one = kind("more", rows)
    assert one.plus(kind("more", rows)).state() == kind("more", one.plus(one).state()).state()
    assert one.state() == kind("more", rows).state()
    assert one.plus(one).events() == 2 * one.events()


def test_a_mark_that_is_missing_reads_as_none():
    assert of_mark("bad")(exchange(1, bad=None), ()) is None
