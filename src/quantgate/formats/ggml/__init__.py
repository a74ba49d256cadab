"""The block formats of GGUF files: which bytes a block of weights takes, as data. No torch here.

A block holds 32 or 256 weights of one row, side by side. Each weight is a code; codes of one group share a scale:

    value = scale * code               Q8_0, Q6_K, Q5_0, Q4_0, Q3_K; IQ4_NL and MXFP4, whose codes are unevenly spaced
    value = scale * code - minimum     Q5_K, Q4_K, Q2_K
    value = scale * code + minimum     Q5_1, Q4_1

In blocks of 32 the scale is a number of its own: float16, or a power of two in MXFP4. The "k-quants" store one float16
number ``d`` for 256 weights and small whole numbers for their groups, scale = d * number; minima likewise.

    scales.py   BlockScales, pack_scales, unpack_scales       # the numbers of the blocks and their bytes
    pack.py     pack, unpack                                  # codes and scales <-> the bytes of a file
    codec.py    encode, decode                                # weights <-> codes

Here "header" means the bytes of a block that are not codes, in the order of the file.
Source: ggml-common.h and ggml-quants.c of ggml (llama.cpp); checked against the ``gguf`` package, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal[
    "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL", "MXFP4"
]  # fmt: skip
Kind = Literal["d", "dmin", "exponent", "groups"]


@dataclass(frozen=True)
class Header:
    """A run of header bytes: ``d`` and ``dmin`` float16, a power of two, or the whole numbers of the groups."""

    kind: Kind
    size: int  # bytes


@dataclass(frozen=True)
class Plane:
    """Bits ``shift .. shift + width - 1`` of every code of a block, several codes to a byte.

    The block's codes are cut into runs of ``8 / width`` spans; the i-th span of a run takes the bits from i * width of
    as many bytes as a span has codes.
    """

    shift: int
    width: int
    span: int  # codes


@dataclass(frozen=True)
class BlockFormat:
    """One format. Codes are signed, ``low..high``, or the numbers of ``levels``; a file stores ``code + zero``."""

    name: Name
    block: int  # weights of a block
    group: int  # weights under one scale
    low: int
    high: int
    zero: int  # what stands in the file for a code of 0
    fields: tuple[Header | Plane, ...]  # in the order of the file
    whole: tuple[int, int] | None = None  # range of the groups' whole numbers; None: a block has one scale, no numbers
    levels: tuple[int, ...] | None = None  # codes by what the file stores for them, where they are unevenly spaced

    @property
    def header(self) -> int:
        """Bytes of a block that are not codes."""
        return sum(field.size for field in self.fields if isinstance(field, Header))

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return sum(field.width for field in self.fields if isinstance(field, Plane))

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return self.header + self.block * self.bits // 8

    @property
    def bits_per_weight(self) -> float:
        """Bits of a weight, scales and minima included.

        >>> {name: one.bits_per_weight for name, one in FORMATS.items() if name in ("Q6_K", "Q4_K", "Q2_K")}
        {'Q6_K': 6.5625, 'Q4_K': 4.5, 'Q2_K': 2.625}
        """
        return 8 * self.size / self.block

    @property
    def groups(self) -> int:
        """Scales of a block."""
        return self.block // self.group

    @property
    def minima(self) -> bool:
        """Whether the groups have minima beside their scales."""
        return any(isinstance(field, Header) and field.kind == "dmin" for field in self.fields)

    @property
    def powers(self) -> bool:
        """Whether a scale is a power of two."""
        return any(isinstance(field, Header) and field.kind == "exponent" for field in self.fields)


D, DMIN = Header("d", 2), Header("dmin", 2)
NIBBLES = Plane(0, 4, 16)
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4_LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice the e2m1 numbers
SIXES = Header("groups", 12)  # eight scales and eight minima, or sixteen scales, of six bits

FORMATS: dict[Name, BlockFormat] = {
    one.name: one
    for one in (
        BlockFormat("Q8_0", 32, 32, -127, 127, 0, (D, Plane(0, 8, 32))),
        BlockFormat(
            "Q6_K", 256, 16, -32, 31, 32, (Plane(0, 4, 64), Plane(4, 2, 32), Header("groups", 16), D), (-128, 127)
        ),
        BlockFormat("Q5_K", 256, 32, 0, 31, 0, (D, DMIN, SIXES, Plane(4, 1, 32), Plane(0, 4, 32)), (0, 63)),
        BlockFormat("Q4_K", 256, 32, 0, 15, 0, (D, DMIN, SIXES, Plane(0, 4, 32)), (0, 63)),
        BlockFormat("Q3_K", 256, 16, -4, 3, 4, (Plane(2, 1, 32), Plane(0, 2, 32), SIXES, D), (-32, 31)),
        BlockFormat("Q2_K", 256, 16, 0, 3, 0, (Header("groups", 16), Plane(0, 2, 32), D, DMIN), (0, 15)),
        BlockFormat("Q5_0", 32, 32, -16, 15, 16, (D, Plane(4, 1, 1), NIBBLES)),
        BlockFormat("Q5_1", 32, 32, 0, 31, 0, (D, DMIN, Plane(4, 1, 1), NIBBLES)),
        BlockFormat("Q4_0", 32, 32, -8, 7, 8, (D, NIBBLES)),
        BlockFormat("Q4_1", 32, 32, 0, 15, 0, (D, DMIN, NIBBLES)),
        BlockFormat("IQ4_NL", 32, 32, -127, 113, 0, (D, NIBBLES), levels=IQ4_LEVELS),
        BlockFormat("MXFP4", 32, 32, -12, 12, 0, (Header("exponent", 1), NIBBLES), levels=FP4_LEVELS),
    )
}

# llama.cpp's file types that mix formats, and the format of most of their layers. Which layer gets another one is a
# matter of the whole model (quantize.gguf.presets).
PRESETS: dict[str, Name] = {
    "Q2_K": "Q2_K",
    "Q3_K_S": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "Q6_K": "Q6_K",
    "Q8_0": "Q8_0",
    "Q4_0": "Q4_0",
    "Q4_1": "Q4_1",
    "Q5_0": "Q5_0",
    "Q5_1": "Q5_1",
    "IQ4_NL": "IQ4_NL",
}
