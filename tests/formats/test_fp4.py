"""fp4: numbers by hand, layouts equal to compressed-tensors', scales that the files can hold."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.mx_utils import compress_mx_scale, decompress_mx_scale
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8, unpack_fp4_from_uint8
from compressed_tensors.quantization import QuantizationArgs, QuantizationStrategy, QuantizationType
from compressed_tensors.quantization.lifecycle.forward import fake_quantize, quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import FormatError
from quantgate.formats import Fp4Grid, scheme, stored_bytes
from quantgate.formats.codec import (
    FP8,
    decode,
    encode,
    fp4_scales,
    global_scale,
    nearest_fp4,
    quantize_activations,
    roundtrip,
    scales_for,
)
from quantgate.formats.pack import FP4_DOUBLED, pack_fp4, unpack_fp4

NVFP4, MXFP4 = Fp4Grid(group_size=16, scales="fp8"), Fp4Grid(group_size=32, scales="e8m0")
GRIDS = pytest.mark.parametrize("grid", [NVFP4, MXFP4], ids=["nvfp4", "mxfp4"])
ARGS = QuantizationArgs(num_bits=4, type=QuantizationType.FLOAT, strategy=QuantizationStrategy.GROUP, group_size=16)
LEVELS = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def weight_of(seed: int, columns: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, columns, generator=generator) * 10 ** torch.randn(6, 1, generator=generator)


def test_every_number_and_every_tie_by_hand() -> None:
    assert (nearest_fp4(2 * torch.tensor(LEVELS)) / 2).tolist() == LEVELS
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, -5.0, -0.75])
    assert (nearest_fp4(2 * ties) / 2).tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0, -4.0, -1.0]


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=50))
def test_rounding_is_to_the_nearest_and_that_of_compressed_tensors(values: list[float]) -> None:
    x = torch.tensor([values + [0.0] * (-len(values) % 16)])
    ours = nearest_fp4(2 * x) / 2
    assert torch.equal(ours, quantize(x, torch.ones(1, x.shape[1] // 16), None, ARGS))
    levels = torch.tensor(LEVELS + [-level for level in LEVELS])
    best = (x.clamp(-6, 6).unsqueeze(-1) - levels).abs().amin(dim=-1)
    assert torch.equal((ours - x.clamp(-6, 6)).abs(), best)


@given(st.integers(0, 999))
def test_packing_is_that_of_compressed_tensors(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (5, 32), generator=generator) * 2 - 1
    codes = FP4_DOUBLED[torch.randint(0, 8, (5, 32), generator=generator)] * sign.to(torch.int8)
    packed = pack_fp4(codes)
    theirs = pack_fp4_to_uint8((codes / 2).bfloat16() + 0.0)  # no negative zeros
    assert packed.dtype == torch.uint8 and torch.equal(packed, theirs)
    assert torch.equal(unpack_fp4(packed), codes)
    assert torch.equal(unpack_fp4_from_uint8(packed, 5, 32), (codes / 2).bfloat16())


@GRIDS
@given(seed=st.integers(0, 999))
def test_scales_are_numbers_that_the_file_holds(grid: Fp4Grid, seed: int) -> None:
    weight = weight_of(seed)
    scales, zeros = scales_for(weight, grid)
    assert zeros is None and scales.dtype == torch.float32 and scales.shape == (6, 64 // (grid.group_size or 1))
    if grid.scales == "e8m0":
        stored = compress_mx_scale(scales, torch.uint8)
        assert torch.equal(decompress_mx_scale(stored).float(), scales)
    else:
        shared = global_scale(float(weight.abs().max()))
        assert torch.equal((scales * shared).to(FP8).float() / shared, scales)


@given(seed=st.integers(0, 999))
def test_powers_of_two_cut_nothing_off_and_are_no_larger_than_that_needs(seed: int) -> None:
    weight = weight_of(seed)
    largest = weight.reshape(6, 2, 32).abs().amax(-1)
    scales, _ = scales_for(weight, MXFP4)
    assert bool((largest <= 6 * scales).all()) and bool((largest > 3 * scales).all())


@GRIDS
@given(seed=st.integers(0, 999))
def test_numbers_already_on_the_grid_stay(grid: Fp4Grid, seed: int) -> None:
    once = roundtrip(weight_of(seed), grid)
    scales, _ = scales_for(weight_of(seed), grid)
    assert torch.equal(decode(encode(once, grid, scales), grid, scales), once)


@GRIDS
def test_zeros_and_extremes_stay_finite(grid: Fp4Grid) -> None:
    for weight in (torch.zeros(2, 32), torch.full((2, 32), 1e-30), torch.full((2, 32), 3e30)):
        assert bool(roundtrip(weight, grid).isfinite().all())
    weight = torch.zeros(1, 32)
    weight[0, 0] = 1.0
    assert roundtrip(weight, grid)[0, 1:].abs().max() == 0
    assert fp4_scales(torch.tensor([6.0, 3.0, 0.0]), MXFP4, 1.0).tolist() == [1.0, 0.5, 1.0]


@given(seed=st.integers(0, 999), dtype=st.sampled_from([torch.bfloat16, torch.float32]))
def test_activations_are_rounded_as_compressed_tensors_does(seed: int, dtype: torch.dtype) -> None:
    x = weight_of(seed).to(dtype).reshape(2, 3, 64)
    args = QuantizationArgs(
        num_bits=4, type=QuantizationType.FLOAT, strategy=QuantizationStrategy.GROUP, group_size=32, dynamic=True,
        scale_dtype=torch.uint8, zp_dtype=torch.uint8,
    )  # fmt: skip
    scale, zero = compute_dynamic_scales_and_zp(value=x, args=args, module=torch.nn.Linear(64, 64))
    assert torch.equal(quantize_activations(x, MXFP4), fake_quantize(x, scale, zero, args))


def test_activations_under_fp8_scales_are_refused() -> None:
    with pytest.raises(FormatError, match="NVFP4 needs a calibrated global scale"):
        quantize_activations(weight_of(0), NVFP4)


def test_bytes_are_counted_as_they_are_stored() -> None:
    nvfp4, mxfp4 = scheme("NVFP4A16").weights, scheme("MXFP4A16").weights
    assert stored_bytes(256, 768, nvfp4).total_bytes == 256 * 768 // 2 + 256 * 48 + 4
    assert stored_bytes(256, 768, mxfp4).bits_per_weight == 4.25
