"""Error rates and delays by simulation, seeded and small; ``python -m benchmarks watch`` is the large one.

The simulation computes e-values for many runs at once; the first tests hold it to what ``quantgate.stats`` says.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import _watch_evidence as evidence
from benchmarks import _watch_long as long
from benchmarks import _watch_peers as peers
from benchmarks import _watch_ramp as ramps
from benchmarks import _watch_traffic as traffic
from quantgate.stats import attribution, exceedance, rates
from quantgate.stats.attribution import Counts
from quantgate.stats.detectors import Detector
from quantgate.stats.renewal import log_mix, weights

BAR = math.log(100)


def counted(bad: traffic.Array, trial: traffic.Array, odds: traffic.Array) -> Counts:
    """Of one run, minute by minute."""
    counts: Counts = {}
    for n, ours, known in zip(bad, trial, odds, strict=True):
        row = counts.setdefault(float(known), [0, 0])
        row[0] += int(n)
        row[1] += int(ours)
    return counts


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("odds", [traffic.steady(minutes=60), traffic.ramp(60)], ids=["steady", "ramp"])
def test_simulated_evidence_of_events_is_that_of_stats(odds: traffic.Array) -> None:
    seen = traffic.events(rng(1), 4, ratio=1.7, odds=odds)
    for run in range(4):
        for until in (1, 17, 60):
            counts = counted(seen.bad[run, :until], seen.trial_bad[run, :until], odds[:until])
            for ratio in (1.0, 1.25):
                found = evidence.worse(seen, ratio)[run, until - 1]
                assert found == pytest.approx(attribution.log_worse(counts, ratio), abs=1e-9)
            found = evidence.better(seen, 2.0)[run, until - 1]
            assert found == pytest.approx(attribution.log_better(counts, 2.0), abs=1e-9)


@pytest.mark.parametrize("odds", [traffic.steady(minutes=20), traffic.ramp(20)], ids=["steady", "ramp"])
def test_simulated_evidence_of_quantities_is_that_of_stats(odds: traffic.Array) -> None:
    beyond, ours = traffic.delays(rng(2), 3, slower=1.1, odds=odds)
    logs = evidence.slower(beyond, ours, odds)
    for run in range(3):
        for until in (1, 8, 20):
            levels = [
                counted(beyond[run, :until, level], ours[run, :until, level], odds[:until])
                for level in range(len(exceedance.LEVELS))
            ]
            assert logs[run, until - 1] == pytest.approx(exceedance.log_worse(levels), abs=1e-9)


def test_simulated_floors_and_detectors_are_those_of_stats() -> None:
    bad, units = np.array([[0.0, 2.0, 9.0]]), np.array([[1000.0]])
    for enough in (1.0, 3.0):
        expected = [[rates.log_below(int(one), 1000, ramps.FLOOR) >= enough for one in bad[0]]]
        assert ramps._below(bad, units, enough).tolist() == expected
    found = long.detected(rng(3), 1, form="sr", rate=0.3, bound=0.1, arl=1e5, units=400)
    detector, draws = Detector(0.1), rng(3)
    while detector.log_m < math.log(1e5) or detector.units % 50:
        detector.add(bool(draws.random(1)[0] < 0.3))
    assert found.tolist() == [detector.units]


@pytest.mark.parametrize(
    ("name", "how", "rolled_back"),
    [
        ("steady", {}, 4),
        ("swing of the day", {"base": traffic.swing()}, 1),
        ("ramp", {"odds": traffic.ramp()}, 2),
    ],
)
def test_equals_are_rolled_back_in_at_most_one_of_a_hundred_runs(
    name: str, how: dict[str, traffic.Array], rolled_back: int
) -> None:
    """400 runs of six hours with a look every minute."""
    minutes = evidence.first(evidence.worse(traffic.events(rng(11), 400, **how)) >= BAR)  # type: ignore[arg-type]
    assert int(np.isfinite(minutes).sum()) == rolled_back <= 4


def test_sticky_sessions_keep_the_error_rate_by_session_and_not_by_request() -> None:
    by_session, by_request = traffic.sessions(rng(12), 60, icc=0.3, each=10)
    often = [int(np.isfinite(evidence.first(evidence.worse(one) >= BAR)).sum()) for one in (by_session, by_request)]
    assert often == [0, 15]


def test_a_quantity_that_is_the_same_is_rolled_back_in_at_most_one_of_a_hundred_runs() -> None:
    odds = traffic.steady(minutes=180)
    minutes = evidence.first(evidence.slower(*traffic.delays(rng(13), 200, odds=odds), odds) >= BAR)
    assert int(np.isfinite(minutes).sum()) == 1


@pytest.mark.parametrize(("ratio", "median", "goal"), [(1.5, 46, None), (2.0, 12, 15), (3.0, 4, 5), (5.0, 2, None)])
def test_worse_variants_are_found_at_these_medians(ratio: float, median: int, goal: int | None) -> None:
    """serving.md, 4.2: 46, 13, 4 and 2 minutes with a uniform grid."""
    seen = traffic.events(rng(14), 300, ratio=ratio, odds=traffic.steady(minutes=240))
    found = float(np.median(evidence.first(evidence.worse(seen) >= BAR)))
    assert found == pytest.approx(median, abs=1)
    assert goal is None or found <= goal


@pytest.mark.parametrize(("slower", "spread", "median"), [(1.2, 0.6, 4), (1.2, 0.4, 2), (1.2, 0.8, 6), (1.1, 0.6, 10)])
def test_slower_variants_are_found_at_these_medians(slower: float, spread: float, median: int) -> None:
    odds = traffic.steady(minutes=60)
    seen = traffic.delays(rng(15), 150, slower=slower, spread=spread, odds=odds)
    found = float(np.median(evidence.first(evidence.slower(*seen, odds) >= BAR)))
    assert found == pytest.approx(median, abs=1)
    assert (slower, spread) != (1.2, 0.6) or found <= 8


def test_a_ramp_carries_equals_up_and_stops_what_is_beyond_its_margin() -> None:
    done = ramps.climb(rng(16), 150, minutes=200)
    assert np.isfinite(done[:, 2]).mean() > 0.95
    assert float(np.median(done[:, 2])) == pytest.approx(66, abs=4)
    worse = ramps.climb(rng(17), 150, ratio=3.0, minutes=200)
    assert np.isfinite(worse[:, 0]).mean() <= 0.05
    assert not np.isfinite(worse[:, 1]).any()


def test_a_fault_after_good_weeks_is_found_soon_by_renewed_evidence_only() -> None:
    hourly = long.renewed(rng(18), 30, ratio=3.0, copies=720, life=long.doubling, horizon=400)
    assert float(np.median(hourly)) == pytest.approx(62, abs=15)
    assert not np.isfinite(long.renewed(rng(18), 30, ratio=3.0, copies=1, horizon=400)).any()
    assert not np.isfinite(long.renewed(rng(18), 30, ratio=1.0, copies=720, life=long.doubling, horizon=400)).any()


def test_simulated_renewal_is_that_of_stats() -> None:
    """Three copies in a period of three days, the second is retired when the third begins."""
    found = long.renewed(rng(21), 1, ratio=8.0, copies=3, life=lambda _copy: 1.0, days=1, period=3, horizon=600)
    draws = rng(21)
    fault = 24 + int(draws.integers(0, 24, 1)[0])
    pieces = [(60, 1.0)] * fault + [(1, 8.0)] * 600
    counts = [piece(draws, fault, 1.0, 60), piece(draws, 600, 8.0, 1)]
    events = [(int(bad), int(ours)) for table in counts for bad, ours in zip(*table, strict=True)]
    hour, expected = 0.0, math.inf
    for at, (minutes, _) in enumerate(pieces):
        hour += minutes / 60
        if at < fault:
            continue
        rows = []
        for copy, weight in enumerate(weights(3)):
            start = copy * 24
            first = start if start <= fault else fault + (start - fault) * 60
            if hour <= start + 1e-9:
                continue
            bad, ours = (sum(one[side] for one in events[first : at + 1]) for side in (0, 1))
            retired = copy == 1 and hour > 48 + 1e-9
            rows.append((weight, -math.inf if retired else attribution.log_worse({0.98: [bad, ours]})))
        if log_mix(rows) >= BAR:
            expected = at - fault + 1
            break
    assert found.tolist() == [expected]
    assert expected < 600


def piece(draws: np.random.Generator, pieces: int, ratio: float, minutes: int) -> tuple[traffic.Array, traffic.Array]:
    """Bad events of both sides and the trial's, as ``_watch_long`` draws them."""
    requests = traffic.REQUESTS * minutes
    trial = draws.binomial(requests, 0.98, (1, pieces))
    ours = draws.binomial(trial, traffic.BASE * ratio)
    return (ours + draws.binomial(requests - trial, traffic.BASE))[0], ours[0]


def test_rules_of_others_err_as_their_sources_make_them() -> None:
    equal, double = traffic.events(rng(19), 60), traffic.events(rng(20), 60, ratio=2.0)
    shares = {rule.__name__: float(np.isfinite(rule(equal)).mean()) for rule in RULES}
    assert shares["flagger"] > 0.95  # some check fails now and then, and the counter forgets nothing
    assert shares["z_test"] > 0.05  # a test for one look, looked at 360 times
    assert shares["kayenta"] <= 0.05
    assert all(np.isfinite(rule(double)).mean() > 0.95 for rule in RULES)
    assert float(np.median(peers.kayenta(double))) == 60  # it cannot tell before it has an hour


RULES = (peers.flagger, peers.argo, peers.kayenta, peers.z_test)
