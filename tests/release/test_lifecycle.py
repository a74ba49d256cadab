"""Forward on proof alone, back at any time; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import re
import threading

import pytest
from tests.release.given import BASE, ENGINE, decision_of, register, variant_of, verdict_of

from quantgate.errors import Moved, NoCapacity, NotPromoted, QuantgateError, UnknownName, UsageError
from quantgate.records import digest_of
from quantgate.release import Live, Variant
from quantgate.release.lifecycle import hold, promote, ramp, rebase, rollback
from quantgate.release.store import Registry


def test_a_new_target_serves_the_baseline(registry: Registry) -> None:
    register(registry, A="pass")
    live = registry.live("fleet")
    assert (live.stable, live.baseline, live.canary, live.revision) == (BASE, BASE, None, 1)


def test_a_proven_variant_goes_from_canary_to_everything(registry: Registry) -> None:
    (a,) = register(registry, A="pass")
    first = promote(registry, "fleet", "A", canary=0.05, holdback=0.02)
    assert (first.canary, first.share, first.holdback, first.stable) == (a, 0.05, 0.02, BASE)
    second = ramp(registry, "fleet", 0.25)
    assert (second.share, second.salt) == (0.25, first.salt)
    whole = promote(registry, "fleet", "A")
    assert (whole.stable, whole.canary, whole.share, whole.holdback, whole.revision) == (a, None, 0.0, 0.02, 4)
    assert whole == registry.live("fleet")
    assert [move.what for move in registry.history("fleet")] == ["promote", "ramp", "canary", "open"]


def test_every_canary_has_a_salt_of_its_own(registry: Registry) -> None:
    register(registry, A="pass", B="pass")
    first = promote(registry, "fleet", "A", canary=0.05)
    rollback(registry, "fleet", why="test")
    second = promote(registry, "fleet", "B", canary=0.05)
    assert first.salt and second.salt and first.salt != second.salt


@pytest.mark.parametrize(
    ("verdict", "told"),
    [("fail", "failed: breaks json_tools"), ("inconclusive", "is not proven: not decided: math")],
)
def test_what_did_not_pass_is_not_promoted_and_the_reason_is_told(registry: Registry, verdict: str, told: str) -> None:
    register(registry, A=verdict)
    for share in (None, 0.05):
        with pytest.raises(NotPromoted, match=re.escape(told)) as refused:
            promote(registry, "fleet", "A", canary=share)
        assert refused.value.exit_code == 1
    assert registry.live("fleet").revision == 1


def test_a_pass_behind_a_failure_of_a_fixed_sequence_is_not_promoted(registry: Registry) -> None:
    a = variant_of("A")
    judged = verdict_of(a, "pass", eligible=False, sentence="keeps every rule, but B did not pass before it")
    registry.register([a], decided={"fleet": decision_of("fleet", judged)}, baseline=BASE)
    with pytest.raises(NotPromoted, match="passed and may not be chosen: keeps every rule, but B"):
        promote(registry, "fleet", "A")


def test_a_decision_on_another_target_proves_nothing(registry: Registry) -> None:
    register(registry, A="pass")
    register(registry, "laptop", B="pass")
    with pytest.raises(UnknownName, match="fleet: unknown variant 'B'"):
        promote(registry, "fleet", "B")


def test_a_decision_on_another_engine_proves_nothing(registry: Registry) -> None:
    register(registry, A="pass")
    other = variant_of("A", engine=digest_of("llama.cpp with another cache"))
    judged = verdict_of(other, "fail")
    registry.register([other], decided={"fleet": decision_of("fleet", judged)}, baseline=BASE)
    with pytest.raises(NotPromoted, match="failed"):
        promote(registry, "fleet", "A")
    assert registry.decided("fleet", other.artifact, digest_of("nobody's")) is None
    passed = registry.decided("fleet", other.artifact, ENGINE)
    assert passed and passed.passed


def test_the_latest_decision_counts_and_an_older_one_registered_again_does_not(registry: Registry) -> None:
    a = variant_of("A")
    good, bad = decision_of("fleet", verdict_of(a)), decision_of("fleet", verdict_of(a, "fail"), say="later")
    registry.register([a], decided={"fleet": good}, baseline=BASE)
    registry.register([a], decided={"fleet": bad}, baseline=BASE)
    assert registry.register([a], decided={"fleet": good}, baseline=BASE).added == 0
    with pytest.raises(NotPromoted, match="failed"):
        promote(registry, "fleet", "A")


def test_a_canary_whose_bytes_failed_meanwhile_gets_no_more(registry: Registry) -> None:
    (a,) = register(registry, A="pass")
    promote(registry, "fleet", "A", canary=0.05)
    registry.register([a], decided={"fleet": decision_of("fleet", verdict_of(a, "fail"))}, baseline=BASE)
    with pytest.raises(NotPromoted, match="failed"):
        ramp(registry, "fleet", 0.5)
    with pytest.raises(NotPromoted, match="failed"):
        promote(registry, "fleet", "A")


def test_a_decision_against_another_baseline_proves_nothing(registry: Registry) -> None:
    register(registry, A="pass")
    b = variant_of("B")
    decided = decision_of("fleet", verdict_of(b), baseline=digest_of("other weights"))
    registry.register([b], decided={"fleet": decided})
    with pytest.raises(NotPromoted, match="compared with another baseline"):
        promote(registry, "fleet", "B")


def test_a_name_means_its_latest_bytes_and_a_digest_means_these(registry: Registry) -> None:
    register(registry, A="pass")
    newer = Variant(name="A", artifact=digest_of("A, made again"), engine=ENGINE)
    judged = verdict_of(newer, "inconclusive")
    registry.register([newer], decided={"fleet": decision_of("fleet", judged)}, baseline=BASE)
    with pytest.raises(NotPromoted, match="not proven"):
        promote(registry, "fleet", "A")
    older = digest_of("A")
    assert promote(registry, "fleet", older[:20]).stable.artifact == older


def test_unknown_names_are_told_with_the_nearest(registry: Registry) -> None:
    register(registry, W4A16="pass")
    with pytest.raises(UnknownName, match="did you mean 'W4A16'"):
        promote(registry, "fleet", "W4A61")
    with pytest.raises(UnknownName, match="did you mean 'fleet'"):
        promote(registry, "flet", "W4A16")
    with pytest.raises(UsageError, match="the baseline is not promoted"):
        promote(registry, "fleet", "BF16")


def test_a_ramp_only_goes_up_and_telling_it_twice_moves_once(registry: Registry) -> None:
    register(registry, A="pass")
    with pytest.raises(NotPromoted, match="it has no canary"):
        ramp(registry, "fleet", 0.25)
    promote(registry, "fleet", "A", canary=0.25)
    assert ramp(registry, "fleet", 0.5) == ramp(registry, "fleet", 0.5)
    with pytest.raises(NotPromoted, match="A has 50 % and a ramp only goes up"):
        ramp(registry, "fleet", 0.25)
    with pytest.raises(UsageError, match="at most 100 %"):
        ramp(registry, "fleet", 1.5)
    assert registry.live("fleet").share == 0.5


def test_shares_that_do_not_fit_together_are_refused(registry: Registry) -> None:
    register(registry, A="pass")
    with pytest.raises(UsageError, match="90 % for the canary and 20 % held back"):
        promote(registry, "fleet", "A", canary=0.9, holdback=0.2)
    with pytest.raises(UsageError, match="a holdback is at most 50 %"):
        promote(registry, "fleet", "A", holdback=0.6)
    with pytest.raises(UsageError, match="more than 0 %"):
        promote(registry, "fleet", "A", canary=0.0)


def test_a_second_canary_waits_for_the_first(registry: Registry) -> None:
    register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A", canary=0.05)
    for share in (None, 0.05):
        with pytest.raises(NotPromoted, match="A is its canary at 5 %"):
            promote(registry, "fleet", "B", canary=share)
    with pytest.raises(NotPromoted, match="give it more with: quantgate ramp fleet"):
        promote(registry, "fleet", "A", canary=0.1)


def test_telling_a_promotion_twice_moves_once(registry: Registry) -> None:
    register(registry, A="pass")
    assert promote(registry, "fleet", "A", canary=0.05) == promote(registry, "fleet", "A", canary=0.05)
    assert promote(registry, "fleet", "A") == promote(registry, "fleet", "A")
    changed = promote(registry, "fleet", "A", holdback=0.02)
    assert (changed.holdback, changed.revision) == (0.02, 4)
    with pytest.raises(NotPromoted, match="has the traffic already"):
        promote(registry, "fleet", "A", canary=0.5)


def test_a_held_target_goes_no_way_but_back_and_by_a_person(registry: Registry) -> None:
    register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A")
    promote(registry, "fleet", "B", canary=0.05)
    assert hold(registry, "fleet", why="fair week").frozen
    for move in (lambda: ramp(registry, "fleet", 0.5), lambda: promote(registry, "fleet", "B")):
        with pytest.raises(NotPromoted, match=r"held by ada since .* \(fair week\); lift that first"):
            move()
    with pytest.raises(NotPromoted, match="only a person moves it"):
        rollback(registry, "fleet", why="e-value 130", automatic=True)
    assert rollback(registry, "fleet", why="I say so")
    assert registry.live("fleet").frozen
    assert not hold(registry, "fleet", off=True).frozen
    assert promote(registry, "fleet", "B").stable.name == "B"


def test_rolling_back_takes_the_canary_first_then_the_one_before(registry: Registry) -> None:
    a, b = register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A")
    promote(registry, "fleet", "B", canary=0.05)
    move = rollback(registry, "fleet", why="json broke")
    assert move and (move.live.stable, move.live.canary, move.live.share) == (a, None, 0.0)
    promote(registry, "fleet", "B")
    move = rollback(registry, "fleet", why="json broke")
    assert move and (move.live.stable, move.why, move.who, move.before and move.before.stable) == (
        a, "json broke", "ada", b,
    )  # fmt: skip


def test_a_rollback_told_twice_happens_once(registry: Registry) -> None:
    a, _ = register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A")
    promote(registry, "fleet", "B")
    assert rollback(registry, "fleet", why="slow")
    assert rollback(registry, "fleet", why="slow") is None
    hold(registry, "fleet")
    assert rollback(registry, "fleet", why="slow") is None
    assert registry.live("fleet").stable == a
    assert rollback(registry, "fleet", to="baseline", why="still slow")
    assert rollback(registry, "fleet", to="BF16", why="still slow") is None
    assert registry.live("fleet").stable == BASE


def test_back_needs_no_decision_but_must_have_been_live(registry: Registry) -> None:
    a, _ = register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A")
    registry.register([a], decided={"fleet": decision_of("fleet", verdict_of(a, "fail"))}, baseline=BASE)
    rollback(registry, "fleet", to="BF16", why="test")
    move = rollback(registry, "fleet", to="A", why="the baseline's machine burns")
    assert move and move.live.stable == a
    with pytest.raises(NotPromoted, match="B never had its traffic"):
        rollback(registry, "fleet", to="B", why="test")
    with pytest.raises(UsageError, match="needs a reason"):
        rollback(registry, "fleet", why=" ")


def test_a_rollback_asks_whether_that_is_up(registry: Registry) -> None:
    register(registry, A="pass")
    promote(registry, "fleet", "A")
    asked: list[str] = []

    def down(variant: Variant) -> str:
        asked.append(variant.name)
        return "connection refused"

    with pytest.raises(NoCapacity, match="BF16, to go back to, is not up: connection refused"):
        rollback(registry, "fleet", why="slow", capacity=down)
    assert asked == ["BF16"]
    assert registry.live("fleet").stable.name == "A"
    move = rollback(registry, "fleet", why="slow", capacity=down, force=True)
    assert move and move.capacity == "not up, forced: connection refused"
    promote(registry, "fleet", "A")
    move = rollback(registry, "fleet", why="slow", capacity=lambda _: "")
    assert move and move.capacity == "up"


def test_a_verdict_on_one_never_moves_another(registry: Registry) -> None:
    a, b = register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A")
    promote(registry, "fleet", "B", canary=0.05)
    before = registry.live("fleet")
    for digest in (a.artifact, BASE.artifact, "sha256:nobody"):  # of B alone would a rollback take the traffic now
        assert rollback(registry, "fleet", why="e-value 130", automatic=True, of=digest) is None
        with pytest.raises(NotPromoted, match="has another canary, B, and what was judged is"):
            ramp(registry, "fleet", 0.5, of=digest)
        with pytest.raises(NotPromoted, match="has another canary, B"):
            promote(registry, "fleet", "A", of=digest)
    assert registry.live("fleet") == before
    assert ramp(registry, "fleet", 0.5, of=b.artifact).share == 0.5
    assert promote(registry, "fleet", "B", of=b.artifact).stable == b
    with pytest.raises(NotPromoted, match="it has no canary, and what was judged is"):
        promote(registry, "fleet", "B", of=b.artifact)
    assert rollback(registry, "fleet", why="e-value 130", automatic=True, of=a.artifact) is None
    move = rollback(registry, "fleet", why="e-value 130", automatic=True, of=b.artifact)
    assert move and move.live.stable == a
    assert rollback(registry, "fleet", why="e-value 130", automatic=True, of=b.artifact) is None


def test_a_rollback_of_one_that_another_took_the_place_of_meanwhile_moves_nothing(registry: Registry) -> None:
    """Between the look and the move: the question whether the old place is up takes its time."""
    a, _ = register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A", canary=0.05)

    def meanwhile(_: Variant) -> str:
        rollback(registry, "fleet", why="by hand")
        promote(registry, "fleet", "B", canary=0.05)
        return ""

    assert rollback(registry, "fleet", why="e-value 130", of=a.artifact, capacity=meanwhile) is None
    canary = registry.live("fleet").canary
    assert canary and canary.name == "B"


def test_another_baseline_is_an_operators_word_and_there_is_no_way_behind_it(registry: Registry) -> None:
    register(registry, A="pass")
    promote(registry, "fleet", "A")
    newer = Variant(name="BF16-v2", artifact=digest_of("v2"), engine="none", is_baseline=True)
    live = rebase(registry, "fleet", newer, why="model v2")
    assert (live.baseline, live.stable) == (newer, newer)
    assert rebase(registry, "fleet", newer, why="model v2") == live
    with pytest.raises(NotPromoted, match="A never had its traffic"):
        rollback(registry, "fleet", to="A", why="test")
    assert rollback(registry, "fleet", why="test") is None
    with pytest.raises(NotPromoted, match="compared with another baseline"):
        promote(registry, "fleet", "A")


def test_bytes_that_lie_elsewhere_now_are_the_same_release(registry: Registry) -> None:
    register(registry, A="pass")
    first = promote(registry, "fleet", "A", canary=0.05)
    moved = variant_of("A", location="/elsewhere/A")
    registry.register([moved])
    canary = promote(registry, "fleet", "A", canary=0.05)
    assert (canary.canary, canary.salt, canary.revision) == (moved, first.salt, 3)
    assert promote(registry, "fleet", "A").stable == moved
    base = BASE.model_copy(update={"location": "/elsewhere/model"})
    live = rebase(registry, "fleet", base, why="another disk")
    assert (live.baseline, live.stable) == (base, moved)
    move = rollback(registry, "fleet", why="test")
    assert move and move.live.stable == base
    again = variant_of("A", location="/third/A")
    registry.register([again])
    move = rollback(registry, "fleet", to="A", why="test")
    assert move and move.live.stable == again


def test_of_two_who_promote_at_once_one_wins_and_the_other_is_told(registry: Registry) -> None:
    register(registry, A="pass", B="pass")
    together = threading.Barrier(2)
    told: list[Live | QuantgateError] = []

    def one(name: str) -> None:
        before = registry.live("fleet")
        after = before.model_copy(update={"revision": before.revision + 1, "stable": variant_of(name)})
        together.wait()
        try:
            told.append(registry.move(before, after, "promote").live)
        except QuantgateError as lost:
            told.append(lost)

    threads = [threading.Thread(target=one, args=(name,)) for name in "AB"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = [one for one in told if isinstance(one, Live)]
    (lost,) = [one for one in told if isinstance(one, QuantgateError)]
    assert isinstance(lost, Moved) and "somebody else moved it since revision 1" in str(lost)
    assert registry.live("fleet") == won and won.revision == 2
    assert len(registry.history("fleet")) == 2


def test_a_rollback_gets_through_while_others_move(registry: Registry) -> None:
    register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A")
    done = threading.Event()

    def busy() -> None:
        while not done.is_set():
            with contextlib.suppress(Moved):
                hold(registry, "fleet")
                hold(registry, "fleet", off=True)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert rollback(registry, "fleet", why="test")
    finally:
        done.set()
        thread.join()
    assert registry.live("fleet").stable == BASE
