"""hqq: a fit without data that gives outliers up for the rest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantgate.formats import IntGrid
from quantgate.formats.codec import decode, encode, scales_for
from quantgate.quantize.methods import Job, LayerStats, get, solve
from quantgate.quantize.methods.hqq import HqqOptions, fit, shrink


def loss(weight: Tensor, stored: Tensor, norm: float) -> float:
    return float((stored - weight).abs().double().pow(norm).sum())


@given(
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    group=st.sampled_from([None, 8, 16]),
    seed=st.integers(0, 2**32 - 1),
    tail=st.sampled_from([1.0, 5.0, 30.0]),
)
def test_never_worse_than_min_max_in_its_own_norm(
    bits: int, symmetric: bool, group: int | None, seed: int, tail: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 32, generator=generator)
    weight[:, 3] *= tail
    strategy = "channel" if group is None else "group"
    grid = IntGrid(bits=bits, symmetric=symmetric, strategy=strategy, group_size=group)  # type: ignore[arg-type]
    scales, zeros = fit(weight, grid, torch.float32, HqqOptions())
    plain, plain_zeros = scales_for(weight, grid, dtype=torch.float32)
    fitted = loss(weight, decode(encode(weight, grid, scales, zeros), grid, scales, zeros), 0.7)
    before = loss(weight, decode(encode(weight, grid, plain, plain_zeros), grid, plain, plain_zeros), 0.7)
    assert fitted <= before * (1 + 1e-5)


def test_shrink_is_the_minimiser_up_to_first_order() -> None:
    """For p = 1 it is soft thresholding, exactly; small errors vanish, large ones stay."""
    x = torch.tensor([-3.0, -0.05, 0.0, 0.05, 3.0])
    assert torch.allclose(shrink(x, 1.0, 10.0), torch.tensor([-2.9, 0.0, 0.0, 0.0, 2.9]))
    assert shrink(torch.tensor([5.0]), 0.7, 10.0) == pytest.approx(5 - 5**-0.3 / 10)


def test_outliers_pay_for_the_rest() -> None:
    """One weight in 64 is fifty times the others: min-max spends the whole range on it."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(16, 64, generator=generator)
    weight[:, 5] = 50.0
    grid = IntGrid(bits=4)
    fitted = solve(get("hqq"), Job(weight, grid), None)
    plain = solve(get("rtn"), Job(weight, grid), None)
    rest = torch.arange(64) != 5
    assert (fitted.weight() - weight)[:, rest].abs().mean() < 0.3 * (plain.weight() - weight)[:, rest].abs().mean()
    assert fitted.facts.clip == "l0.7"
    assert 1 / 64 <= fitted.facts.clipped < 3 / 64


def test_a_weight_that_is_on_the_grid_stays() -> None:
    grid = IntGrid(bits=4, symmetric=False, strategy="group", group_size=16)
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(-8, 8, (4, 32), generator=generator, dtype=torch.int8)
    codes[:, ::16], codes[:, 1::16] = -8, 7
    scales, zeros = torch.full((4, 2), 0.25), torch.full((4, 2), -3, dtype=torch.int8)
    weight = decode(codes, grid, scales, zeros)
    assert torch.equal(solve(get("hqq"), Job(weight, grid), None).weight(), weight)


def test_error_is_reported_where_there_are_statistics() -> None:
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    stats = LayerStats.of(torch.randn(50, 16, generator=torch.Generator().manual_seed(2)))
    assert solve(get("hqq"), Job(weight, IntGrid(bits=3)), None).facts.error is None
    assert (solve(get("hqq"), Job(weight, IntGrid(bits=3)), stats).facts.error or 0) > 0
