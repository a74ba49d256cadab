"""How many bytes a weight takes on disk under a grid, counted exactly, without making it."""

from __future__ import annotations

import math

from quantgate.formats.grids import BlockGrid, Fp4Grid, Grid, IntGrid
from quantgate.records import Record


class StoredBytes(Record):
    """The tensors that one linear layer becomes."""

    weights: int  # how many numbers the layer has, out * in
    codes_bytes: int
    scales_bytes: int
    zeros_bytes: int = 0
    shape_bytes: int = 0  # the int64 [2] that packed codes need beside them

    @property
    def total_bytes(self) -> int:
        return self.codes_bytes + self.scales_bytes + self.zeros_bytes + self.shape_bytes

    @property
    def bits_per_weight(self) -> float:
        """Codes, scales and zero points over the number of weights; the constant 16 bytes of the shape are left out."""
        return 8 * (self.codes_bytes + self.scales_bytes + self.zeros_bytes) / self.weights


def stored_bytes(
    out: int, columns: int, grid: Grid | None, *, packed: bool = True, scale_bytes: int = 2
) -> StoredBytes:
    """Bytes of a weight ``[out, columns]``; grid None keeps it in the model's dtype of ``scale_bytes`` bytes a number.

    ``packed`` chooses between int32 words (compressed-tensors' pack-quantized) and one byte a code (int-quantized,
    float-quantized). Zero points are packed along the output dimension, except the single one of strategy "tensor".

    >>> from quantgate.formats.grids import IntGrid
    >>> stored_bytes(256, 768, IntGrid(bits=4, strategy="group", group_size=128)).bits_per_weight
    4.125
    """
    weights = out * columns
    if grid is None:
        return StoredBytes(weights=weights, codes_bytes=weights * scale_bytes, scales_bytes=0)
    scales = math.prod(grid.scales_shape(out, columns))
    if isinstance(grid, Fp4Grid):  # two codes a byte, a byte a scale, and NVFP4's float32 number for all scales
        shared = 4 if grid.scales == "fp8" else 0
        return StoredBytes(weights=weights, codes_bytes=weights // 2, scales_bytes=scales + shared)
    if isinstance(grid, BlockGrid):
        return StoredBytes(weights=weights, codes_bytes=weights * grid.bits // 8, scales_bytes=scales)
    dense = packed and isinstance(grid, IntGrid)
    zeros = 0
    if not grid.symmetric:
        in_words = dense and grid.strategy != "tensor"
        zeros = 4 * words(out, grid.bits) * (scales // out) if in_words else scales
    return StoredBytes(
        weights=weights,
        codes_bytes=4 * words(columns, grid.bits) * out if dense else weights,
        scales_bytes=scales * scale_bytes,
        zeros_bytes=zeros,
        shape_bytes=16 if dense else 0,
    )


def words(numbers: int, bits: int) -> int:
    """How many int32 words hold ``numbers`` codes of ``bits`` bits, densely."""
    return -(-numbers * bits // 32)
