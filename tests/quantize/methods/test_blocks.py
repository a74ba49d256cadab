"""GGUF's block formats: searched scales, error feedback on them, and what the packer is given."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats import BlockGrid, IntGrid
from quantgate.formats.codec import decode, encode, scales_for
from quantgate.formats.ggml import FORMATS, BlockFormat, Name
from quantgate.formats.ggml.pack import pack
from quantgate.formats.grids import Grid
from quantgate.quantize.methods import Job, LayerStats, get, solve
from quantgate.quantize.methods._block_rows import BlockRows
from quantgate.quantize.methods._blocks import choose_blocks
from quantgate.quantize.methods._rows import Part
from quantgate.quantize.methods.gptq import GptqOptions
from quantgate.quantize.methods.rtn import RtnOptions

every_format = pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
NAMES: tuple[Name, ...] = tuple(FORMATS)


def weight_of(seed: int, out: int = 8, columns: int = 512, tails: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, columns, generator=generator)
    return weight * weight.abs() ** (tails - 1) * 10 ** torch.randn(out, 1, generator=generator)


def importance_of(seed: int, columns: int = 512) -> Tensor:
    return torch.rand(columns, generator=torch.Generator().manual_seed(seed)) ** 4 + 0.01


def stats_of(columns: int = 512, tokens: int = 2000) -> LayerStats:
    generator = torch.Generator().manual_seed(7)
    mix = torch.randn(columns, columns, generator=generator) * torch.rand(columns, generator=generator) ** 3
    return LayerStats.of(torch.randn(tokens, columns, generator=generator) @ mix.T / columns**0.5)


def lost(weight: Tensor, header: Tensor, name: Name, importance: Tensor) -> Tensor:
    """[out] the weighted squared error of nearest codes."""
    grid = BlockGrid(name=name)
    return ((decode(encode(weight, grid, header), grid, header) - weight).square() * importance).sum(1)


def damped(weight: Tensor, stored: Tensor, stats: LayerStats) -> Tensor:
    """[out] e (H + ridge I) e^T at the default damping."""
    error = (stored - weight).double()
    hessian = stats.hessian.double()
    hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
    return ((error @ hessian) * error).sum(1)


@every_format
@settings(max_examples=5)
@given(seed=st.integers(0, 9999), tails=st.sampled_from([0.5, 1.0, 2.0]))
def test_searched_scales_lose_less_than_min_max(layout: BlockFormat, seed: int, tails: float) -> None:
    weight, importance = weight_of(seed, tails=tails), importance_of(seed)
    header = choose_blocks(weight, layout, importance)
    grid = BlockGrid(name=layout.name)
    assert header.shape == grid.scales_shape(*weight.shape) and header.dtype == torch.uint8
    ours, plain = (lost(weight, one, layout.name, importance) for one in (header, scales_for(weight, grid)[0]))
    assert bool((ours <= plain).all())


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q5_0"])
def test_weights_that_are_on_the_grid_are_found_to_be(name: Name) -> None:
    layout = FORMATS[name]
    codes = torch.randint(layout.low, layout.high + 1, (4, 64), generator=torch.Generator().manual_seed(0))
    codes[:, ::32] = layout.low
    weight = codes * torch.tensor([[0.5], [0.25], [3.0], [-1.5]])
    assert float(lost(weight, choose_blocks(weight, layout), name, torch.ones(64)).max()) == 0


def test_scale_of_a_block_is_nearly_the_best_of_all_float16_numbers() -> None:
    weight, importance = weight_of(3, out=1, columns=32), importance_of(3, 32)
    ours = lost(weight, choose_blocks(weight, FORMATS["Q4_0"], importance), "Q4_0", importance)
    every = torch.arange(0x7C00, dtype=torch.int16).view(torch.float16)
    reach = float(weight.abs().max())
    every = torch.cat([every, -every])
    every = every[(every.abs() > reach / 16) & (every.abs() < reach / 4)]
    values = (weight / every.float().unsqueeze(1)).round().clamp(-8, 7) * every.float().unsqueeze(1)
    best = ((values - weight).square() * importance).sum(1).min()
    assert float(best) <= float(ours) <= 1.05 * float(best)


def test_heavy_columns_are_stored_better_than_without_importance() -> None:
    weight, importance = weight_of(5), importance_of(5)
    for name in NAMES:
        told, untold = (choose_blocks(weight, FORMATS[name], one) for one in (importance, None))
        assert float(lost(weight, told, name, importance).sum()) <= float(lost(weight, untold, name, importance).sum())


def test_weights_beyond_float16_are_refused() -> None:
    with pytest.raises(
        FormatError, match=r"up_proj: weights up to 1e\+10 need scales that float16 cannot hold; keep it"
    ):
        choose_blocks(torch.full((1, 32), 1e10), FORMATS["Q4_0"], name="up_proj")


@every_format
def test_feedback_loses_less_than_rounding_and_the_file_says_what_was_solved(layout: BlockFormat) -> None:
    weight, stats, grid = weight_of(2), stats_of(), BlockGrid(name=layout.name)
    rounded = solve(get("rtn"), Job(weight, grid, RtnOptions(clip="hessian")), stats)
    solved = solve(get("gptq"), Job(weight, grid), stats)
    assert solved.facts.error is not None and rounded.facts.error is not None
    assert solved.facts.error < 0.8 * rounded.facts.error
    data = pack(solved.codes, solved.scales, layout)
    read = torch.from_numpy(quants.dequantize(data.numpy(), GGMLQuantizationType[layout.name]))
    assert torch.equal(read, solved.weight())


@pytest.mark.parametrize("name", ["Q6_K", "Q4_K", "Q2_K", "Q5_1", "Q4_0", "IQ4_NL", "MXFP4"])
def test_passes_never_raise_the_damped_error_of_a_row(name: Name) -> None:
    weight, stats = weight_of(4), stats_of()
    jobs = [Job(weight, BlockGrid(name=name), GptqOptions(descent=passes)) for passes in range(3)]
    errors = [damped(weight, solve(get("gptq"), job, stats).weight(), stats) for job in jobs]
    assert bool((errors[1] <= errors[0] * 1.0001).all()) and bool((errors[2] <= errors[1] * 1.0001).all())
    assert float(errors[2].sum()) < float(errors[0].sum())


@pytest.mark.parametrize("name", ["Q6_K", "Q5_K", "Q3_K", "Q2_K", "Q8_0", "Q4_1"])
def test_refitted_numbers_and_errors_belong_together(name: Name) -> None:
    weight, stats, grid = weight_of(6), stats_of(), BlockGrid(name=name)
    header = scales_for(weight, grid)[0]
    rows = BlockRows([Part(weight, grid, header, None)])
    codes = encode(weight, grid, header)
    rows.put(torch.arange(512), codes.T.float())
    errors = (weight - decode(codes, grid, header)).T.contiguous()
    ridge = 0.01 * float(stats.hessian.diagonal().mean())
    rows.refit(errors, stats.hessian, ridge)
    stored = decode(codes, grid, rows.header(0))
    scale = weight.abs().amax(1, keepdim=True)
    assert float(((weight - stored - errors.T) / scale).abs().max()) < 1e-5
    before, after = (damped(weight, one, stats) for one in (decode(codes, grid, header), stored))
    assert bool((after <= before * 1.0001).all()) and float(after.sum()) < float(before.sum())


def test_block_formats_and_integers_are_solved_together_as_alone() -> None:
    weight, stats = weight_of(8), stats_of()
    grids: list[Grid] = [BlockGrid(name=name) for name in NAMES]
    jobs = [Job(weight, grid) for grid in [*grids, IntGrid(bits=4, strategy="group", group_size=128)]]
    for job, solved in zip(jobs, get("gptq").solve_many(jobs, stats), strict=True):
        alone = solve(get("gptq"), job, stats)
        assert solved.grid == job.grid
        if job.grid == BlockGrid(name="Q8_0"):  # so fine that sums in another order turn a few of its roundings
            assert solved.facts.error == pytest.approx(alone.facts.error, rel=0.01)
        else:
            assert torch.equal(solved.codes, alone.codes) and torch.equal(solved.scales, alone.scales)


@every_format
def test_zeros_stay_zero_and_dead_columns_do_no_harm(layout: BlockFormat) -> None:
    stats = stats_of()
    stats.hessian[:, :40] = stats.hessian[:40] = 0
    weight = weight_of(9)
    weight[0] = 0
    for method in ("rtn", "gptq", "hqq"):
        solved = solve(get(method), Job(weight, BlockGrid(name=layout.name)), stats)
        assert bool(solved.weight().isfinite().all()) and not bool(solved.weight()[0].any())


def test_a_row_solved_alone_is_the_row_of_the_whole() -> None:
    weight, stats = weight_of(10), stats_of()
    whole = solve(get("gptq"), Job(weight, BlockGrid(name="Q4_K")), stats)
    part = solve(get("gptq"), replace(Job(weight, BlockGrid(name="Q4_K")), weight=weight[2:4]), stats)
    assert torch.equal(whole.scales[2:4], part.scales)
    assert (whole.codes[2:4] != part.codes).float().mean() < 0.01  # products of other shapes are summed in other orders


def test_columns_are_weighed_by_what_is_left_when_the_others_make_up_for_them() -> None:
    stats = stats_of(64)
    factor = stats.factor(0.01, "activation")
    expected = 1 / torch.linalg.inv(stats.hessian.double() + factor.ridge * torch.eye(64).double()).diagonal()
    assert factor.left is not None
    torch.testing.assert_close(factor.left.double(), expected, rtol=1e-4, atol=0)
