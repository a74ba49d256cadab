"""Sticky weighted cohorts: shares are what they say, and raising one moves nobody away."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quantgate.release import Live, Variant
from quantgate.serve import Caller, Request
from quantgate.serve.refusals import Refused
from quantgate.serve.routing import CohortRouter, place
from quantgate.serve_config import PolicyRule

BASE = Variant(name="BF16", artifact="sha256:b", engine="none", is_baseline=True)
STABLE = Variant(name="W8A8", artifact="sha256:s", engine="none")
CANARY = Variant(name="W4A16", artifact="sha256:c", engine="none")
UP = ("BF16", "W8A8", "W4A16")
SHARES = st.floats(0, 1)


def live(**changed) -> Live:
    given = {"target": "laptop", "revision": 1, "baseline": BASE, "stable": STABLE, "canary": CANARY, "salt": "salt"}
    return Live.model_validate(given | changed)


def request(session: str = "s", *, body=None, caller=Caller("k"), headers=None, size: int = 100) -> Request:  # noqa: B008
    return Request("id", "chat", {"model": "laptop"} | (body or {}), caller, session, True, headers or {}, size)


def chosen(release: Live, session: str):
    return CohortRouter("laptop", release, UP).choose(request(session))


@given(st.text(), st.text(), SHARES, SHARES, st.floats(0, 0.5))
def test_a_higher_share_moves_no_session_off_the_canary(session, salt, one, other, holdback):
    low, high = sorted((one, other))
    before = chosen(live(share=low, holdback=holdback, salt=salt), session)
    after = chosen(live(share=high, holdback=holdback, salt=salt), session)
    if before.cohort == "canary":
        assert after.cohort == "canary"
    assert (before.cohort == "holdback") == (after.cohort == "holdback")


def test_measured_shares_are_within_their_binomial_bounds():
    count = 40_000
    router = CohortRouter("laptop", live(share=0.05, holdback=0.02), UP)
    cohorts: list[str] = [router.choose(request(f"session-{number}")).cohort for number in range(count)]
    for cohort, share in (("canary", 0.05), ("holdback", 0.02), ("stable", 0.93)):
        spread = 5 * (count * share * (1 - share)) ** 0.5  # five standard deviations: one false alarm in a million
        assert abs(cohorts.count(cohort) - count * share) < spread


def test_cohorts_of_two_releases_are_drawn_independently():
    both = sum(place(f"s{n}", "one") < 0.5 and place(f"s{n}", "two") < 0.5 for n in range(20_000))
    assert abs(both - 5_000) < 5 * (20_000 * 0.25 * 0.75) ** 0.5


def test_a_choice_tells_what_the_watch_needs():
    found = chosen(live(share=1.0), "s")
    assert (found.arm.name, found.arm.digest, found.arm.role) == ("W4A16", "sha256:c", "canary")
    assert (found.cohort, found.share, found.revision) == ("canary", 1.0, 1)
    assert found.fallback is not None
    assert found.fallback.name == "BF16"


def test_a_choice_tells_its_draw_which_a_ramp_keeps_and_another_canary_renews():
    def draws(**changed) -> set[str]:
        router = CohortRouter("laptop", live(stable=BASE, **{"share": 0.5} | changed), UP)
        return {router.choose(request(f"s{number}")).draw for number in range(50)}

    (draw,) = draws()
    assert draw and "salt" not in draw
    assert draws(share=0.7, revision=2) == {draw}
    assert draws(salt="another").isdisjoint({draw, ""})
    assert draws(canary=None, share=0.0) == {""}, "of no side"


def test_a_full_share_leaves_the_holdback():
    release = live(share=1.0, holdback=0.5)
    cohorts = {chosen(release, f"s{number}").cohort for number in range(200)}
    assert cohorts == {"canary", "holdback"}
    assert chosen(release, "s").share == 0.5


def test_the_baseline_has_no_holdback_and_no_fallback():
    found = {chosen(live(stable=BASE, canary=None, holdback=0.5), f"s{n}").cohort for n in range(100)}
    assert found == {"stable"}
    alone = chosen(live(stable=BASE, canary=None), "s")
    assert (alone.arm.role, alone.fallback, alone.share) == ("baseline", None, 0.0)


def test_a_rollback_is_heard_by_the_next_request():
    router = CohortRouter("laptop", live(share=1.0), UP)
    assert router.choose(request()).arm.name == "W4A16"
    router.swap(live(revision=2, canary=None), UP)
    assert router.choose(request()).arm.name == "W8A8"
    router.swap(live(revision=1, share=1.0), UP)
    assert router.choose(request()).arm.name == "W8A8", "an older release came late"


def test_requests_see_one_release_or_the_other_never_half_of_each():
    router = CohortRouter("laptop", live(share=1.0), UP)
    seen, stop = set(), threading.Event()

    def ask():
        while not stop.is_set():
            found = router.choose(request())
            seen.add((found.revision % 2, found.arm.name))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for one in threads:
        one.start()
    for revision in range(2, 2000):
        router.swap(live(revision=revision, canary=CANARY if revision % 2 else None, share=revision % 2), UP)
    stop.set()
    for one in threads:
        one.join()
    assert seen <= {(1, "W4A16"), (0, "W8A8")}


def test_a_canary_that_is_not_up_gets_nobody_and_a_stable_one_hands_over_to_the_baseline():
    router = CohortRouter("laptop", live(share=1.0), ("BF16",))
    assert router.choose(request()).arm.name == "BF16"
    assert router.choose(request()).share == 0.0
    assert router.warnings() == ["variant 'W8A8' is live and not up", "variant 'W4A16' is live and not up"]
    with pytest.raises(Refused, match="its baseline 'BF16' is not up"):
        CohortRouter("laptop", live(), ("W8A8",))


def test_only_those_who_may_name_a_variant():
    router = CohortRouter("laptop", live(), UP, pinners=("k_ops",))
    wants = {"model": "quantgate/W4A16"}
    with pytest.raises(Refused, match="may not choose the variant 'W4A16'; ask for the model 'laptop'") as refused:
        router.choose(request(body=wants))
    assert refused.value.status == 403
    for caller in (Caller("k", frozenset({"admin"})), Caller("k_ops")):
        found = router.choose(request(body=wants, caller=caller))
        assert (found.arm.name, found.cohort, found.rule) == ("W4A16", "pinned", "model")
    with pytest.raises(Refused, match="'gpt-0' is not served here; ask for 'laptop'") as missing:
        router.choose(request(body={"model": "gpt-0"}))
    assert (missing.value.status, missing.value.param) == (404, "model")


def rule(variant: str, **when) -> PolicyRule:
    return PolicyRule.model_validate({"name": f"to {variant}", "when": when, "variant": variant})


@pytest.mark.parametrize(
    ("when", "fitting", "other"),
    [
        ({"structured": True}, {"body": {"response_format": {"type": "json_object"}}}, {}),
        ({"tools": True}, {"body": {"tools": [{}]}}, {"body": {"tools": []}}),
        ({"tool": "pay"}, {"body": {"tools": [{"function": {"name": "pay"}}]}}, {"body": {"tools": [{}]}}),
        ({"stream": True}, {"body": {"stream": True}}, {}),
        ({"prompt_over": 100}, {"size": 401}, {"size": 400}),
        ({"prompt_under": 100}, {"size": 399}, {"size": 400}),
        ({"keys": ["k_a", "k_b"]}, {"caller": Caller("k_b")}, {"caller": Caller("k_c")}),
        ({"headers": {"X-Team": "legal|hr"}}, {"headers": {"x-team": "hr"}}, {"headers": {"x-team": "hrx"}}),
        ({"model": "fast|quick"}, {"body": {"model": "fast"}}, {}),
        ({"route": "chat"}, {}, None),
        ({"route": "completions"}, None, {}),
    ],
)
def test_a_rule_places_the_requests_that_fit_and_no_others(when, fitting, other):
    router = CohortRouter("laptop", live(share=0), UP, rules=[rule("canary", **when)], names=("fast",))
    if fitting is not None:
        found = router.choose(request(**fitting))
        assert (found.arm.name, found.cohort, found.rule) == ("W4A16", "pinned", "to canary")
    if other is not None:
        assert router.choose(request(**other)).cohort == "stable"


def test_the_first_rule_that_fits_wins():
    router = CohortRouter("laptop", live(), UP, rules=[rule("baseline", stream=False), rule("W4A16")])
    assert router.choose(request()).arm.name == "BF16"
    assert router.choose(request(body={"stream": True})).arm.name == "W4A16"


def test_a_rule_for_a_variant_that_was_withdrawn_goes_to_the_baseline():
    router = CohortRouter("laptop", live(), UP, rules=[rule("W4A16")])
    router.swap(live(revision=2, canary=None), UP)
    assert router.choose(request()).arm.name == "BF16"


@pytest.mark.parametrize(
    "when", [{"headers": {"authorization": "x"}}, {"model": "("}, {"prompt_over": 9, "prompt_under": 9}, {"colour": 1}]
)
def test_a_rule_that_cannot_be_meant_is_refused(when):
    with pytest.raises(ValidationError):
        rule("baseline", **when)


def test_models_lists_the_target_and_what_is_live():
    router = CohortRouter("laptop", live(), UP, names=("gpt-4o-mini", "laptop"), unlisted=("/models/llama",))
    listed = router.models()
    assert [one["id"] for one in listed[:2]] == ["laptop", "gpt-4o-mini"]
    assert [one["id"] for one in (listed[0], *listed[2:])] == [
        "laptop",
        "quantgate/BF16",
        "quantgate/W8A8",
        "quantgate/W4A16",
    ]
    assert listed[0]["quantgate"]["digest"] == listed[1]["quantgate"]["digest"] == "sha256:s"
    for name in ("gpt-4o-mini", "/models/llama"):
        assert router.choose(request(body={"model": name})).cohort != "pinned"
