"""The tensor types of GGUF: numbers of a block, bytes of a block, and the name that llama.cpp gives them.

Q8_1 and Q8_K are not among them: llama.cpp rounds activations to these, and no file holds them.

Source: ggml.h ``enum ggml_type``, ggml-common.h; the sizes are those of ``gguf.GGML_QUANT_SIZES`` in gguf 0.19.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockType:
    """A row of such a tensor is a whole number of blocks, side by side."""

    name: str  # Q4_K
    id: int  # in the file
    block: int  # numbers in a block
    bytes: int  # of a block

    @property
    def bits(self) -> float:
        """Bits per weight.

        >>> TYPES["Q4_K"].bits
        4.5
        """
        return 8 * self.bytes / self.block

    @property
    def quantized(self) -> bool:
        return self.block > 1

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row; ``columns`` divide into blocks."""
        return columns // self.block * self.bytes


TYPES = {
    name: BlockType(name, number, block, size)
    for name, number, block, size in (
        ("F32", 0, 1, 4), ("F16", 1, 1, 2), ("Q4_0", 2, 32, 18), ("Q4_1", 3, 32, 20), ("Q5_0", 6, 32, 22),
        ("Q5_1", 7, 32, 24), ("Q8_0", 8, 32, 34), ("Q2_K", 10, 256, 84), ("Q3_K", 11, 256, 110),
        ("Q4_K", 12, 256, 144), ("Q5_K", 13, 256, 176), ("Q6_K", 14, 256, 210),
        ("IQ2_XXS", 16, 256, 66), ("IQ2_XS", 17, 256, 74), ("IQ3_XXS", 18, 256, 98), ("IQ1_S", 19, 256, 50),
        ("IQ4_NL", 20, 32, 18), ("IQ3_S", 21, 256, 110), ("IQ2_S", 22, 256, 82), ("IQ4_XS", 23, 256, 136),
        ("I8", 24, 1, 1), ("I16", 25, 1, 2), ("I32", 26, 1, 4), ("I64", 27, 1, 8), ("F64", 28, 1, 8),
        ("IQ1_M", 29, 256, 56), ("BF16", 30, 1, 2), ("TQ1_0", 34, 256, 54), ("TQ2_0", 35, 256, 66),
        ("MXFP4", 39, 32, 17), ("NVFP4", 40, 64, 36),
    )
}  # fmt: skip
BY_ID = {one.id: one for one in TYPES.values()}
PLAIN = ("F32", "F16", "BF16")  # numbers that stand for themselves
