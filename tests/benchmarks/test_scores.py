"""Ratios to the best peer: known answers, and what holds for any scores."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.quality import rows_of
from benchmarks.peers.scores import EQUAL_BITS, Score, against, best, comparable

OURS = Score("quantgate", "default", bits=4.125, kl=0.08)
GPTQ = Score("llmcompressor", "gptq", bits=4.125, kl=0.1, peer=True)
AWQ = Score("llmcompressor", "awq", bits=4.156, kl=0.2, peer=True)
LARGE = Score("hqq", "default", bits=4.5, kl=0.01, peer=True)
BROKEN = Score("torchao", "rtn", failed="RuntimeError: no kernel", peer=True)
PEERS = [BROKEN, AWQ, GPTQ, LARGE]

scores = st.builds(
    Score,
    tool=st.just("peer"),
    setting=st.text(max_size=3),
    bits=st.floats(1, 9),
    kl=st.none() | st.floats(0, 10),
)


def test_ratio_is_ours_over_the_least_drift_at_equal_bits() -> None:
    found = against(OURS, PEERS, 0.85)
    assert found.peer is GPTQ and found.ratio == 0.08 / 0.1 and found.met is True
    assert against(OURS, PEERS, 0.7).met is False


def test_peer_with_more_bits_is_no_equal_and_one_with_fewer_is() -> None:
    assert comparable(OURS, PEERS) == [AWQ, GPTQ]
    small = Score("hqq", "small", bits=2.0, kl=0.05)
    assert against(OURS, [*PEERS, small], 0.85).peer is small


def test_goal_is_not_met_where_nobody_is_comparable() -> None:
    for peers in ([], [BROKEN], [LARGE]):
        found = against(OURS, peers, 0.85)
        assert found.ratio is None and found.met is None


def test_failure_of_ours_meets_no_goal() -> None:
    assert against(Score("quantgate", "default", failed="DataError"), PEERS, 0.85).met is None


def test_peer_without_any_drift_is_only_met_without_any() -> None:
    exact = Score("peer", "exact", bits=4.0, kl=0.0)
    assert against(OURS, [exact], 1.0).met is False
    assert against(Score("quantgate", "exact", bits=4.0, kl=0.0), [exact], 1.0).met is True


@given(scores, st.lists(scores, max_size=6), st.floats(0.1, 2))
def test_no_comparable_peer_drifts_less_than_the_one_we_are_held_against(
    ours: Score, peers: list[Score], goal: float
) -> None:
    found = against(ours, peers, goal)
    equals = [one for one in peers if one.kl is not None and one.bits <= ours.bits + EQUAL_BITS]
    assert (found.peer is None) == (not equals)
    if found.peer is not None and found.peer.kl is not None:
        assert found.peer.kl <= min(one.kl for one in equals if one.kl is not None)
    assert (found.met is None) == (found.peer is None or ours.kl is None)


@given(st.lists(scores, max_size=6))
def test_best_is_judged_and_drifts_least(found: list[Score]) -> None:
    top = best(found)
    judged = [one.kl for one in found if one.kl is not None]
    assert (top.kl if top else None) == min(judged, default=None)


def test_rows_mark_the_best_peer_and_put_the_goal_beside_our_default_and_our_best() -> None:
    better = Score("quantgate", "gptq, descent 8", bits=4.125, kl=0.07)
    worse = Score("quantgate", "awq", bits=4.125, kl=0.3)
    rows = rows_of("W4 g128", 0.75, [OURS, worse, better, *PEERS])
    assert rows[0] == (
        "W4 g128", "quantgate", "default", "4.125", "0.08", "0.0", "0.80x of llm-compressor gptq", "at most 0.75x",
        "missed",
    )  # fmt: skip
    assert rows[1][6:] == ("3.00x of llm-compressor gptq", "", "")
    assert rows[2][6:] == ("0.70x of llm-compressor gptq", "at most 0.75x", "met")
    marked = [(row[2], row[8]) for row in rows[3:] if row[8]]
    assert marked == [("gptq", "best peer"), ("default", "more bits")]
    assert ("W4 g128", "torchao", "rtn", "", "none: RuntimeError: no kernel", "", "", "", "") in rows
