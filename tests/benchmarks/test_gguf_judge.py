"""KL by document and its intervals: known answers, and how often an interval holds the truth."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.gguf.judge import Distances, distances, mean, ratio
from quantgate.errors import EngineError
from quantgate.evaluate.drift import joined, positions, summarize


def made(sums: list[float], tokens: list[int]) -> Distances:
    return Distances(np.array(sums), np.array(tokens, dtype=np.float64))


class Fixed:
    """An engine whose logits are known."""

    def __init__(self, logits: list[Tensor]) -> None:
        self.logits_of = iter(logits)

    def logits(self, ids: Tensor, at: Tensor) -> Tensor:
        return next(self.logits_of)[at]


def judge_of(batches: Any, logits: list[Tensor]) -> Any:
    return SimpleNamespace(batches=batches, logits=[one[at] for one, (_, at) in zip(logits, batches, strict=True)])


def test_kl_is_summed_document_by_document() -> None:
    """Baseline 1/2, 1/2 against 3/4, 1/4: ln 2 - ln 3 / 2 at each judged position."""
    at = torch.tensor([[True, True, False], [True, False, False]])
    ids = torch.zeros(2, 3, dtype=torch.long)
    even, uneven = torch.zeros(2, 3, 2), torch.tensor([math.log(3), 0.0]).expand(2, 3, 2)
    found = distances(judge_of([(ids, at)], [even]), Fixed([uneven]))  # type: ignore[arg-type]
    one = math.log(2) - math.log(3) / 2
    assert found.sums == pytest.approx([2 * one, one]) and found.tokens.tolist() == [2, 1]
    assert found.mean == pytest.approx(one)


def test_mean_is_that_of_the_drift_record() -> None:
    draw = torch.Generator().manual_seed(0)
    batches = [
        (torch.randint(0, 9, shape, generator=draw), torch.rand(shape, generator=draw) > 0.4)
        for shape in ((3, 5), (2, 8))
    ]
    base, other = ([torch.randn(*ids.shape, 9, generator=draw) for ids, _ in batches] for _ in range(2))
    found = distances(judge_of(batches, base), Fixed(other))  # type: ignore[arg-type]
    parts = [
        positions(one[at], two[at], ids.roll(-1, dims=1)[at])
        for (ids, at), one, two in zip(batches, base, other, strict=True)
    ]
    assert found.mean == pytest.approx(summarize(joined(parts)).kl_mean) and len(found.sums) == 5


def test_logits_that_are_not_finite_are_an_error() -> None:
    at = torch.ones(1, 2, dtype=torch.bool)
    broken = torch.full((1, 2, 3), torch.nan)
    with pytest.raises(EngineError, match="NaN or infinite"):
        distances(judge_of([(torch.zeros(1, 2, dtype=torch.long), at)], [torch.zeros(1, 2, 3)]), Fixed([broken]))  # type: ignore[arg-type]


def test_documents_count_by_their_tokens() -> None:
    assert made([1.0, 3.0], [1, 9]).mean == mean(made([1.0, 3.0], [1, 9])).value == 0.4


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=20), st.floats(0.05, 20))
def test_a_ratio_that_is_the_same_in_every_document_has_no_spread(sums: list[float], times: float) -> None:
    tokens = list(range(1, len(sums) + 1))
    found = ratio(made([times * one for one in sums], tokens), made(sums, tokens))
    assert [found.value, found.low, found.high] == pytest.approx([times] * 3)


def test_interval_of_the_mean_holds_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for at in range(100):
        found = mean(made(list(draw.exponential(2.0, 80)), [1] * 80), seed=at)
        held += found.low <= 2.0 <= found.high
    assert 86 <= held <= 99


def test_variants_judged_on_different_documents_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="different documents"):
        ratio(made([1.0, 1.0], [1, 2]), made([1.0, 1.0], [2, 1]))
