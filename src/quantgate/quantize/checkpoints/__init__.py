"""Checkpoints: one file per container. A container says how codes and scales are named, packed and described on disk.

A container's file ends with ``CHECKPOINT = ...``, an object with the methods of ``Checkpoint``. The sweep hands it one
solved layer at a time and stores the tensors it gives back; everything else (kept tensors, tokenizer, manifest, writing
aside) is the same for all containers and lives in the sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from quantgate import plugins

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from quantgate.formats import Grid, Scheme
    from quantgate.quantize.ends import Ends


@dataclass(frozen=True)
class StoredLinear:
    """A quantized linear layer as codes, whatever container it came from: what low-bit kernels are fed with."""

    name: str
    codes: Tensor  # [out, in] int8, signed; or float8_e4m3fn
    scales: Tensor  # as the grid shapes them, in the container's type: the model's or float16; float32 for fp4; bytes
    zeros: Tensor | None  # int8, shaped like scales; None when symmetric
    grid: Grid  # how codes, scales and zeros make a weight
    activations: Grid | None  # what the layer's input is rounded to at run time
    bias: Tensor | None = None  # [out]
    global_scale: float = 1.0  # NVFP4: what all stored scales are divided by; ``scales`` are so already
    input_scale: Tensor | None = None  # [1]: what ``activations`` need from the calibration set
    group_of: Tensor | None = None  # int64 [in]: the group of each column, where groups are not columns side by side

    def dequantized(self, dtype: torch.dtype | None = None) -> Tensor:
        """[out, in]: ``(code - zero) * scale`` as a runtime that works in ``dtype`` computes it, rounded once to it.

        None means the type that the scales are stored in.
        """
        import torch

        from quantgate.formats import BlockGrid, Fp4Grid
        from quantgate.formats.codec import decode, to_values

        if isinstance(self.grid, BlockGrid):
            return decode(self.codes, self.grid, self.scales).to(dtype or torch.float32)
        if isinstance(self.grid, Fp4Grid):
            return decode(self.codes, self.grid, self.scales).to(dtype or self.scales.dtype)
        scales = self.scales.to(dtype or self.scales.dtype)
        if self.group_of is None:
            return decode(self.codes, self.grid, scales, self.zeros).to(scales.dtype)
        zeros = None if self.zeros is None else self.zeros[:, self.group_of]
        return to_values(self.codes, scales[:, self.group_of], zeros).to(scales.dtype)


@dataclass(frozen=True)
class DecodedLinear(StoredLinear):
    """A layer of a container whose blocks are decoded when it is read: ``codes`` are its numbers, float32 [out, in]."""

    def dequantized(self, dtype: torch.dtype | None = None) -> Tensor:
        """[out, in], rounded once to ``dtype``."""
        return self.codes if dtype is None else self.codes.to(dtype)


class Checkpoint(Protocol):
    """A container format."""

    name: str
    least_scale: float  # of integer grids; 0 where any can be stored

    def refuse(self, scheme: Scheme) -> str | None:
        """Why this container cannot hold the scheme, or None when it can."""

    def refuse_layer(self, scheme: Scheme, out: int, columns: int) -> str | None:
        """Why this container cannot hold a weight [out, columns] of a scheme that it can hold, or None."""

    def scale_dtype(self, stored: torch.dtype) -> torch.dtype:
        """The type that scales are rounded to for a weight that the model has in the type ``stored``."""

    def pack(self, layer: StoredLinear) -> dict[str, Tensor]:
        """The tensors that the layer becomes, by full name (the bias is stored by the sweep)."""

    def unpack(self, name: str, read: Callable[[str], Tensor], scheme: Scheme, bias: Tensor | None) -> StoredLinear:
        """The inverse of ``pack``; ``read`` gives a stored tensor by full name."""

    def config(self, config: dict[str, Any], scheme: Scheme, kept: Sequence[str]) -> dict[str, Any]:
        """The model's ``config.json`` with what a runtime must know; ``kept`` are the linear layers left alone."""

    def refuse_ends(self, ends: Ends, blocks: Scheme) -> str | None:
        """Why the ends, some of which are to be in codes, cannot be so beside ``blocks``, or None."""

    def config_ends(self, told: dict[str, Any], ends: Ends, blocks: Scheme) -> dict[str, Any]:
        """What ``config`` gave, with the ends that are in codes told as well."""


def half(stored: torch.dtype) -> torch.dtype:
    """The type of scales that are stored as float16: the model's own 16 bits, so that codes come out alike."""
    import torch

    return torch.float16 if stored is torch.float32 else stored


def names() -> tuple[str, ...]:
    return plugins.names("checkpoints")


def get(name: str, *, where: str = "") -> Checkpoint:
    return plugins.get("checkpoints", name, where=where)  # type: ignore[no-any-return]
