"""Which side of a comparison a session is drawn to, and with which odds: what the watch's error rate rests on."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.opened import config_of, served, until
from tests.serve.test_routing import BASE, CANARY, STABLE, UP, live, request

from quantgate.guard.admission import admit
from quantgate.serve import Arm, Caller, Choice
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Reader
from quantgate.serve.routing import CohortRouter, Releases
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve.shadow import Copies
from quantgate.serve.upstreams.http import HttpUpstream
from quantgate.serve_config import PolicyRule, ShadowConfig

SHARES = st.floats(0, 1)
HOLDBACKS = st.floats(0, 0.5)
LIVES = st.builds(
    lambda share, holdback, canary, stable, salt: live(
        share=share, holdback=holdback, canary=canary, stable=stable, salt=salt
    ),
    SHARES,
    HOLDBACKS,
    st.sampled_from([CANARY, None]),
    st.sampled_from([STABLE, BASE]),
    st.text(min_size=1, max_size=8),
)


def sides(release, up=UP, count=400) -> dict[str, tuple[str, str, float, str]]:
    """By cohort: the variant's digest, side, odds and against."""
    drawn = [Releases.of(release, up).drawn(f"s{number}") for number in range(count)]
    return {one.cohort: (one.arm.digest, one.side, one.odds, one.against) for one in drawn}


def test_a_canary_is_held_against_the_baseline_that_is_stable():
    assert sides(live(stable=BASE, share=0.25)) == {
        "canary": ("sha256:c", "trial", 0.25, "sha256:b"),
        "stable": ("sha256:b", "control", 0.25, "sha256:c"),
    }


def test_a_canary_is_held_against_the_holdback_and_the_stable_variants_sessions_are_on_no_side():
    assert sides(live(share=0.3, holdback=0.1)) == {
        "canary": ("sha256:c", "trial", pytest.approx(0.75), "sha256:b"),
        "stable": ("sha256:s", "", 0.0, ""),
        "holdback": ("sha256:b", "control", pytest.approx(0.75), "sha256:c"),
    }


def test_a_canary_without_a_holdback_is_held_against_the_stable_variant():
    assert sides(live(share=0.3)) == {
        "canary": ("sha256:c", "trial", 0.3, "sha256:s"),
        "stable": ("sha256:s", "control", 0.3, "sha256:c"),
    }


def test_a_promoted_variant_is_held_against_its_holdback_for_ever():
    assert sides(live(canary=None, holdback=0.1)) == {
        "stable": ("sha256:s", "trial", 0.9, "sha256:b"),
        "holdback": ("sha256:b", "control", 0.9, "sha256:s"),
    }


@pytest.mark.parametrize(
    "release",
    [
        live(stable=BASE, canary=None),
        live(canary=None),
        live(stable=BASE, canary=None, holdback=0.3),
        live(stable=BASE, share=0.0),
        live(stable=BASE, share=1.0),
        live(share=0.0, holdback=0.2),
        live(stable=BASE, canary=CANARY.model_copy(update={"artifact": BASE.artifact}), share=0.5),
    ],
)
def test_where_nobody_is_drawn_to_the_other_side_there_is_no_side(release):
    assert {one[1:] for one in sides(release).values()} == {("", 0.0, "")}


def test_a_replica_without_one_of_the_variants_tells_of_no_other_trial():
    assert {one[1] for one in sides(live(share=0.3, holdback=0.1), up=("BF16", "W8A8")).values()} == {""}
    assert {one[1] for one in sides(live(share=0.3), up=("BF16", "W4A16")).values()} == {""}
    held = sides(live(share=0.3, holdback=0.1), up=("BF16", "W4A16"))
    assert held == {
        "canary": ("sha256:c", "trial", 0.3, "sha256:b"),
        "stable": ("sha256:b", "control", 0.3, "sha256:c"),
    }, "the stable variant's sessions are the baseline's here, drawn as they are"


@given(LIVES)
def test_odds_are_the_trials_part_of_the_sessions_that_have_a_side(release):
    now = Releases.of(release, UP)
    cohorts = {"canary": now.share, "holdback": now.holdback, "stable": 1.0 - now.share - now.holdback}
    choices = {one.cohort: one for one in (now.stable, now.canary, now.held) if one is not None and one.side}
    assert len(choices) in (0, 2)
    if choices:
        trial = next(one for one in choices.values() if one.side == "trial")
        control = next(one for one in choices.values() if one.side == "control")
        both = cohorts[trial.cohort] + cohorts[control.cohort]
        assert trial.odds == control.odds == pytest.approx(cohorts[trial.cohort] / both, abs=1e-12)
        assert (trial.against, control.against) == (control.arm.digest, trial.arm.digest)
        assert 0 < trial.odds < 1


@pytest.mark.parametrize(("share", "holdback", "stable"), [(0.05, 0, BASE), (0.2, 0.05, STABLE), (0.4, 0, STABLE)])
def test_the_fraction_of_trials_among_sessions_with_a_side_is_the_odds(share, holdback, stable):
    now = Releases.of(live(share=share, holdback=holdback, stable=stable), UP)
    drawn = [one for number in range(40_000) if (one := now.drawn(f"session-{number}")).side]
    odds = drawn[0].odds
    trials = sum(one.side == "trial" for one in drawn)
    spread = 5 * (len(drawn) * odds * (1 - odds)) ** 0.5  # five standard deviations: one false alarm in a million
    assert abs(trials - len(drawn) * odds) < spread


@given(st.text(), st.text(min_size=1), SHARES, SHARES, HOLDBACKS, st.sampled_from([STABLE, BASE]))
def test_a_ramp_moves_no_session_off_the_trial_and_a_session_keeps_its_side(
    session, salt, one, other, holdback, stable
):
    low, high = sorted((one, other))
    before, again, after = (
        Releases.of(live(share=share, holdback=holdback, salt=salt, stable=stable), UP).drawn(session)
        for share in (low, low, high)
    )
    assert before == again
    if before.side == "trial":
        assert after.side == "trial" or after.odds == 0.0, "the only way out is that nothing is compared any more"
        assert after.arm == before.arm
    if after.side == "control" and before.odds:
        assert before.side == "control"


@given(LIVES, st.sampled_from(["baseline", "stable", "canary"]))
def test_who_was_pinned_is_on_no_side(release, name):
    router = CohortRouter("laptop", release, UP, rules=[PolicyRule(name="r", variant=name)])
    assert (router.choose(request()).side, router.choose(request()).odds) == ("", 0.0)
    named = {"model": "quantgate/BF16"}
    asked = CohortRouter("laptop", release, UP).choose(request(body=named, caller=Caller("k", frozenset({"admin"}))))
    assert (asked.cohort, asked.side) == ("pinned", "")


def test_exchanges_say_it_and_a_copy_says_whom_it_is_to_be_compared_with(tmp_path):
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        upstreams = {"BF16": base, "W4A16": canary}
        live = {"baseline": "BF16", "canary": "W4A16", "share": 0.5}
        config = config_of(
            tmp_path, upstreams, live=live, shadow={"variant": "W4A16", "share": 1.0}, watch={"enabled": False}
        )
        with served(config) as (gateway, client):
            answers = {client.chat(session=f"s{number}").headers["x-request-id"] for number in range(20)}
            until(lambda: gateway.parts.shadow is not None and gateway.parts.shadow.asked)
        reader = Reader(connect(gateway.parts.folder.exchanges))
        found = [one for _, one in reader.since()]
        reader.close()
    live_ones = {one.id: one for one in found if not one.shadow}
    assert set(live_ones) == answers
    by_side = {one.side: (one.artifact, one.odds, one.against) for one in live_ones.values()}
    assert by_side == {
        "trial": ("sha256:W4A16", 0.5, "sha256:BF16"),
        "control": ("sha256:BF16", 0.5, "sha256:W4A16"),
    }
    copies = [one for one in found if one.shadow]
    assert copies
    for one in copies:
        assert (one.side, one.odds, one.artifact) == ("", 0.0, "sha256:W4A16")
        assert one.against == live_ones[one.id].artifact == "sha256:BF16"


def test_a_copys_text_is_messages_as_of_any_other_exchange():
    kept = []

    class Sink:
        def put(self, exchange):
            kept.append(exchange)

    async def run(url: str) -> None:
        http = HttpUpstream(url, "scripted")
        await http.start()
        given = ShadowConfig(variant="W4A16", share=1.0)
        copies = Copies(given, Arm("W4A16", "sha256:c", "canary"), lambda: http, Sink(), admit, keep_text=True)
        asked = {"messages": [{"role": "user", "content": "a"}], "tools": [TOOL]}
        copies.offer(request(body=asked), Choice(ARM, "stable", 0.5, 7))
        async with asyncio.timeout(30):
            while not kept:
                await asyncio.sleep(0.005)
        await copies.close()
        await http.close()

    with ScriptedUpstream() as upstream:
        asyncio.run(run(upstream.url))
    (one,) = kept
    assert one.text["prompt"] == [{"role": "user", "content": "a"}]
    assert [message["role"] for message in one.text["answer"]] == ["assistant"]
    assert one.text["tools"] is True, "or the live answer alone could be told for calling none"
    assert one.against == "sha256:b"


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
ARM = Arm("BF16", "sha256:b", "baseline")
