"""GGUF's block formats: bytes equal to what the ``gguf`` package reads, numbers by hand, nothing lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.errors import FormatError
from quantgate.formats import BlockGrid, stored_bytes
from quantgate.formats.codec import decode, encode, scales_for
from quantgate.formats.ggml import FORMATS, BlockFormat, Name
from quantgate.formats.ggml.pack import pack, unpack
from quantgate.formats.ggml.scales import BlockScales, pack_scales, unpack_scales

every_format = pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)


def read(data: torch.Tensor, layout: BlockFormat) -> np.ndarray:
    """What the ``gguf`` package makes of the bytes."""
    with np.errstate(all="ignore"):  # random bytes are also NaN and Inf
        found: np.ndarray = quants.dequantize(data.numpy(), GGMLQuantizationType[layout.name])
    return found


def weight_of(seed: int, out: int = 3, columns: int = 512) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, columns, generator=generator) * 10 ** torch.randn(out, 1, generator=generator)


@every_format
def test_blocks_have_the_size_that_ggml_says(layout: BlockFormat) -> None:
    assert GGML_QUANT_SIZES[GGMLQuantizationType[layout.name]] == (layout.block, layout.size)
    grid = BlockGrid(name=layout.name)
    assert stored_bytes(5, 512, grid).total_bytes == 5 * 512 // layout.block * layout.size
    assert stored_bytes(5, 512, grid).bits_per_weight == layout.bits_per_weight


@every_format
@settings(max_examples=20)
@given(seed=st.integers(0, 9999))
def test_random_bytes_decode_as_the_gguf_package_decodes_them(layout: BlockFormat, seed: int) -> None:
    data = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 2 * layout.size), dtype=np.uint8))
    codes, header = unpack(data, layout)
    grid = BlockGrid(name=layout.name)
    assert header.shape == grid.scales_shape(3, 2 * layout.block)
    assert np.array_equal(decode(codes, grid, header).numpy(), read(data, layout), equal_nan=True)
    assert torch.equal(pack_scales(unpack_scales(header, layout), layout), header)
    again = pack(codes, header, layout)
    if layout.name == "MXFP4":  # a negative zero comes back as 0
        assert torch.equal(unpack(again, layout)[0], codes)
    else:
        assert torch.equal(again, data)


@every_format
@settings(max_examples=20)
@given(seed=st.integers(0, 9999))
def test_what_is_encoded_is_read_as_it_was_meant_and_lies_nearest(layout: BlockFormat, seed: int) -> None:
    weight, grid = weight_of(seed), BlockGrid(name=layout.name)
    header, zeros = scales_for(weight, grid)
    codes = encode(weight, grid, header)
    stored = decode(codes, grid, header)
    assert zeros is None and header.dtype == torch.uint8 and codes.dtype == torch.int8
    assert np.array_equal(read(pack(codes, header, layout), layout), stored.numpy())
    assert_nearest(weight, codes, header, layout)
    for beside in neighbours(codes, layout):
        middle = (stored + decode(beside, grid, header)) / 2  # of two codes: where rounding decides
        assert_nearest(middle, encode(middle, grid, header), header, layout)


def neighbours(codes: torch.Tensor, layout: BlockFormat) -> list[torch.Tensor]:
    """The codes one level below and one above; at the ends the codes themselves."""
    levels = torch.tensor(sorted(set(layout.levels or range(layout.low, layout.high + 1))))
    at = torch.searchsorted(levels, codes.long())
    return [levels[(at + step).clamp(0, len(levels) - 1)].to(torch.int8) for step in (-1, 1)]


def assert_nearest(weight: torch.Tensor, codes: torch.Tensor, header: torch.Tensor, layout: BlockFormat) -> None:
    """No neighbour decodes nearer than float32 can tell.

    With u = 2^-24, a step s and an offset o, ``encode`` rounds twice, w - o and the quotient: it places w within
    2u |w - o| of where it is, on the way to either code. ``decode`` rounds c s and their sum, u |c s| and u |c s + o|.
    """
    held, grid, unit = unpack_scales(header, layout), BlockGrid(name=layout.name), 2.0**-24 * (1 + 2.0**-20)
    steps, offsets = (
        torch.zeros_like(codes, dtype=torch.float64)
        if one is None
        else one.double().repeat_interleave(layout.group, dim=1)
        for one in (held.steps(), held.offsets())
    )
    stored = decode(codes, grid, header).double()
    placed = 4 * unit * (weight.double() - offsets).abs()
    for beside in neighbours(codes, layout):
        other = decode(beside, grid, header).double()
        rounded = unit * sum(((codes * steps).abs(), stored.abs(), (beside * steps).abs(), other.abs()))
        assert bool(((stored - weight).abs() <= (other - weight).abs() + placed + rounded).all())


@every_format
def test_weights_already_on_the_grid_stay(layout: BlockFormat) -> None:
    grid = BlockGrid(name=layout.name)
    weight = weight_of(1)
    header, _ = scales_for(weight, grid)
    once = decode(encode(weight, grid, header), grid, header)
    assert torch.equal(decode(encode(once, grid, header), grid, header), once)


@every_format
def test_zeros_stay_zero(layout: BlockFormat) -> None:
    grid = BlockGrid(name=layout.name)
    header, _ = scales_for(torch.zeros(2, 256), grid)
    assert torch.equal(decode(encode(torch.zeros(2, 256), grid, header), grid, header), torch.zeros(2, 256))


ERRORS: dict[Name, float] = {  # root mean square over that of Gaussian weights, min-max scales
    "Q8_0": 0.006, "Q6_K": 0.02, "Q5_K": 0.04, "Q4_K": 0.08, "Q3_K": 0.2, "Q2_K": 0.4, "Q5_0": 0.045, "Q5_1": 0.04,
    "Q4_0": 0.09, "Q4_1": 0.08, "IQ4_NL": 0.09, "MXFP4": 0.13,
}  # fmt: skip


@every_format
def test_errors_are_what_the_width_of_a_format_promises(layout: BlockFormat) -> None:
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    grid = BlockGrid(name=layout.name)
    header, _ = scales_for(weight, grid)
    lost = (decode(encode(weight, grid, header), grid, header) - weight).square().mean().sqrt()
    assert ERRORS[layout.name] / 2 < float(lost) < ERRORS[layout.name]


def test_six_bit_numbers_by_hand() -> None:
    """Q4_K: bytes 0-3 and 4-7 hold scales and minima of groups 0-3 and the upper bits of 4-7; 8-11 their lower bits."""
    layout = FORMATS["Q4_K"]
    scales = torch.tensor([[[1, 2, 3, 63, 0b110101, 0, 0, 0b101111]]], dtype=torch.int16)
    minima = torch.tensor([[[9, 0, 0, 0, 0b010011, 0, 0, 63]]], dtype=torch.int16)
    one = torch.ones(1, 1, dtype=torch.float16)
    header = pack_scales(BlockScales(one, 2 * one, scales, minima), layout)[0].tolist()
    assert header[:4] == [0x00, 0x3C, 0x00, 0x40]  # 1.0 and 2.0, least byte first
    assert header[4:8] == [1 | 0b11 << 6, 2, 3, 63 | 0b10 << 6]
    assert header[8:12] == [9 | 0b01 << 6, 0, 0, 0b11 << 6]
    assert header[12:] == [0b0101 | 0b0011 << 4, 0, 0, 0b1111 | 0b1111 << 4]


def test_codes_that_a_format_does_not_have_are_refused() -> None:
    header = torch.zeros(1, 2, dtype=torch.uint8)
    with pytest.raises(FormatError, match=r"Q4_0: codes 0\.\.9 do not fit -8\.\.7; encode first"):
        pack(torch.tensor([[9] + [0] * 31], dtype=torch.int8), header, FORMATS["Q4_0"])
    with pytest.raises(FormatError, match="IQ4_NL: some codes are none of its 16 levels"):
        pack(torch.zeros(1, 32, dtype=torch.int8), header, FORMATS["IQ4_NL"])
    with pytest.raises(FormatError, match=r"Q5_1: codes \[1, 32\] do not go with scales of \[1, 2\] bytes"):
        pack(torch.zeros(1, 32, dtype=torch.int8), header, FORMATS["Q5_1"])


def test_bytes_of_another_format_are_refused() -> None:
    with pytest.raises(FormatError, match="Q4_K: rows of 210 bytes, expected a multiple of 144"):
        unpack(torch.zeros(2, 210, dtype=torch.uint8), FORMATS["Q4_K"])
    with pytest.raises(FormatError, match="Q6_K: 16 bytes of scales in a row, expected a multiple of 18"):
        unpack_scales(torch.zeros(2, 16, dtype=torch.uint8), FORMATS["Q6_K"])


def test_rows_that_do_not_divide_into_blocks_are_told_what_would() -> None:
    with pytest.raises(
        FormatError, match=r"up_proj: 288 input columns .* Q4_K's blocks of 256; choose one of Q8_0, Q5_0"
    ):
        BlockGrid(name="Q4_K").check_shape(4, 288, "up_proj")
    with pytest.raises(FormatError, match=r"blocks of 32; list 'up_proj' under keep"):
        BlockGrid(name="Q8_0").check_shape(4, 60, "up_proj")


def test_grid_is_a_record_with_the_block_as_its_group() -> None:
    grid = BlockGrid(name="Q4_K")
    assert (grid.group_size, grid.bits, grid.low, grid.high) == (256, 4, 0, 15)
    assert BlockGrid.model_validate(grid.body()) == grid
    with pytest.raises(ValueError, match="blocks of Q4_K have 256 weights; leave group_size out"):
        BlockGrid(name="Q4_K", group_size=32)
