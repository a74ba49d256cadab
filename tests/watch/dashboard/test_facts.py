"""One state for all that is known, rows that survive any number, and what buttons are offered."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import UsageError
from quantgate.release import Live, Variant
from quantgate.serve import Exchange
from quantgate.watch import Alarm, Finding, Point, Tally, Trial, Verdict
from quantgate.watch.dashboard import answers, facts, moves, rows, series
from quantgate.watch.dashboard.latency import latency_of

BASE = Variant(name="BF16", artifact="sha256:b", engine="none", is_baseline=True)
SMALL = Variant(name="W4A16", artifact="sha256:w", engine="e")
TRIAL = Trial(target="t", variant="W4A16", artifact="sha256:w", control="BF16", control_artifact="sha256:b")
CANARY = Live(target="t", revision=3, baseline=BASE, stable=BASE, canary=SMALL, share=0.05)
ALONE = Live(target="t", revision=4, baseline=BASE, stable=BASE)
PROMOTED = Live(target="t", revision=5, baseline=BASE, stable=SMALL, holdback=0.02)


def finding(log_e: float = 0.0, log_better: float = 0.0, *, units: int = 100, signal: str = "retry") -> Finding:
    return Finding(
        signal=signal,
        direction="more",
        trial=Tally(units=units, bad=units // 10),
        control=Tally(units=1000, bad=100),
        log_e=log_e,
        log_threshold=8.0,
        log_better=log_better,
        log_better_threshold=3.0,
        weight=0.5,
    )


def verdict(action: str = "hold", *findings: Finding, **more: object) -> Verdict:
    given = {"trial": TRIAL, "action": action, "because": "why", "at": 1.0, "number": 1, "revision": 3, "share": 0.05}
    return Verdict.model_validate(given | {"findings": findings} | more)


def alarm(done: str = "moved", told: str = "") -> Alarm:
    return Alarm.model_validate({"id": "a1", "verdict": verdict("rollback"), "done": done, "told": told})


@pytest.mark.parametrize(
    ("live", "told", "alarms", "behind_s", "tone", "headline"),
    [
        (ALONE, None, (), None, "idle", "BF16 serves everyone, and nothing is on trial"),
        (CANARY, None, (), None, "watch", "W4A16 is live, and there is no evidence on it yet"),
        (CANARY, verdict("hold", finding(units=0)), (), 0.1, "watch", "W4A16 waits for its first sessions"),
        (CANARY, verdict("hold", finding()), (), 0.1, "watch", "Nothing speaks against W4A16 so far"),
        (PROMOTED, verdict("hold", finding()), (), 0.1, "watch", "Nothing speaks against W4A16 so far"),
        (CANARY, verdict("hold", finding(4.1)), (), 0.1, "warn", "W4A16 may be worse than BF16: asked again at once"),
        (CANARY, verdict("hold", finding(0, 3.1)), (), 0.1, "good", "W4A16 is proven no worse than BF16"),
        (CANARY, verdict("hold", finding()), (), 300.0, "warn", "The evidence on W4A16 is 5 min behind"),
        (
            CANARY,
            verdict("promote", finding(), next_share=0.25),
            (),
            0.1,
            "good",
            "W4A16 is proven no worse. It may serve 25 % of sessions",
        ),
        (CANARY, verdict("rollback", finding(9)), (alarm("pending"),), 0.1, "bad", "W4A16 is worse than BF16 and goes"),
        (
            CANARY,
            verdict("rollback", finding(9)),
            (alarm("refused", "it is held"),),
            0.1,
            "bad",
            "W4A16 is worse than BF16, and was not taken back: it is held",
        ),
        (ALONE, verdict("rollback"), (alarm(),), 0.1, "bad", "W4A16 was taken back. BF16 serves everyone again"),
    ],
)
def test_one_state_is_shown_for_all_that_is_known(live, told, alarms, behind_s, tone, headline):
    found = facts.state_of(live, told, alarms, rows.rows_of(told.findings if told else ()), behind_s)
    assert found.tone == tone
    assert found.headline.startswith(headline)


def test_a_verdict_on_other_bytes_than_those_that_are_live_is_not_shown_as_theirs():
    other = CANARY.model_copy(update={"canary": SMALL.model_copy(update={"artifact": "sha256:other"})})
    assert not facts.on_trial(other, verdict("rollback", finding(9)))
    assert facts.state_of(other, verdict("rollback"), (), [], 0.1).tone == "watch"


@given(st.floats(0, 1), st.floats(0, 0.5))
def test_shares_of_traffic_are_all_of_it(share, holdback):
    live = Live.model_validate(
        {**dict(PROMOTED), "canary": SMALL, "share": share * (1 - holdback), "holdback": holdback}
    )
    assert math.isclose(sum(one.share for one in facts.traffic(live)), 1.0, abs_tol=1e-9)


NUMBERS = st.none() | st.floats()


@given(NUMBERS, NUMBERS, NUMBERS, st.floats(), st.floats(), st.integers(0, 10**12))
def test_any_finding_becomes_a_row_that_can_be_drawn(ratio, low, high, log_e, threshold, units):
    one = finding(units=units).model_copy(
        update={"ratio": ratio, "low": low, "high": high, "log_e": log_e, "log_threshold": threshold}
    )
    row = rows.row_of(one)
    assert 0.0 <= row.evidence <= 1.0
    text = answers.rendered("_row.html", row=row)
    for drawn in ET.fromstring(f"<all>{text}</all>").iter():
        for name in ("x", "x1", "x2", "cx", "width"):
            if name in drawn.attrib:
                assert 0.0 <= float(drawn.attrib[name]) <= 168.0


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.integers(0, 50), st.floats(allow_nan=False, allow_infinity=False)), max_size=400
    )
)
def test_any_points_become_columns_of_one_length_in_order_of_time(given):
    points = [
        Point(
            at=at,
            signal="retry",
            direction="more",
            log_e=log_e,
            log_threshold=8.0,
            trial=Tally(units=units, bad=units // 2),
            control=Tally(units=units),
        )
        for at, units, log_e in given
    ]
    found = series.columns(points)
    lists = [one for one in found.values() if isinstance(one, list)]
    assert len({len(one) for one in lists}) == 1
    assert found["at"] == sorted(set(found["at"]))
    assert len(found["at"]) <= series.MOST
    assert all(value is None or math.isfinite(value) for one in lists for value in one)


def test_latency_tells_quantiles_by_variant_and_leaves_copies_and_errors_out():
    def one(at: int, **more: object) -> Exchange:
        base = {"id": str(at), "at": float(at), "target": "t", "variant": "A", "artifact": "a", "answered_by": "A"}
        base |= {"cohort": "stable", "share": 0.0, "revision": 1, "route": "chat", "key": "k", "session": "s"}
        base |= {"told_session": True, "stream": False, "structured": False, "status": 200}
        return Exchange.model_validate(base | {"stages": {"decode": at / 100}, "total_s": at / 100} | more)

    found = latency_of([*map(one, range(1, 101)), one(500, shadow=True), one(900, status=502), one(7, variant="B")])
    assert (found.requests, found.variants) == (101, ("A", "B"))
    decode = next(stage for stage in found.stages if stage.name == "decode")
    assert [(t.variant, t.p50, t.p95, t.p99) for t in decode.times] == [("A", 0.5, 0.95, 0.99), ("B", 0.07, None, None)]
    assert latency_of([]).stages == ()


@pytest.mark.parametrize(
    ("live", "kinds"),
    [
        (None, ()),
        (ALONE, ("hold",)),
        (CANARY, ("ramp", "promote", "hold", "rollback")),
        (CANARY.model_copy(update={"share": 1.0}), ("promote", "hold", "rollback")),
        (CANARY.model_copy(update={"frozen": True}), ("lift", "rollback")),
        (PROMOTED, ("hold", "rollback")),
    ],
)
def test_what_is_offered_can_be_asked_and_nothing_else(live, kinds):
    assert moves.offered(live) == kinds
    for kind in moves.KINDS if live is not None else ():
        if kind in kinds:
            assert moves.asked(kind, live, (), {}).says
        elif (kind, live.frozen) not in (("ramp", True), ("promote", True), ("ramp", False)):
            with pytest.raises(UsageError):
                moves.asked(kind, live, (), {})
