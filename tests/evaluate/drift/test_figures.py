"""All figures of many positions: the published four-token answers, and llama.cpp's definitions recomputed in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantgate.evaluate.drift import joined, positions, summarize
from quantgate.evaluate.drift.distances import NUCLEUS, TOP
from quantgate.evaluate.drift.figures import PERCENTILES, correlation, percentiles
from quantgate.evaluate.drift.intervals import interval, intervals
from quantgate.evaluate.drift_record import DRAWS, LEVEL, MIN_DOCUMENTS

BASE = torch.tensor([[2, 1, 0, -1], [0.2, 0.1, 0, -3], [5, 0, 0, 0]])
VARIANT = torch.tensor([[1.5, 1.2, 0.1, -1], [0.05, 0.15, 0, -3], [4, 0.5, 0, 0]])
TRUE = torch.tensor([0, 2, 0])


def random_logits(seed: int, rows: int = 400, width: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    base = 3 * torch.randn(rows, width, generator=draw)
    return base, base + torch.randn(rows, width, generator=draw), torch.randint(0, width, (rows,), generator=draw)


def test_total_variation_and_mean_change_have_their_known_answers() -> None:
    seen = positions(BASE, VARIANT, TRUE)
    assert float(seen.tv[0]) == pytest.approx(0.160706, abs=5e-7)
    detail = summarize(seen).detail
    assert detail is not None
    assert detail.dp.mean == pytest.approx(-0.064412, abs=5e-7)


def test_every_figure_is_llama_cpps_definition_in_numpy() -> None:
    """float64 numpy from the logits, sd^2 = E[x^2] - E[x]^2 and n - 1 as its source has them."""
    base, other, true = random_logits(1)
    found = summarize(positions(base, other, true))
    detail = found.detail
    assert detail is not None
    n, at = len(true), np.arange(len(true))

    def log_softmax(logits: torch.Tensor) -> Any:
        x = logits.double().numpy()
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    log_p, log_q = log_softmax(base), log_softmax(other)
    kl = np.where(log_p > -16, np.exp(log_p) * (log_p - log_q), 0).sum(1)
    nll_p, nll_q = -log_p[at, true.numpy()], -log_q[at, true.numpy()]
    dp = np.exp(-nll_q) - np.exp(-nll_p)

    def unc(x: np.ndarray) -> float:
        return math.sqrt((np.mean(x * x) - x.mean() ** 2) / (n - 1))

    cov = (np.mean(nll_p * nll_q) - nll_p.mean() * nll_q.mean()) / (n - 1)
    same = (log_p.argmax(1) == log_q.argmax(1)).mean()
    rms = math.sqrt(np.mean(dp * dp))
    wanted = {
        found.kl_mean: kl.mean(),
        detail.kl.se: unc(kl),
        found.ppl_variant: math.exp(nll_q.mean()),
        detail.ppl_variant_se: math.exp(nll_q.mean()) * unc(nll_q),
        detail.ppl_baseline_se: math.exp(nll_p.mean()) * unc(nll_p),
        math.log(found.ppl_ratio): nll_q.mean() - nll_p.mean(),
        found.ppl_ratio_se: math.sqrt(unc(nll_q) ** 2 + unc(nll_p) ** 2 - 2 * cov),
        detail.correlation: cov / (unc(nll_q) * unc(nll_p)),
        detail.dp.mean: dp.mean(),
        detail.dp.se: unc(dp),
        found.rms_dp: rms,
        detail.rms_dp_se: 0.5 / rms * unc(dp * dp),
        found.same_top: same,
        detail.same_top_se: math.sqrt(same * (1 - same) / (n - 1)),
        detail.tv_mean: 0.5 * np.abs(np.exp(log_p) - np.exp(log_q)).sum(1).mean(),
    }
    for ours, theirs in wanted.items():
        assert ours == pytest.approx(theirs, rel=1e-6)  # tokens of ln P <= -16 are left out there
    for name, share in PERCENTILES.items():
        assert detail.kl.percentiles[name] == pytest.approx(np.quantile(kl, share), rel=1e-6)
        assert detail.dp.percentiles[name] == pytest.approx(np.quantile(dp, share), rel=1e-9)


@given(values=st.lists(st.floats(-9, 9), min_size=1, max_size=40))
def test_percentiles_are_numpys_linear_ones(values: list[float]) -> None:
    found = percentiles(torch.tensor(values, dtype=torch.float64))
    for name, share in PERCENTILES.items():
        assert found[name] == pytest.approx(np.quantile(values, share), abs=1e-12)


@pytest.mark.parametrize("width", [60, 700])
def test_tails_are_what_sorting_every_row_says(width: int) -> None:
    base, other, true = random_logits(2, rows=80, width=width)
    base[:20] /= 30  # so flat that a nucleus needs most of the vocabulary
    seen = positions(base, other, true)
    p, q = base.double().softmax(-1).numpy(), other.double().softmax(-1).numpy()
    for row in range(len(p)):
        order = np.argsort(-p[row], kind="stable")
        need = int(np.searchsorted(np.cumsum(p[row][order]), NUCLEUS)) + 1
        for size, ours in (
            (TOP, (seen.top_baseline, seen.top_variant)),
            (need, (seen.nucleus_baseline, seen.nucleus_variant)),
        ):
            for mass, told in zip((p, q), ours, strict=True):
                assert float(told[row]) == pytest.approx(mass[row][order[size:]].sum(), abs=1e-12)


def test_mass_that_moves_into_the_tail_is_told() -> None:
    base = torch.full((40, 50), -4.0)
    base[:, :3] = 4.0
    other = base.clone()
    other[:, 40] = 6.0  # a token that the baseline finds unlikely
    seen = positions(base, other, torch.zeros(40, dtype=torch.long))
    detail = summarize(seen, torch.arange(40)).detail
    assert detail is not None
    nucleus = detail.tails[1]
    assert nucleus.outside == "the fewest tokens that hold 95% of the baseline"
    assert nucleus.moved == pytest.approx(float(other[0].softmax(-1)[40]), abs=0.01)
    assert nucleus.low is not None and nucleus.low > 0.6


def test_a_baseline_that_never_varies_correlates_with_nothing() -> None:
    assert correlation(torch.ones(5), torch.rand(5)) is None


def test_too_few_documents_have_no_interval() -> None:
    values = torch.rand(90, dtype=torch.float64)
    assert interval(values, torch.arange(90) % (MIN_DOCUMENTS - 1)) == (None, None)
    low, high = interval(values, torch.arange(90) % MIN_DOCUMENTS)
    assert low is not None and high is not None and low < float(values.mean()) < high


def test_intervals_are_seeded_and_columns_share_their_draws() -> None:
    values = torch.rand(200, dtype=torch.float64)
    documents = torch.arange(200) % 20
    pair = intervals(torch.stack([values, 2 * values], 1), documents, seed=4)
    assert pair == intervals(torch.stack([values, 2 * values], 1), documents, seed=4)
    assert pair[1] == pytest.approx(tuple(2 * one for one in pair[0] if one is not None))
    assert pair[0] != interval(values, documents, seed=5)


def test_intervals_of_a_bootstrap_by_hand() -> None:
    """The same draws by looping over documents one by one."""
    values, documents = torch.arange(30, dtype=torch.float64) ** 2, torch.arange(30) // 3
    drawn = np.random.default_rng(0).integers(0, 10, (DRAWS, 10))
    blocks = values.numpy().reshape(10, 3)
    means = [blocks[row].mean() for row in drawn]
    wanted = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    assert interval(values, documents) == pytest.approx(tuple(wanted))


def test_documents_and_not_tokens_are_drawn() -> None:
    """60 documents of 50 equal tokens each: an interval over tokens would be far too narrow."""
    generator, hits, naive = np.random.default_rng(7), 0, 0
    for _ in range(100):
        values = torch.from_numpy(np.repeat(generator.exponential(1.0, 60), 50))
        low, high = interval(values, torch.arange(3000) // 50)
        hits += low is not None and high is not None and low <= 1.0 <= high
        naive += abs(float(values.mean()) - 1.0) <= 1.96 * float(values.std()) / 3000**0.5
    assert hits >= 86  # 95 at best; a bootstrap of 60 skewed documents falls a little short
    assert naive < 40


def test_joining_keeps_every_figure() -> None:
    base, other, true = random_logits(3, rows=30)
    whole = positions(base, other, true)
    parts = joined([positions(base[cut], other[cut], true[cut]) for cut in (slice(0, 11), slice(11, 30))])
    assert summarize(parts) == summarize(whole)
