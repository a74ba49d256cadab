"""Codes and values: known by hand, equal to compressed-tensors, exact on weights that are already on a grid."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationStrategy, QuantizationType
from compressed_tensors.quantization.lifecycle.forward import dequantize, fake_quantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams, compute_dynamic_scales_and_zp
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from quantgate.errors import FormatError, UsageError
from quantgate.formats import FloatGrid, IntGrid, scheme
from quantgate.formats.codec import calibrated_scale, decode, encode, quantize_activations, roundtrip, scales_for
from quantgate.formats.grids import Grid
from quantgate.quantize.checkpoints.compressed_tensors import CHECKPOINT

GRIDS: list[Grid] = [
    IntGrid(bits=bits, symmetric=symmetric, strategy=strategy, group_size=16 if strategy == "group" else None)
    for bits in range(2, 9)
    for symmetric in (True, False)
    for strategy in ("tensor", "channel", "group")
]
GRIDS += [FloatGrid(strategy="tensor"), FloatGrid()]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
grids, dtypes, seeds = st.sampled_from(GRIDS), st.sampled_from(DTYPES), st.integers(0, 999)


def weight_of(seed: int, out: int = 6, columns: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, columns, generator=generator) * 10 ** torch.randn(out, 1, generator=generator)


def arguments(grid: Grid) -> QuantizationArgs:
    return QuantizationArgs(
        num_bits=grid.bits,
        type=QuantizationType.INT if isinstance(grid, IntGrid) else QuantizationType.FLOAT,
        symmetric=grid.symmetric,
        strategy=QuantizationStrategy(grid.strategy),
        group_size=grid.group_size,
        dynamic=grid.strategy == "token",
    )


def test_symmetric_int4_by_hand() -> None:
    weight = torch.tensor([[7.5, -7.5, 1.4, 0.6]])
    scales, zeros = scales_for(weight, IntGrid(bits=4))
    assert (scales.tolist(), zeros) == ([[1.0]], None)
    codes = encode(weight, IntGrid(bits=4), scales)
    assert codes.tolist() == [[7, -8, 1, 1]]  # ties go to the even code, 8, which does not exist


def test_asymmetric_int2_by_hand() -> None:
    weight = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    grid = IntGrid(bits=2, symmetric=False)
    scales, zeros = scales_for(weight, grid)
    assert zeros is not None
    assert (scales.tolist(), zeros.tolist()) == ([[1.0]], [[-1]])
    assert encode(weight, grid, scales, zeros).tolist() == [[-2, -1, 0, 1]]
    assert torch.equal(roundtrip(weight, grid), weight)


def test_fp8_by_hand() -> None:
    weight = torch.tensor([[448.0, -1.0, 0.3, 17.0]])
    assert roundtrip(weight, FloatGrid()).tolist() == [[448.0, -1.0, 0.3125, 16.0]]


def test_scales_are_rounded_before_codes_are_chosen() -> None:
    weight = torch.full((1, 16), 1.0)
    weight[0, 0] = 127.5 * 1.003  # bfloat16 has no 1.003; it stores 1.0
    scales, _ = scales_for(weight, IntGrid(bits=8))
    assert scales.item() == 1.0
    assert encode(weight, IntGrid(bits=8), scales)[0, 1] == 1


@given(grid=grids, dtype=dtypes, seed=seeds)
def test_codes_and_values_equal_those_of_compressed_tensors(grid: Grid, dtype: torch.dtype, seed: int) -> None:
    weight, args = weight_of(seed), arguments(grid)
    scales, zeros = scales_for(weight, grid, dtype=dtype)
    stored = torch.int8 if isinstance(grid, IntGrid) else torch.float8_e4m3fn
    zero_points = torch.zeros_like(scales, dtype=torch.int8) if zeros is None else zeros
    theirs = quantize(weight, scales, zero_points, args, dtype=stored)
    ours = encode(weight, grid, scales, zeros)
    assert torch.equal(ours.float(), theirs.float())
    assert torch.equal(decode(ours, grid, scales, zeros), dequantize(ours, scales, zero_points, args).float())


@given(grid=grids, seed=seeds)
def test_float32_scales_equal_those_of_compressed_tensors(grid: Grid, seed: int) -> None:
    weight = weight_of(seed)
    scales, zeros = scales_for(weight, grid, dtype=torch.float32)
    lines = weight.reshape(len(weight), -1, 16) if grid.strategy == "group" else weight.unsqueeze(1)
    low, high = (lines.amin(), lines.amax()) if grid.strategy == "tensor" else (lines.amin(-1), lines.amax(-1))
    theirs, their_zeros = calculate_qparams(low, high, arguments(grid))
    assert torch.equal(scales, theirs)
    assert zeros is None or torch.equal(zeros, their_zeros)


@given(grid=grids, dtype=dtypes, seed=seeds)
def test_weight_already_on_the_grid_survives_exactly(grid: Grid, dtype: torch.dtype, seed: int) -> None:
    # bfloat16 has 8 significant bits: up to 255 steps from zero, a decoded number may be a whole step off
    assume(grid.symmetric or grid.bits < 8 or dtype is not torch.bfloat16)
    weight = weight_of(seed)
    scales, zeros = scales_for(weight, grid, dtype=dtype)
    codes = encode(weight, grid, scales, zeros)
    again = encode(decode(codes, grid, scales, zeros), grid, scales, zeros)
    assert torch.equal(codes.float(), again.float())


@given(grid=grids, seed=seeds)
def test_rounding_errs_by_half_a_step_at_most(grid: Grid, seed: int) -> None:
    weight = weight_of(seed)
    scales, zeros = scales_for(weight, grid, dtype=torch.float32)
    stored = decode(encode(weight, grid, scales, zeros), grid, scales, zeros)
    if isinstance(grid, FloatGrid):
        step = weight.abs() / 8 + scales.max() / 256  # 3 mantissa bits; the smallest steps are 2^-9
    else:
        step = scales.repeat_interleave(16, dim=1) if grid.strategy == "group" else scales.expand(len(weight), -1)
    assert bool(((stored - weight).abs() <= 0.5001 * step * (1 if grid.symmetric else 2)).all())


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.type}{grid.bits}-{grid.strategy}-{grid.symmetric}")
@pytest.mark.parametrize("value", [0.0, 1e-45])
def test_group_of_nothing_is_stored_as_nothing(grid: Grid, value: float) -> None:
    weight = torch.full((2, 32), value)
    scales, zeros = scales_for(weight, grid, dtype=torch.float16)
    assert bool((scales == 1).all())
    assert torch.equal(decode(encode(weight, grid, scales, zeros), grid, scales, zeros), torch.zeros(2, 32))


def test_scale_beyond_its_dtype_is_refused() -> None:
    with pytest.raises(FormatError, match=r"up_proj: weights up to 1e\+10 need scales that torch\.float16 cannot hold"):
        scales_for(torch.full((1, 8), 1e10), IntGrid(bits=4), dtype=torch.float16, name="up_proj")


@given(name=st.sampled_from(["W8A8", "FP8_DYNAMIC"]), dtype=dtypes, seed=seeds)
def test_activations_are_rounded_as_compressed_tensors_emulates_it(name: str, dtype: torch.dtype, seed: int) -> None:
    grid = scheme(name).activations
    assert grid is not None
    x = weight_of(seed, 12, 40).reshape(3, 4, 40).to(dtype)
    x[0, 0] = 0
    args = arguments(grid)
    scale, zero = compute_dynamic_scales_and_zp(x, args, torch.nn.Identity())
    assert torch.equal(quantize_activations(x, grid), fake_quantize(x, scale, zero, args))


def test_each_token_has_its_own_scale_whatever_the_rank() -> None:
    grid = scheme("W8A8").activations
    assert grid is not None
    x = torch.stack([torch.linspace(-1, 1, 16), torch.linspace(-1000, 1000, 16)])
    assert torch.equal(quantize_activations(x, grid)[0], quantize_activations(x[:1], grid)[0])


@given(name=st.sampled_from(["FP8", "FP8_BLOCK", "NVFP4"]), dtype=dtypes, seed=seeds)
def test_calibrated_and_grouped_activations_as_compressed_tensors_emulates_them(
    name: str, dtype: torch.dtype, seed: int
) -> None:
    grid = scheme(name).activations
    assert grid is not None
    x = weight_of(seed, 6, 256).reshape(2, 3, 256).to(dtype)
    x[0, 0, :128] = 0
    given = calibrated_scale(grid, 0.5 * float(x.abs().max()) + 1e-6)  # half of what comes: the rest is cut off
    stored = None if given is None else torch.tensor([given], dtype=torch.float32 if name == "NVFP4" else dtype)
    told = CHECKPOINT.config({}, scheme(name), [])["quantization_config"]["config_groups"]["group_0"]
    args, module = QuantizationArgs(**told["input_activations"]), torch.nn.Identity()
    if name == "FP8":
        expected = fake_quantize(x, stored, None, args)
    else:
        scale, zero = compute_dynamic_scales_and_zp(x, args, module, global_scale=stored)
        expected = fake_quantize(x, scale, zero, args, global_scale=stored).to(dtype)
    assert torch.equal(quantize_activations(x, grid, stored), expected)


@given(seed=seeds)
def test_a_block_is_a_square_with_one_scale(seed: int) -> None:
    grid = FloatGrid(strategy="block", group_size=8)
    weight = weight_of(seed, 24, 40)
    scales, zeros = scales_for(weight, grid, dtype=torch.float32)
    assert scales.shape == (3, 5) and zeros is None
    stored = decode(encode(weight, grid, scales), grid, scales)
    for row, column in [(0, 0), (1, 3), (2, 4)]:
        part = weight[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        alone = roundtrip(part, FloatGrid(strategy="tensor"), dtype=torch.float32)
        assert torch.equal(stored[8 * row : 8 * row + 8, 8 * column : 8 * column + 8], alone)


@pytest.mark.parametrize("name", ["FP8", "NVFP4"])
def test_a_calibrated_number_that_is_missing_is_said(name: str) -> None:
    grid = scheme(name).activations
    assert grid is not None
    with pytest.raises(FormatError, match="none is stored"):
        quantize_activations(torch.ones(1, 16), grid)


def test_static_grid_is_refused_for_activations() -> None:
    with pytest.raises(FormatError, match="only symmetric grids with one scale per token"):
        quantize_activations(torch.ones(1, 4), IntGrid(bits=8))


def test_signs_by_hand() -> None:
    """The scale is the mean magnitude (XNOR-Net, equation 6); zero counts as positive; nothing stays nothing."""
    grid = IntGrid(bits=2, signs=True, strategy="group", group_size=4)
    weight = torch.tensor([[1.0, -3.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0]])
    scales, zeros = scales_for(weight, grid, dtype=torch.float32)
    assert (scales.tolist(), zeros) == ([[2.0, 0.0]], None)
    codes = encode(weight, grid, scales)
    assert codes.tolist() == [[1, -1, 1, 1, 1, 1, 1, 1]]
    assert decode(codes, grid, scales).tolist() == [[2, -2, 2, 2, 0, 0, 0, 0]]


@given(seed=seeds, factor=st.floats(0.5, 2.0))
def test_no_other_scale_of_signs_loses_less(seed: int, factor: float) -> None:
    grid, weight = IntGrid(bits=2, signs=True), weight_of(seed)
    scales, _ = scales_for(weight, grid, dtype=torch.float32)
    codes = encode(weight, grid, scales)
    least = (decode(codes, grid, scales) - weight).square().sum(dim=1)
    other = (decode(codes, grid, scales * factor) - weight).square().sum(dim=1)
    assert bool((least <= other * (1 + 1e-5)).all())


def test_signs_have_no_zero_points() -> None:
    with pytest.raises(UsageError, match="scheme W1A16 stores signs, which have no zero points"):
        scheme("W1A16", symmetric=False)
