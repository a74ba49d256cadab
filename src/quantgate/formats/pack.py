"""Codes in int32 words, as compressed-tensors' pack-quantized layout has them.

A code ``q`` is stored as ``q + 2^(bits-1)``; code ``i`` of a line takes the bits ``i*bits .. (i+1)*bits`` of the line's
words, lowest first, without padding: with 3, 5, 6 and 7 bits a code may straddle two words, and 32 codes are exactly
``bits`` words. Weights are packed along the input dimension (dim 1), zero points along the output dimension (dim 0).
Source: compressed-tensors 0.20, compressors/pack_quantized/helpers.py.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats.size import words

FP4_DOUBLED = torch.tensor([0, 1, 2, 3, 4, 6, 8, 12], dtype=torch.int8)  # twice the e2m1 numbers, by index
SPAN = 32  # codes that fill a whole number of words at every width


def pack(codes: Tensor, bits: int, *, dim: Literal[0, 1] = 1) -> Tensor:
    """int8 codes [rows, columns] -> int32 [rows, ceil(columns*bits/32)], or [ceil(rows*bits/32), columns] with dim 0.

    Raises FormatError when a code does not fit ``bits`` bits.
    """
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if codes.numel() and (int(codes.min()) < low or int(codes.max()) > high):
        raise FormatError(
            f"codes {int(codes.min())}..{int(codes.max())} do not fit {bits} bits, {low}..{high}; encode first"
        )
    lines = codes.T if dim == 0 else codes
    rows, columns = lines.shape
    spans = -(-columns // SPAN)
    stored = torch.zeros(rows, spans * SPAN, dtype=torch.int32, device=codes.device)
    stored[:, :columns] = lines.to(torch.int32) - low
    stored = stored.view(rows, spans, SPAN)
    packed = torch.zeros(rows, spans, bits, dtype=torch.int32, device=codes.device)
    for i, (word, shift, spill) in enumerate(_places(bits)):
        packed[:, :, word] |= stored[:, :, i] << shift
        if spill:
            packed[:, :, word + 1] |= stored[:, :, i] >> (bits - spill)
    packed = packed.view(rows, spans * bits)[:, : words(columns, bits)]
    return (packed.T if dim == 0 else packed).contiguous()


def unpack(packed: Tensor, bits: int, shape: tuple[int, int], *, dim: Literal[0, 1] = 1) -> Tensor:
    """The int8 codes [shape] that ``pack`` was given. Raises FormatError when the words do not fit the shape."""
    lines = packed.T if dim == 0 else packed
    rows, columns = (shape[1], shape[0]) if dim == 0 else shape
    if tuple(lines.shape) != (rows, words(columns, bits)):
        raise FormatError(
            f"packed codes have shape {list(packed.shape)}, which does not hold {list(shape)} codes of {bits} bits; "
            "the two do not belong together"
        )
    spans = -(-columns // SPAN)
    held = torch.zeros(rows, spans * bits, dtype=torch.int32, device=packed.device)
    held[:, : lines.shape[1]] = lines
    held = held.view(rows, spans, bits)
    stored = torch.empty(rows, spans, SPAN, dtype=torch.int32, device=packed.device)
    for i, (word, shift, spill) in enumerate(_places(bits)):
        part = (held[:, :, word] >> shift) & ((1 << (bits - spill)) - 1)  # the mask drops the copies of the sign bit
        if spill:
            part |= (held[:, :, word + 1] & ((1 << spill) - 1)) << (bits - spill)
        stored[:, :, i] = part
    codes = (stored.view(rows, spans * SPAN)[:, :columns] - (1 << (bits - 1))).to(torch.int8)
    return (codes.T if dim == 0 else codes).contiguous()


def pack_fp4(codes: Tensor) -> Tensor:
    """Doubled e2m1 numbers, int8 [rows, columns] -> uint8 [rows, columns / 2]: sign and index, the even column low.

    Source: compressed-tensors 0.20, compressors/nvfp4/helpers.py.
    """
    index = torch.searchsorted(FP4_DOUBLED.to(codes.device), codes.abs().to(torch.int8), out_int32=True)
    nibbles = (index | torch.where(codes < 0, 8, 0)).to(torch.uint8)
    return (nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)).contiguous()


def unpack_fp4(packed: Tensor) -> Tensor:
    """The int8 codes that ``pack_fp4`` was given; a negative zero comes back as 0."""
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1).reshape(len(packed), -1).long()
    size = FP4_DOUBLED.to(packed.device)[nibbles & 7]
    return torch.where(nibbles >= 8, -size, size)


def _places(bits: int) -> list[tuple[int, int, int]]:
    """For each code of a span: its word, its first bit there, and how many of its bits spill into the next word."""
    return [(i * bits // 32, i * bits % 32, max(0, i * bits % 32 + bits - 32)) for i in range(SPAN)]
