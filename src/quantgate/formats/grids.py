"""Number formats as data: a grid says which numbers exist and how far a scale reaches. No arithmetic and no torch here.

A grid stores a weight ``[out, in]`` as codes ``[out, in]`` plus scales (and zero points, if asymmetric):

    strategy   one scale for        scales shape
    tensor     the whole tensor     [1]
    channel    one output channel   [out, 1]
    group      group_size columns   [out, in / group_size]
    block      group_size squared   [out / group_size, in / group_size]
    token      one activation row   computed at run time, stored nowhere

A BlockGrid has scales of scales: its ``scales`` are the bytes that a GGUF file has for those of each block.

Of activations, "token" and "group" scales are computed at run time; "tensor" is one number from the calibration set.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from quantgate.errors import FormatError
from quantgate.formats.ggml import FORMATS, BlockFormat, Name
from quantgate.records import Record

Strategy = Literal["tensor", "channel", "group", "block", "token"]
FP8_MAX = 448.0  # the largest finite e4m3fn number
FP4_MAX = 6.0  # the largest e2m1 number


class _Grid(Record):
    strategy: Strategy = "channel"
    group_size: int | None = Field(default=None, ge=1)  # columns under one scale; only with "group" and "block"

    @model_validator(mode="after")
    def _group_goes_with_its_strategy(self) -> Self:
        if (self.strategy in ("group", "block")) != (self.group_size is not None):
            raise ValueError("group_size belongs to the strategies 'group' and 'block' and to no other")
        if self.strategy == "block" and not isinstance(self, FloatGrid):
            raise ValueError("strategy 'block' is for fp8")
        return self

    @property
    def unit(self) -> float:
        """What a code of 1 stands for before the scale."""
        return 1.0

    def scales_shape(self, out: int, columns: int) -> tuple[int, ...]:
        """Shape of the stored scales of a weight ``[out, columns]``."""
        if self.group_size is not None:
            return (out // self.group_size if self.strategy == "block" else out, columns // self.group_size)
        return (1,) if self.strategy == "tensor" else (out, 1)

    def check_shape(self, out: int, columns: int, name: str) -> None:
        """Raises FormatError when a weight ``[out, columns]`` of layer ``name`` does not divide into groups or blocks.

        >>> IntGrid(bits=4, strategy="group", group_size=16).check_shape(7, 64, "up_proj")
        """
        if self.group_size is not None and columns % self.group_size:
            raise FormatError(
                f"{name}: {columns} input columns do not divide into groups of {self.group_size}; "
                f"choose a group that divides {columns}, or list '{name}' under keep"
            )
        if self.strategy == "block" and self.group_size is not None and out % self.group_size:
            raise FormatError(
                f"{name}: {out} outputs do not divide into blocks of {self.group_size}; list '{name}' under keep"
            )


class IntGrid(_Grid):
    """``value = (code - zero) * scale`` with integer codes; zero is 0 when symmetric.

    Codes are signed, ``low..high`` = -2^(bits-1)..2^(bits-1)-1, also for asymmetric grids (compressed-tensors' habit).
    With ``signs`` the codes are -1 and 1 alone: binary weights, stored like others of two bits, for want of a container
    that has one.
    """

    type: Literal["int"] = "int"
    bits: int = Field(ge=2, le=8)
    symmetric: bool = True
    signs: bool = False

    @model_validator(mode="after")
    def _signs_are_two_codes(self) -> Self:
        if self.signs and (self.bits != 2 or not self.symmetric):
            raise ValueError("signs are stored in 2 bits and have no zero points")
        return self

    @property
    def low(self) -> int:
        return -1 if self.signs else -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1)) - 1


class FloatGrid(_Grid):
    """``value = code * scale`` with fp8 e4m3fn codes (4 exponent, 3 mantissa bits, no infinities, |code| <= 448)."""

    type: Literal["float"] = "float"
    bits: Literal[8] = 8
    symmetric: Literal[True] = True


class Fp4Grid(_Grid):
    """``value = code / 2 * scale`` with fp4 e2m1 numbers 0, 0.5, 1, 1.5, 2, 3, 4, 6 of either sign, and small scales.

    ``scales`` "fp8": e4m3 numbers, all of them divided by one float32 number of the tensor (NVFP4, groups of 16).
    "e8m0": powers of two (MXFP4, groups of 32). Codes are int8 and hold twice the number, so that they are whole.
    Source: OCP Microscaling Formats (MX) v1.0, sections 5.3.3 and 5.4.1; NVIDIA's NVFP4 as compressed-tensors has it.
    """

    type: Literal["fp4"] = "fp4"
    bits: Literal[4] = 4
    symmetric: Literal[True] = True
    strategy: Strategy = "group"
    scales: Literal["fp8", "e8m0"]

    @property
    def unit(self) -> float:
        return 0.5


class BlockGrid(_Grid):
    """A block format of GGUF (``formats.ggml``); a group is a block of 32 or 256 weights.

    ``scales`` [out, in / block * header] are uint8: what a file has for each block beside its codes, minima included.
    So nothing is lost between a solver and a file, and ``zeros`` are None.
    """

    type: Literal["ggml"] = "ggml"
    name: Name
    strategy: Literal["group"] = "group"
    symmetric: Literal[True] = True

    @model_validator(mode="before")
    @classmethod
    def _group_is_the_block(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("name") in FORMATS and given.get("group_size") is None:
            return {**given, "group_size": FORMATS[given["name"]].block}
        return given

    @model_validator(mode="after")
    def _no_other_group(self) -> Self:
        if self.group_size != self.layout.block:
            raise ValueError(f"blocks of {self.name} have {self.layout.block} weights; leave group_size out")
        return self

    @property
    def layout(self) -> BlockFormat:
        return FORMATS[self.name]

    @property
    def bits(self) -> int:
        return self.layout.bits

    @property
    def low(self) -> int:
        return self.layout.low

    @property
    def high(self) -> int:
        return self.layout.high

    def check_shape(self, out: int, columns: int, name: str) -> None:
        if columns % self.layout.block:
            fits = ", ".join(one.name for one in FORMATS.values() if columns % one.block == 0)
            raise FormatError(
                f"{name}: {columns} input columns do not divide into {self.name}'s blocks of {self.layout.block}; "
                + (f"choose one of {fits}, or list '{name}' under keep" if fits else f"list '{name}' under keep")
            )

    def scales_shape(self, out: int, columns: int) -> tuple[int, ...]:
        return (out, columns // self.layout.block * self.layout.header)


Grid = Annotated[IntGrid | FloatGrid | Fp4Grid | BlockGrid, Field(discriminator="type")]
