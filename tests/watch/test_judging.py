"""Roll back, hold or promote: what each rests on, and what never becomes a verdict."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.watch.trials import (
    ALL,
    BAD,
    BASE,
    CONFIG,
    GOOD,
    OTHER,
    PAIR,
    SLOW,
    START,
    exchange,
    folded,
    live,
    traffic,
    variant,
)

from quantgate.release import Live
from quantgate.serve import Exchange
from quantgate.watch import Verdict
from quantgate.watch.explaining import lasting
from quantgate.watch.fold import Fold
from quantgate.watch.judging import judge
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch_config import SignalConfig, StepConfig, WatchConfig

QUICK = WatchConfig(steps=(StepConfig(share=0.1, margin=2.0, least=50, stay=300.0), StepConfig(share=0.5, margin=1.5)))


def judged(fold: Fold, now: Live | None, config: WatchConfig = CONFIG, behind_s: float = 0.0) -> Verdict:
    found = judge(fold, live=now, config=config, now=START, behind_s=behind_s)
    assert found is not None
    json.dumps(found.body(), allow_nan=False)
    assert found.because
    return found


@pytest.fixture(scope="module")
def broken() -> Fold:
    """Of a variant that is ten times worse."""
    return folded(traffic(1500, trial=0.3, control=0.03))


@pytest.fixture(scope="module")
def sound() -> Fold:
    return folded(traffic(8000, trial=0.001, control=0.001, odds=0.5))


def test_a_variant_that_is_worse_goes_back_and_it_is_said_why(broken):
    found = judged(broken, live())
    assert (found.action, found.signal, found.next_share) == ("rollback", "bad", None)
    assert found.because.startswith("W4A16: answers that broke: ")
    assert "times as often" in found.because
    first = found.findings[0]
    assert first.log_e >= first.log_threshold
    assert first.low is not None
    assert first.low > 1.0
    assert len(first.examples) == 5
    assert (found.number, found.at, found.revision, found.share) == (1500, START + 1500, 2, 0.1)
    assert found.log_e == pytest.approx(first.log_e)


def test_it_is_the_same_without_a_registry(broken):
    found = judged(broken, None)
    assert (found.action, found.share, found.revision) == ("rollback", 0.1, 2)


def test_a_variant_that_is_no_worse_is_held_until_all_is_proven(sound):
    found = judged(folded(traffic(100, control=0.2, trial=0.2)), live(), QUICK)
    assert found.action == "hold"
    assert any("more sessions of W4A16" in one for one in found.missing)
    assert any(one.startswith("time at 10 %: 3 minutes more of 5 minutes") for one in found.missing)
    assert any("less than 2 times as bad is not shown yet" in one for one in found.missing)
    assert "for 50 %" in found.because


def test_and_promoted_when_it_is(sound):
    found = judged(sound, live(), QUICK)
    assert (found.action, found.next_share, found.missing) == ("promote", 0.5, ())
    assert "from 10 % to 50 % of sessions" in found.because


def test_a_bad_signal_that_does_not_promote_is_not_waited_for():
    fold = folded(traffic(1000, trial=0.3, control=0.3))
    asked = QUICK.model_copy(update={"signals": {"bad": SignalConfig(promotes=False)}})
    other = folded(traffic(1000, trial=0.3, control=0.3), (BAD,), asked)
    assert judged(fold, live(), QUICK).action == "hold"
    assert judged(other, live(), asked).action == "promote"


@pytest.mark.parametrize(
    ("told", "behind_s", "why"),
    [
        ({"frozen": True}, 0.0, "held by a person"),
        ({}, 60.0, "a minute behind"),
        ({"revision": 1}, 0.0, "an exchange of release 1; the newest is of 2"),
    ],
)
def test_what_stops_a_promotion_and_no_rollback(sound, broken, told, behind_s, why):
    held = judged(sound, live(**told), QUICK, behind_s)
    assert held.action == "hold"
    assert any(why in one for one in held.missing), held.missing
    assert judged(broken, live(**told), QUICK, behind_s).action == "rollback"


@pytest.mark.parametrize(
    ("told", "behind_s", "why"),
    [
        ({"revision": 3}, 0.0, "release 3 is newer than what was counted"),
        ({}, 900.0, "15 minutes behind the newest"),
        ({"canary": None}, 0.0, "W4A16 is not live any more"),
        ({"canary": variant(OTHER)}, 0.0, "no session of W3A16 was counted yet"),
    ],
)
def test_what_stops_every_verdict(sound, broken, told, behind_s, why):
    for fold in (sound, broken):
        found = judged(fold, live(**told), QUICK, behind_s)
        assert found.action == "hold"
        assert why in found.because


def only(side: str, n: int = 400, bad: float = 1.0, **told) -> Fold:
    return folded([(number, exchange(number, side, bad, **told)) for number in range(1, n)])


def test_one_side_without_traffic_is_never_a_verdict():
    """Every session of the trial is bad, and none of the control's arrived: the evidence alone would have gone wild."""
    found = judged(only("trial"), live())
    assert found.action == "hold"
    assert found.because.startswith("no session of BF16 was counted yet")
    assert judged(only("control"), live()).because == "no session of W4A16 was counted yet"


def test_a_control_whose_exchanges_stop_arriving_is_never_a_verdict():
    rows = traffic(400) + [(number, exchange(number, "trial", 1.0)) for number in range(401, 440)]
    found = judged(folded(rows), live())
    assert found.findings[0].log_e > found.findings[0].log_threshold
    assert found.action == "hold"
    assert found.because.startswith(("BF16 has had none of the last", "sessions do not arrive as they were drawn"))
    assert "otherwise it would go back" in found.because


def test_sessions_that_do_not_arrive_as_drawn_are_never_a_verdict():
    """Half of the control's are lost, here and there."""
    rows = [(n, one) for n, one in traffic(3000, trial=0.2, control=0.2) if one.side == "trial" or n % 4 == 0]
    found = judged(folded(rows), live())
    assert found.action == "hold"
    assert "sessions do not arrive as they were drawn" in found.because
    assert "exchanges of BF16 are missing" in found.because


def test_a_trial_that_gets_no_sessions_any_more_goes_no_further():
    rows = traffic(4000, trial=0.001, control=0.001)
    rows += [(number, exchange(number, "control")) for number in range(4001, 4300)]
    found = judged(folded(rows), live(), QUICK)
    assert found.action == "hold"
    assert "W4A16 has had none of the last" in found.because


def test_a_release_whose_gateways_do_not_have_the_trial_up_is_told():
    fold = folded(traffic(300, trial=0.5))
    fold.add(301, exchange(301, "control", drawn="", odds=0.0, share=0.0, against="", revision=3))
    assert "release 3 gives W4A16 no sessions; is it up?" in judged(fold, live(revision=3)).because


def test_nothing_on_trial_is_no_verdict():
    assert judge(Fold(CONFIG, "t", (BAD,)), live=live(canary=None), config=CONFIG, now=START) is None
    assert judge(Fold(CONFIG, "t", (BAD,)), live=None, config=CONFIG, now=START) is None
    assert judged(Fold(CONFIG, "t", (BAD,)), live()).because == "no session of W4A16 was counted yet"


def hostile(number: int) -> Exchange:
    chance = random.Random(number)
    values = [1e300, -1e300, 0.0, 1e-300, 1.0, 0.5]
    marks = {name: chance.choice(values) for name in ("slow", "grade", "calls", "length", "pair")}
    side = "trial" if chance.random() < 0.1 else "control"
    at = START + chance.choice([0.0, 1e6, -1e6, 1e12, -START, float(number)])
    return exchange(number, side, chance.choice(values), marks=marks, at=at)


def test_hostile_exchanges_give_no_verdict_by_themselves():
    fold = folded(((number, hostile(number)) for number in range(1, 1000)), ALL)
    assert judged(fold, live()).action == "hold"


def test_what_is_promoted_is_watched_and_goes_no_further():
    told = {"canary": None, "stable": variant(GOOD), "holdback": 0.5, "share": 0.0, "revision": 5}
    rows = [
        (n, one.model_copy(update={"cohort": "stable" if one.side == "trial" else "holdback", "revision": 5}))
        for n, one in traffic(600, odds=0.5)
    ]
    found = judged(folded(rows), live(**told))
    assert (found.action, found.share, found.missing) == ("hold", 0.5, ())
    worse = [(n, one.model_copy(update={"marks": {"bad": float(one.side == "trial")}})) for n, one in rows]
    assert judged(folded(worse), live(**told)).action == "rollback"


def test_without_a_holdback_nothing_is_compared_and_it_is_said_how_to_change_that(sound):
    told = {"canary": None, "stable": variant(GOOD), "share": 0.0, "revision": 3}
    found = judged(sound, live(**told))
    assert found.action == "hold"
    assert found.because == (
        "nothing is compared: W4A16 has all sessions; keep a holdback, with: quantgate promote t W4A16 --holdback 2%; "
        "or state in serve.yaml what it may do, such as watch: {bounds: {validation_failure: 2%}}"
    )


def test_without_a_holdback_the_rate_that_was_stated_is_what_counts():
    told = {"canary": None, "stable": variant(GOOD), "share": 0.0, "revision": 3}
    config = WatchConfig.model_validate({"bounds": {"bad": "2%"}})

    def after(rate: int) -> Verdict:
        fold = Fold(config, "t", (BAD,))
        for number in range(1, 400):
            bad = float(number % 100 < rate)
            fold.add(
                number, exchange(number, "trial", bad, drawn="", odds=0.0, against="", cohort="stable", revision=3)
            )
        assert Fold.of(fold.state(), config, "t", (BAD,)).state() == fold.state()
        return judged(fold, live(**told), config)

    calm = after(2)
    assert calm.action == "hold"
    assert calm.because == (
        "nothing is compared but what watch.bounds states: answers that broke in 7 of 399 sessions (2 % allowed); "
        "better keep a holdback, with: quantgate promote t W4A16 --holdback 2%"
    )
    worse = after(20)
    assert worse.action == "rollback"
    assert "W4A16: answers that broke in 79 of 399 sessions, where watch.bounds allows 2 %; evidence" in worse.because


def copies(n: int, worse: int) -> Fold:
    """Of each 10 that differ, ``worse`` are worse; one in ten differs."""
    told: dict[str, Any] = {"drawn": "", "shadow": True, "cohort": "pinned", "share": 0.0}
    marks = [{"pair": float(at // 10 % 10 < worse)} if at % 10 == 0 else {} for at in range(n)]
    return folded(
        [(at + 1, exchange(at + 1, bad=None, marks=mark, **told)) for at, mark in enumerate(marks)], (BAD, PAIR)
    )


def test_copies_alone_earn_the_first_share_and_take_nothing_back():
    nobody = live(canary=None, share=0.0)
    good = judged(copies(3000, worse=5), nobody)
    assert (good.action, good.share, good.next_share) == ("promote", 0.0, 0.01)
    assert good.trial.variant == GOOD[0]
    bad = judged(copies(3000, worse=9), nobody)
    assert bad.action == "hold"
    assert "answers copies only, and does worse" in bad.because
    few = judged(copies(100, worse=5), nobody)
    assert few.action == "hold"
    assert "100 more copies (100 of 200)" in few.missing


def test_a_signal_that_fails_often_stops_a_promotion():
    def read(_one, _before):
        raise ValueError

    raising = Signal("raising", "fails", "event", read, promotes=False)
    odd = Signal("odd", "gives what no event is", "event", lambda _one, _before: 7.0, promotes=False)
    marked = Signal("marked", "failed at the gateway", "event", of_mark("marked"))
    rows = [
        (number, one.model_copy(update={"unread": ("marked",)}))
        for number, one in traffic(4000, trial=0.004, control=0.004)
    ]
    found = judged(folded(rows, (BAD, raising, odd, marked)), live(), QUICK)
    assert found.action == "hold"
    failed = [one for one in found.missing if "which failed on" in one]
    assert failed == [
        f"the signal {name}, which failed on 4,000 exchanges; mend it, or set 'off: true'"
        for name in ("marked", "odd", "raising")
    ]


def test_a_guess_says_how_long_it_takes():
    rows = [(n, exchange(n, "control" if n % 10 else "trial", float(n < 26 and n % 10 > 0))) for n in range(1, 1200)]
    found = judged(folded(rows), live(), QUICK)
    (told,) = [one for one in found.missing if "at this rate" in one]
    first = found.findings[0]
    assert 0.1 < first.log_better < first.log_better_threshold
    left_s = 1198 * (first.log_better_threshold / first.log_better - 1.0)
    assert told.endswith(f"about {lasting(left_s)} at this rate")


def test_the_ratio_that_is_allowed_is_no_reason_to_go_back():
    rows = traffic(3000, trial=0.2, control=0.1, odds=0.5)
    allowed = WatchConfig(ratio=2.5)
    assert judged(folded(rows, (BAD,), allowed), live(), allowed).action == "hold"
    assert judged(folded(rows), live()).action == "rollback"


def test_the_control_may_be_a_stable_variant_and_is_named_so():
    rows = [(n, exchange(n, "trial" if n % 2 else "control", pair=(OTHER, GOOD), odds=0.5)) for n in range(1, 50)]
    found = judged(folded(rows), live(canary=variant(OTHER), stable=variant(GOOD)))
    assert (found.trial.variant, found.trial.control, found.trial.control_is_baseline) == ("W3A16", "W4A16", False)
    assert BASE[0] not in found.because


NEVER = Signal("never", "answers that broke their tools", "event", of_mark("never"))


def test_a_signal_that_no_session_has_holds_nothing_up_and_is_named():
    rows = traffic(8000, trial=0.001, control=0.001, odds=0.5)
    found = judged(folded(rows, (BAD, NEVER, SLOW), QUICK), live(), QUICK)
    assert (found.action, found.next_share) == ("promote", 0.5)
    assert found.not_here == (
        "never does not apply here: none of 8,000 sessions",
        "slow does not apply here: none of 8,000 sessions",
    )
    assert found.because.endswith("; not asked for: " + "; ".join(found.not_here))


def test_before_enough_sessions_came_a_signal_is_not_said_to_be_absent_nor_proven():
    found = judged(folded(traffic(300, odds=0.5), (BAD, NEVER), QUICK), live(), QUICK)
    assert found.not_here == ()
    assert any("answers that broke their tools: less than 1.5 times as bad" in one for one in found.missing)


@pytest.mark.parametrize("side", ["trial", "control"])
def test_a_signal_that_one_side_alone_lacks_is_no_proof_and_it_is_said(side):
    rows = [
        (n, one if one.side == side else one.model_copy(update={"marks": one.marks | {"never": 0.0}}))
        for n, one in traffic(8000, trial=0.001, control=0.001, odds=0.5)
    ]
    found = judged(folded(rows, (BAD, NEVER), QUICK), live(), QUICK)
    assert (found.action, found.not_here) == ("hold", ())
    (told,) = found.missing
    assert told.startswith("answers that broke their tools: read from ")
    assert told.endswith("of BF16, so they cannot be compared; look why")


def test_pairs_are_not_waited_for_once_there_are_sessions():
    fold = folded(traffic(8000, trial=0.001, control=0.001, odds=0.5), (BAD, PAIR), QUICK)
    for number in range(8001, 8101):
        marks = {"pair": float(number % 2)}
        fold.add(number, exchange(number, drawn="", shadow=True, cohort="pinned", share=0.0, marks=marks))
    assert judged(fold, live(), QUICK).action == "promote"


def test_where_no_signal_can_be_read_nothing_is_proven():
    rows = [(n, one.model_copy(update={"marks": {}})) for n, one in traffic(8000, odds=0.5)]
    found = judged(folded(rows, (BAD, NEVER), QUICK), live(), QUICK)
    assert found.action == "hold"
    assert found.missing == (
        "a signal that can be read: hardly any session has one, so nothing is proven; are marks dropped?",
    )
