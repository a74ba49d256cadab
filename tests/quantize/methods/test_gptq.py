"""gptq: against arithmetic by hand, against the textbook loop, against rounding, and when the Hessian is bad."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats import FloatGrid, IntGrid
from quantgate.formats.codec import decode, encode, scales_for
from quantgate.formats.grids import Grid
from quantgate.quantize.methods import Job, LayerStats, Solved, solve
from quantgate.quantize.methods.gptq import METHOD, GptqOptions
from quantgate.quantize.methods.rtn import METHOD as RTN
from quantgate.quantize.methods.rtn import RtnOptions

INT4 = IntGrid(bits=4, strategy="group", group_size=32)
PLAIN = GptqOptions(clip="minmax", descent=0, order="natural")


def layer(out: int = 24, columns: int = 96, tokens: int = 400, seed: int = 3) -> tuple[Tensor, Tensor]:
    """A weight, and correlated inputs whose features differ in size."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns // 3, columns, generator=generator)
    inputs = torch.randn(tokens, columns // 3, generator=generator) @ mix + torch.randn(
        tokens, columns, generator=generator
    )
    return torch.randn(out, columns, generator=generator), inputs * torch.randn(columns, generator=generator).exp()


def error(solved: Solved) -> float:
    assert solved.facts.error is not None
    return solved.facts.error


def damped_loss(solved: Solved, weight: Tensor, stats: LayerStats) -> float:
    hessian = stats.hessian.double()
    change = (solved.weight() - weight).double()
    ridge = (solved.facts.damping or 0.0) * hessian.diagonal().mean()
    return float((change @ hessian * change).sum() + ridge * change.square().sum())


def textbook(weight: Tensor, grid: Grid, inputs_hessian: Tensor, damping: float) -> Tensor:
    """Frantar et al. 2022, algorithm 1 with blocks of one column, in float64; codes [out, in]."""
    hessian = inputs_hessian.double()
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    scales, zeros = scales_for(weight, grid)
    left = weight.double().clone()
    codes = torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        chosen = encode(left.float(), grid, scales, zeros)
        codes[:, column] = chosen[:, column].float()
        stored = decode(chosen, grid, scales, zeros)[:, column].double()
        spread = (left[:, column] - stored) / upper[column, column]
        left[:, column:] -= torch.outer(spread, upper[column, column:])
    return codes


def test_two_columns_by_hand() -> None:
    # Scale 1, H = [[1, 0.5], [0.5, 1]]: column 0 (1.4) becomes 1, and its error 0.4 adds 0.4 * 0.5 / 1 to column 1.
    weight = torch.tensor([[1.4, 1.35, 7.5, 0.0]])
    hessian = torch.eye(4)
    hessian[0, 1] = hessian[1, 0] = 0.5
    options = GptqOptions(clip="minmax", descent=0, order="natural", damping=0.0)
    solved = solve(METHOD, Job(weight, IntGrid(bits=4), options), LayerStats(hessian, 4))
    assert solved.codes.tolist() == [[1, 2, 7, 0]]
    assert solve(RTN, Job(weight, IntGrid(bits=4)), None).codes.tolist() == [[1, 1, 7, 0]]


@pytest.mark.parametrize("grid", [INT4, IntGrid(bits=3, symmetric=False), IntGrid(bits=2), FloatGrid()], ids=str)
def test_codes_are_those_of_the_textbook_loop(grid: Grid) -> None:
    weight, inputs = layer()
    stats = LayerStats.of(inputs)
    solved = solve(METHOD, Job(weight, grid, PLAIN), stats)
    assert torch.equal(solved.codes.float(), textbook(weight, grid, stats.hessian, 0.01))


def test_static_order_is_a_permutation_that_leaves_no_trace_in_the_file() -> None:
    weight, inputs = layer()
    stats = LayerStats.of(inputs)
    grid = IntGrid(bits=4)  # one scale a row, so that columns may be moved by hand
    order = stats.hessian.diagonal().argsort(descending=True, stable=True)
    moved = LayerStats(stats.hessian[order][:, order], stats.tokens)
    by_hand = solve(METHOD, Job(weight[:, order], grid, PLAIN), moved)
    ordered = solve(METHOD, Job(weight, grid, PLAIN.model_copy(update={"order": "activation"})), stats)
    assert torch.equal(ordered.codes[:, order], by_hand.codes)


@settings(max_examples=20)
@given(seed=st.integers(0, 50), bits=st.sampled_from([2, 3, 4, 8]))
def test_uncorrelated_inputs_leave_nothing_but_rounding(seed: int, bits: int) -> None:
    weight, _ = layer(seed=seed)
    grid = IntGrid(bits=bits, strategy="group", group_size=32)
    options = GptqOptions(clip="minmax", descent=0)
    solved = solve(METHOD, Job(weight, grid, options), LayerStats(torch.eye(96), 1))
    assert torch.equal(solved.codes, solve(RTN, Job(weight, grid), None).codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_correlated_inputs_lose_less_than_by_rounding(bits: int) -> None:
    weight, inputs = layer()
    stats = LayerStats.of(inputs)
    grid = IntGrid(bits=bits, strategy="group", group_size=32)
    rounded = solve(RTN, Job(weight, grid, RtnOptions(clip="hessian")), stats)
    plain = solve(METHOD, Job(weight, grid, PLAIN), stats)
    full = solve(METHOD, Job(weight, grid), stats)
    assert error(full) < error(plain)
    assert error(full) < 0.5 * error(rounded)


def test_leaf_changes_speed_and_not_codes() -> None:
    weight, inputs = layer()
    codes = [
        solve(METHOD, Job(weight, INT4, GptqOptions(leaf=leaf)), LayerStats.of(inputs)).codes
        for leaf in (1, 7, 32, 128)
    ]
    for other in codes[1:]:
        assert (codes[0] != other).float().mean() < 0.002  # sums in another order: a tie may fall to the other side


@settings(max_examples=20)
@given(seed=st.integers(0, 30), bits=st.sampled_from([2, 3, 4, 8]), symmetric=st.booleans())
def test_no_pass_of_descent_raises_the_damped_error(seed: int, bits: int, symmetric: bool) -> None:
    weight, inputs = layer(8, 48, 100, seed)
    stats = LayerStats.of(inputs)
    grid = IntGrid(bits=bits, symmetric=symmetric, strategy="group", group_size=16)
    losses = [
        damped_loss(solve(METHOD, Job(weight, grid, GptqOptions(descent=passes)), stats), weight, stats)
        for passes in range(4)
    ]
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(losses))
    assert bits == 8 or losses[-1] < losses[0]


def test_descent_ends_where_no_single_code_can_be_improved() -> None:
    weight, inputs = layer(4, 16, 60)
    stats = LayerStats.of(inputs)
    solved = solve(METHOD, Job(weight, IntGrid(bits=3), GptqOptions(descent=8)), stats)
    least = damped_loss(solved, weight, stats)
    for row in range(4):
        for column in range(16):
            for step in (-1, 1):
                codes = solved.codes.clone()
                codes[row, column] = max(-4, min(3, int(codes[row, column]) + step))
                changed = Solved(solved.grid, codes, solved.scales, solved.zeros, solved.facts)
                assert damped_loss(changed, weight, stats) >= least * (1 - 1e-6)


def test_dead_columns_are_rounded_and_counted() -> None:
    weight, inputs = layer()
    inputs[:, [3, 50]] = 0
    solved = solve(METHOD, Job(weight, INT4, GptqOptions(clip="minmax")), LayerStats.of(inputs))
    assert solved.facts.dead == 2
    rounded = solve(RTN, Job(weight, INT4), None)
    assert torch.equal(solved.codes[:, [3, 50]], rounded.codes[:, [3, 50]])


def test_no_tokens_at_all_means_rounding_and_no_claim_of_error() -> None:
    weight, _ = layer()
    solved = solve(METHOD, Job(weight, INT4, GptqOptions(clip="minmax")), LayerStats.of(torch.zeros(0, 96)))
    assert torch.equal(solved.codes, solve(RTN, Job(weight, INT4), None).codes)
    assert (solved.facts.dead, solved.facts.error) == (96, None)


def test_singular_hessian_climbs_the_ladder_and_says_so() -> None:
    weight, inputs = layer()
    stats = LayerStats.of(inputs[:20])  # 20 tokens for 96 columns
    solved = solve(METHOD, Job(weight, INT4, GptqOptions(damping=0.0)), stats)
    assert solved.facts.method == "gptq"
    assert solved.facts.retries[0] == 0.0
    assert solved.facts.damping is not None and solved.facts.damping > 0
    enough = solve(METHOD, Job(weight, INT4), stats)
    assert (enough.facts.retries, enough.facts.damping) == ((), 0.01)


def test_hessian_beyond_repair_becomes_rounding_with_the_reason() -> None:
    weight, _ = layer()
    hessian = torch.full((96, 96), -50.0).fill_diagonal_(1.0)
    solved = solve(METHOD, Job(weight, INT4), LayerStats(hessian, 10))
    facts = solved.facts
    assert (facts.asked, facts.method, facts.damping) == ("gptq", "rtn", None)
    assert facts.retries == pytest.approx((0.01, 0.1, 1.0, 10.0))
    assert "not positive definite with any damping of 0.01, 0.1, 1, 10" in facts.because
    assert torch.equal(solved.codes, encode(weight, INT4, solved.scales))


def test_variants_of_one_input_share_one_factor() -> None:
    weight, inputs = layer()
    stats = LayerStats.of(inputs)
    METHOD.solve_many([Job(weight, INT4), Job(weight, IntGrid(bits=3))], stats)
    assert stats.factor(0.01, "activation") is stats.factor(0.01, "activation")
    assert len(stats._factors) == 1
    stats.release()
    assert not stats._factors


def test_missing_calibration_is_refused() -> None:
    with pytest.raises(FormatError, match="up_proj: method gptq needs a calibration set"):
        solve(METHOD, Job(torch.ones(2, 32), INT4, name="up_proj"), None)
