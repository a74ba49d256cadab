"""Hadamard matrices of many orders, and rotations that keep every length."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.errors import FormatError
from quantgate.quantize.hadamard import Rotation, constructible, factors, hadamard

ORDERS = [one for one in range(1, 400) if constructible(one)]
WIDTHS = (576, 896, 960, 1152, 1536, 2304, 2560, 2880, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 16384)  # published


def test_the_known_small_ones() -> None:
    assert hadamard(2).tolist() == [[1, 1], [1, -1]]
    assert hadamard(4).tolist() == [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    assert hadamard(12)[1:, 1:].diagonal().tolist() == [1] * 11  # Paley I: the core's diagonal is 0, plus the identity


@pytest.mark.parametrize("order", ORDERS)
def test_rows_and_columns_are_orthogonal(order: int) -> None:
    made = hadamard(order)
    assert bool((made.abs() == 1).all())
    assert torch.equal(made @ made.T, order * torch.eye(order, dtype=torch.float64))
    assert torch.equal(made.T @ made, order * torch.eye(order, dtype=torch.float64))


def test_every_multiple_of_four_below_100_but_92_is_made() -> None:
    assert [one for one in range(1, 100) if constructible(one)] == [1, 2, *(n for n in range(4, 100, 4) if n != 92)]


@pytest.mark.parametrize("order", [28, 52, 100])  # 27 = 3^3, 25 = 5^2, 49 = 7^2: fields that are not the integers mod q
def test_prime_powers_serve_too(order: int) -> None:
    assert len(factors(order)) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_widths_of_published_models_have_small_factors(width: int) -> None:
    sizes = [len(one) for one in factors(width)]
    assert torch.tensor(sizes).prod() == width
    assert max(sizes) <= 64


@pytest.mark.parametrize("order", [0, 3, 6, 92, 116])
def test_others_are_refused_with_the_sizes_that_work(order: int) -> None:
    with pytest.raises(
        FormatError, match=rf"a width of {order} has no Hadamard matrix .* powers of two and of Paley's"
    ):
        factors(order)


@given(width=st.sampled_from([1, 2, 12, 24, 64, 96, 160, 336, 1152]), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_rotation_is_the_signed_matrix_and_keeps_lengths(width: int, seed: int) -> None:
    rotation = Rotation.of(width, seed)
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    whole = rotation.signs[:, None] * hadamard(width) / width**0.5
    found = rotation(x, torch.float64)
    torch.testing.assert_close(found, x @ whole)
    torch.testing.assert_close(found.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(rotation.columns(x.T, torch.float64), whole.T @ x.T)
    h = x.T @ x
    torch.testing.assert_close(rotation.both(h, torch.float64), whole.T @ h @ whole)


def test_what_stands_out_is_spread() -> None:
    x = torch.zeros(1, 4096)
    x[0, 17] = 64.0
    assert Rotation.of(4096, 3)(x).abs().unique().tolist() == [1.0]


def test_seeds_choose_signs_and_leave_the_process_alone() -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(Rotation.of(64, 5).signs, Rotation.of(64, 5).signs)
    assert not torch.equal(Rotation.of(64, 5).signs, Rotation.of(64, 6).signs)
    assert torch.equal(torch.random.get_rng_state(), before)
