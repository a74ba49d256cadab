"""Every sentence that evidence can be told in, whole."""

from __future__ import annotations

from typing import Any

import pytest
from tests.watch.trials import BAD, CALLS, CONFIG, EACH, GRADE, PAIR, SLOW

from quantgate.watch import Finding, Tally
from quantgate.watch.explaining import finding, sentence
from quantgate.watch.processes import Process, rules
from quantgate.watch.proving import Sizes
from quantgate.watch.signals import Signal

SOME = (Tally(units=1204, bad=41), Tally(units=10920, bad=96))
NONE = (Tally(units=32, bad=8), Tally(units=164, bad=0))
NEVER = (Tally(units=100, bad=0), Tally(units=100, bad=9))
ONE = (Tally(units=1, bad=1), Tally(units=1, bad=0))
NOTHING = (Tally(), Tally())
MEANS = (Tally(units=150, total=112.5), Tally(units=150, total=75.0))
NO_MEAN = (Tally(), Tally(units=2, total=1.0))
PAIRS = (Tally(units=40, bad=30), Tally(units=40, bad=10))
BROKE = "answers that broke: "
COUNTS = "41 of 1,204 sessions of W3A16 against 96 of 10,920 of BF16"
END = "; evidence 1.5e+02 against the 1e+02 needed"


def told(signal: Signal, tallies: tuple[Tally, Tally], direction: Any = "more", **limits: Any) -> str:
    rule = next(one for one in rules(CONFIG, (signal,)) if one.direction == direction)
    found = Finding(
        signal=signal.name,
        direction=direction,
        trial=tallies[0],
        control=tallies[1],
        log_e=5.0,
        log_threshold=4.605,
        weight=rule.weight,
        **limits,
    )
    return sentence(rule, found, ("W3A16", "BF16"), 0.99)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, ""),
        ({"ratio": 3.91, "low": 2.13, "high": 6.88}, ": 3.9 times as often (2.1 to 6.9 times, 99 %)"),
        ({"ratio": 3.91, "low": 2.13}, ": 3.9 times as often (at least 2.1 times, 99 %)"),
        ({"ratio": 3.91, "high": 6.88}, ": 3.9 times as often (at most 6.9 times, 99 %)"),
        ({"ratio": 3.91}, ": 3.9 times as often"),
        ({"ratio": 1.7, "low": 1.0204}, ": 1.7 times as often (at least 1.02 times, 99 %)"),
        ({"ratio": 1.7, "low": 1.0001}, ": 1.7 times as often (more often, 99 %)"),
        ({"ratio": 1.25, "low": 0.997, "high": 1.5}, ": 1.25 times as often (0.997 to 1.5 times, 99 %)"),
        ({"ratio": 1.0, "low": 0.8, "high": 1.25}, ": as often (0.8 to 1.25 times, 99 %)"),
        ({"ratio": 0.53, "low": 0.0, "high": 0.9}, ": 0.53 times as often (at most 0.9 times, 99 %)"),
        ({"ratio": 0.53, "low": 0.0}, ": 0.53 times as often"),
        ({"ratio": 41.4, "low": 12.0, "high": 3000.0}, ": 41 times as often (12 to 3,000 times, 99 %)"),
        ({"ratio": 1e9}, ": 1e+09 times as often"),
    ],
)
def test_how_many_times_as_often(limits, words):
    assert told(BAD, SOME, **limits) == BROKE + COUNTS + words + END


@pytest.mark.parametrize(
    ("signal", "tallies", "direction", "limits", "whole"),
    [
        (BAD, NOTHING, "more", {}, BROKE + "nothing to compare yet"),
        (
            BAD,
            NONE,
            "more",
            {"low": 1.43},
            BROKE + "8 of 32 sessions of W3A16 against 0 of 164 of BF16: at least 1.43 times as often (99 %)" + END,
        ),
        (
            BAD,
            NONE,
            "more",
            {"low": 1.001},
            BROKE + "8 of 32 sessions of W3A16 against 0 of 164 of BF16: more often (99 %)" + END,
        ),
        (
            BAD,
            NONE,
            "more",
            {"low": 0.0},
            BROKE + "8 of 32 sessions of W3A16 against 0 of 164 of BF16" + END,
        ),
        (
            BAD,
            NEVER,
            "more",
            {"ratio": 0.0, "high": 0.93},
            BROKE + "0 of 100 sessions of W3A16 against 9 of 100 of BF16: never (at most 0.93 times, 99 %)" + END,
        ),
        (BAD, ONE, "more", {}, BROKE + "1 of 1 session of W3A16 against 0 of 1 of BF16" + END),
        (
            EACH,
            SOME,
            "more",
            {},
            "requests that broke: 41 of 1,204 requests of W3A16 against 96 of 10,920 of BF16" + END,
        ),
        (
            CALLS,
            SOME,
            "less",
            {"ratio": 0.5, "high": 0.8},
            f"answers that call a tool (too few): {COUNTS}: 0.5 times as often (at most 0.8 times, 99 %)" + END,
        ),
        (
            SLOW,
            SOME,
            "more",
            {"ratio": 2.0, "low": 1.5},
            f"time to answer: beyond the control's 95 % in {COUNTS}: 2 times as often at its most telling quantile "
            "(at least 1.5 times, 99 %)" + END,
        ),
        (
            SLOW,
            NONE,
            "more",
            {"low": 1.5},
            "time to answer: beyond the control's 95 % in 8 of 32 sessions of W3A16 against 0 of 164 of BF16: at least "
            "1.5 times as often at its most telling quantile (99 %)" + END,
        ),
        (
            GRADE,
            MEANS,
            "more",
            {"ratio": 0.25, "low": 0.19, "high": 0.31},
            "how far off: 0.75 on average of 150 sessions of W3A16 against 0.5 of 150 of BF16: a difference of +0.25 "
            "(+0.19 to +0.31, 99 %)" + END,
        ),
        (
            GRADE,
            MEANS,
            "more",
            {"ratio": 0.25, "low": 0.19},
            "how far off: 0.75 on average of 150 sessions of W3A16 against 0.5 of 150 of BF16: a difference of +0.25 "
            "(at least +0.19, 99 %)" + END,
        ),
        (
            GRADE,
            NO_MEAN,
            "more",
            {},
            "how far off: nothing on average of 0 sessions of W3A16 against 0.5 of 2 of BF16" + END,
        ),
        (
            PAIR,
            PAIRS,
            "more",
            {"ratio": 3.0, "low": 1.2, "high": 8.0},
            "prompts that the shadow answered worse: of 40 prompts answered differently, W3A16's was worse in 30: "
            "3 times as often (1.2 to 8 times, 99 %)" + END,
        ),
        (PAIR, NOTHING, "more", {}, "prompts that the shadow answered worse: nothing to compare yet"),
    ],
)
def test_whole_sentences(signal, tallies, direction, limits, whole):
    assert told(signal, tallies, direction, **limits) == whole


def test_what_no_session_of_either_side_has_is_said_to_be_absent():
    (rule,) = rules(CONFIG, (BAD,))
    empty = finding(Process(rule), CONFIG, ("W3A16", "BF16"), 1.25, Sizes(300, 100))
    assert empty.sentence == "answers that broke: does not apply here: none of 400 sessions"
    assert empty.log_better_threshold == 0.0
    early = finding(Process(rule), CONFIG, ("W3A16", "BF16"), 1.25, Sizes(299, 100))
    assert early.sentence == "answers that broke: nothing to compare yet"
    assert early.log_better == 0.0 < early.log_better_threshold
