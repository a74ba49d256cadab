"""Packing: known words, the other program's words, and every code back."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import FormatError
from quantgate.formats.pack import pack, unpack

Dim = Literal[0, 1]
shapes = st.tuples(st.integers(1, 9), st.integers(1, 75))


def codes_of(shape: tuple[int, int], bits: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    half = 1 << (bits - 1)
    return torch.randint(-half, half, shape, generator=generator, dtype=torch.int8)


def test_four_bit_codes_fill_a_word_from_its_low_end() -> None:
    codes = torch.tensor([[-8, -7, -6, -5, -4, -3, -2, -1]], dtype=torch.int8)
    assert pack(codes, 4).tolist() == [[0x76543210]]


def test_three_bit_codes_straddle_words() -> None:
    codes = torch.full((1, 11), 3, dtype=torch.int8)  # stored 0b111, so 33 ones
    assert pack(codes, 3).tolist() == [[-1, 1]]


@given(shape=shapes, bits=st.integers(1, 8), dim=st.sampled_from([0, 1]), seed=st.integers(0, 99))
def test_packed_words_equal_those_of_compressed_tensors(shape: tuple[int, int], bits: int, dim: Dim, seed: int) -> None:
    codes = codes_of(shape, bits, seed)
    packed = pack(codes, bits, dim=dim)
    assert torch.equal(packed, pack_to_int32(codes, bits, packed_dim=dim))
    assert torch.equal(unpack(packed, bits, shape, dim=dim), codes)
    if bits != 4 or len(packed) > 1:  # their 4-bit path cannot view a single transposed word
        assert torch.equal(unpack_from_int32(packed, bits, torch.Size(shape), packed_dim=dim), codes)


def test_code_that_does_not_fit_is_refused() -> None:
    with pytest.raises(FormatError, match=r"codes 0\.\.8 do not fit 4 bits"):
        pack(torch.tensor([[0, 8]], dtype=torch.int8), 4)


def test_words_of_another_shape_are_refused() -> None:
    with pytest.raises(FormatError, match="do not belong together"):
        unpack(torch.zeros(2, 3, dtype=torch.int32), 4, (2, 8))
