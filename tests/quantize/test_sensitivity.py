"""Foreseen drift is the drift that happens, and the integer program finds what a search of all mixtures finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.errors import DataError, UsageError
from quantgate.quantize import BASELINE, baseline, load_dequantized
from quantgate.quantize.allocate import fewest_bytes, frontier, least_drift
from quantgate.quantize.mix import linears, mix
from quantgate.quantize.sensitivity import sensitivity

IDS, START = [3, 17, 200, 45, 9, 77, 130, 21, 64, 5, 33, 101, 250, 12, 88, 41], 6


def true_kl(tiny, network) -> float:
    """Mean KL divergence in nats over the answer's tokens."""
    with torch.inference_mode():
        before = load_dequantized(baseline(tiny), torch.float32)(torch.tensor([IDS])).logits[0, START - 1 : -1]
        after = network(torch.tensor([IDS])).logits[0, START - 1 : -1]
    log_p, log_q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


@pytest.fixture(scope="module")
def sources(swept):
    return {name: swept[name] for name in ("W8A16", "W4A16-g32")}


@pytest.fixture(scope="module")
def probed(tiny, sources):
    """600 probes of one conversation: the estimator's relative standard error is about sqrt(2 / 600) = 6 %."""
    return sensitivity(tiny, sources, {"chat": [(IDS, START)] * 600})


def test_the_drift_of_one_group_alone_is_foreseen(tiny, sources, probed, tmp_path) -> None:
    groups = linears(tiny)
    assert [list(group) for group in probed.groups] == groups
    for at in (0, 3, len(groups) - 1):
        choice = {layer: "W8A16" if group == groups[at] else BASELINE for group in groups for layer in group}
        made = mix(tiny, sources, choice, tmp_path / f"only-{at}")
        seen = true_kl(tiny, load_dequantized(made, torch.float32))
        assert float(probed.kl("chat")[at, 0]) == pytest.approx(seen, rel=0.3)
        assert probed.expected("chat", choice) == pytest.approx(float(probed.kl("chat")[at, 0]))


def test_the_drift_of_a_whole_mixture_is_foreseen_with_what_groups_do_together(tiny, sources, probed, tmp_path) -> None:
    choice = {layer: "W8A16" for group in linears(tiny) for layer in group}
    made = mix(tiny, sources, choice, tmp_path / "all")
    seen = true_kl(tiny, load_dequantized(made, torch.float32))
    assert probed.expected("chat", choice) == pytest.approx(seen, rel=0.3)


def test_fewer_bits_are_foreseen_to_drift_more_and_the_model_itself_not_at_all(tiny, probed) -> None:
    kl = probed.kl("chat")
    assert (kl[:, 1] > 20 * kl[:, 0]).all()  # four bits fewer: errors 16 times as large, drift 256 times
    assert probed.expected("chat", {layer: BASELINE for group in linears(tiny) for layer in group}) == 0


def test_the_same_seed_probes_alike(tiny, sources) -> None:
    one, two, other = (sensitivity(tiny, sources, {"chat": [(IDS, START)]}, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.moves["chat"], two.moves["chat"])
    assert not torch.equal(one.moves["chat"], other.moves["chat"])


@pytest.mark.parametrize(("examples", "sentence"), [([], "no examples of chat"), ([(IDS, len(IDS))], "has no answer")])
def test_nothing_to_probe_is_refused(tiny, sources, examples, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        sensitivity(tiny, sources, {"chat": examples})


tables = st.integers(0, 2**32 - 1).map(
    lambda seed: (
        {name: np.random.default_rng(seed + at).exponential(1e-3, (4, 3)) for at, name in enumerate(("math", "chat"))},
        np.random.default_rng(seed).integers(100, 100_000, (4, 3)).astype(float),
    )
)


def every_mixture(drift, sizes):
    at = np.arange(len(sizes))
    for choice in itertools.product(range(sizes.shape[1]), repeat=len(sizes)):
        yield int(sizes[at, choice].sum()), {name: float(one[at, choice].sum()) for name, one in drift.items()}


@given(tables, st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_least_drift_is_that_of_the_best_of_all_mixtures(table, share) -> None:
    drift, sizes = table
    weights = {"math": 1.0, "chat": 0.25}
    low, high = sizes.min(axis=1).sum(), sizes.max(axis=1).sum()
    budget = float(np.ceil(low + share * (high - low)))
    best = min(
        max(found[name] / weights[name] for name in weights)
        for size, found in every_mixture(drift, sizes)
        if size <= budget
    )
    made = least_drift(drift, sizes, budget, weights)
    assert made.bytes <= budget
    assert made.drift == pytest.approx(best, rel=1e-3)


@given(tables, st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_fewest_bytes_are_those_of_the_smallest_mixture_below_the_ceilings(table, share) -> None:
    drift, sizes = table
    ceilings = {}
    for name, one in drift.items():
        low, high = one.min(axis=1).sum(), one.max(axis=1).sum()
        ceilings[name] = float(low + (0.3 + 0.7 * share) * (high - low))
    allowed = [
        size for size, found in every_mixture(drift, sizes) if all(found[name] <= ceilings[name] for name in ceilings)
    ]
    if not allowed:
        return
    made = fewest_bytes(drift, sizes, ceilings)
    assert made.bytes == pytest.approx(min(allowed), rel=1e-3)
    at = np.arange(len(sizes))
    assert all(drift[name][at, made.choice].sum() <= ceilings[name] * (1 + 1e-6) for name in ceilings)


def test_the_frontier_drifts_less_the_larger_it_gets() -> None:
    rng = np.random.default_rng(0)
    sizes = np.sort(rng.integers(1000, 9000, (12, 4)).astype(float), axis=1)
    drift = {"math": -np.sort(-rng.exponential(1e-4, (12, 4)), axis=1)}
    found = frontier(drift, sizes, {"math": 1.0})
    assert len(found) > 5
    for one, two in itertools.pairwise(found):
        assert two.bytes > one.bytes
        assert two.drift < one.drift
    assert found[0].bytes == sizes.min(axis=1).sum()
    assert found[-1].drift == pytest.approx(drift["math"].min(axis=1).sum(), rel=1e-3)


def test_what_cannot_be_is_told() -> None:
    sizes, drift = np.full((2, 2), 100.0), {"math": np.array([[1.0, 0.5], [1.0, 0.5]])}
    with pytest.raises(UsageError, match="the smallest mixture takes 200"):
        least_drift(drift, sizes, 150, {"math": 1.0})
    with pytest.raises(UsageError, match="the closest has 1"):
        fewest_bytes(drift, sizes, {"math": 0.1})
