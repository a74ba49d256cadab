"""Weights to codes and back. Pure tensor arithmetic, equal bit for bit to what compressed-tensors decodes.

Two details decide whether a runtime sees the same numbers. Scales are stored in the model's dtype, so they are rounded
to it *before* codes are chosen. And a weight is decoded in the scales' dtype, ``(code - zero) * scale`` rounded once,
so ``decode`` gives those rounded numbers (as float32). In bfloat16, with its 8 significant bits, that rounding is up to
half a step for symmetric 8-bit codes and a whole step for asymmetric ones; at fewer bits it does not matter.
Source: compressed-tensors 0.20, quantization/utils/helpers.py ``calculate_qparams``, quantization/lifecycle/forward.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats.grids import FP8_MAX, FloatGrid, Grid

FP8 = torch.float8_e4m3fn


def grouped(weight: Tensor, grid: Grid) -> Tensor:
    """``weight`` [out, in] with one scale per leading pair: [out, in/group, group], [out, 1, in] or [1, 1, all]."""
    out, columns = weight.shape
    if grid.strategy == "tensor":
        return weight.reshape(1, 1, out * columns)
    return weight.reshape(out, columns // (grid.group_size or columns), grid.group_size or columns)


def scales_for(
    weight: Tensor,
    grid: Grid,
    clip: Tensor | float | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    name: str = "weight",
) -> tuple[Tensor, Tensor | None]:
    """Min-max scales and zero points of ``weight`` [out, in].

    ``clip``: the fraction of the range to cover, a number or one per scale. Scales come in ``dtype``, shaped as the
    grid says; zero points int8 of the same shape, None when symmetric. A group of zeros gets scale 1. Raises
    FormatError when groups do not divide, or when a scale overflows ``dtype``.
    """
    grid.check_columns(weight.shape[1], name)
    shape = grid.scales_shape(*weight.shape)
    low, high = grouped(weight, grid).float().aminmax(dim=-1)
    low, high = low.reshape(shape), high.reshape(shape)
    if clip is not None:
        low, high = low * clip, high * clip
    scales, zeros = scales_of_range(low, high, grid, dtype)
    if not scales.isfinite().all():
        raise FormatError(
            f"{name}: weights up to {float(weight.abs().max()):.3g} need scales that {dtype} cannot hold; keep it"
        )
    return scales, zeros


def scales_of_range(low: Tensor, high: Tensor, grid: Grid, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Scales in ``dtype`` and int8 zero points for ``low..high`` (any shape, elementwise); 0 is always covered."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    if isinstance(grid, FloatGrid):
        return _nonzero((torch.maximum(-low, high) / FP8_MAX).to(dtype)), None
    steps = 2**grid.bits - 1
    if grid.symmetric:
        return _nonzero((torch.maximum(-low, high) / (steps / 2)).to(dtype)), None
    scales = _nonzero(((high - low) / steps).to(dtype))
    zeros = (grid.low - low / scales.float()).round().clamp(grid.low, grid.high)
    return scales, zeros.to(torch.int8)


def to_codes(x: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid) -> Tensor:
    """Nearest codes of ``x``, with scales and zeros that broadcast against it; int8, or float8_e4m3fn."""
    scaled = x / scales
    if isinstance(grid, FloatGrid):
        return scaled.clamp(-FP8_MAX, FP8_MAX).to(FP8)
    if zeros is not None:
        scaled = scaled + zeros
    return scaled.clamp(grid.low, grid.high).round().to(torch.int8)


def to_values(codes: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
    """``(code - zero) * scale``, rounded once to the scales' dtype, as float32."""
    shifted = codes.float() if zeros is None else codes.float() - zeros.float()
    return (shifted * scales.float()).to(scales.dtype).float()


def encode(weight: Tensor, grid: Grid, scales: Tensor, zeros: Tensor | None = None) -> Tensor:
    """Codes [out, in] of ``weight`` [out, in] under stored scales: int8, or float8_e4m3fn for a FloatGrid."""
    return to_codes(grouped(weight.float(), grid), *_spread(scales, zeros, grid), grid).reshape(weight.shape)


def decode(codes: Tensor, grid: Grid, scales: Tensor, zeros: Tensor | None = None) -> Tensor:
    """float32 [out, in]: the numbers that a runtime computes with."""
    return to_values(grouped(codes, grid), *_spread(scales, zeros, grid)).reshape(codes.shape)


def roundtrip(weight: Tensor, grid: Grid, *, dtype: torch.dtype = torch.bfloat16, name: str = "weight") -> Tensor:
    """``weight`` after min-max quantization, float32."""
    scales, zeros = scales_for(weight, grid, dtype=dtype, name=name)
    return decode(encode(weight, grid, scales, zeros), grid, scales, zeros)


def quantize_activations(x: Tensor, grid: Grid) -> Tensor:
    """``x`` [..., features] rounded to a dynamic grid with one scale per token, in ``x``'s own dtype.

    Every step runs in the dtype of ``x`` as in compressed-tensors' emulation (``compute_dynamic_scales_and_zp``, then
    ``_quantize_dequantize``), so bfloat16 inputs see bfloat16 rounding of scale, quotient and product. For inputs of
    two dimensions that package takes one scale for the whole tensor; here a token keeps its own.
    """
    if grid.strategy != "token" or not grid.symmetric:
        raise FormatError(
            f"activations: strategy '{grid.strategy}', symmetric={grid.symmetric}; only symmetric 'token' runs"
        )
    top = FP8_MAX if isinstance(grid, FloatGrid) else (2**grid.bits - 1) / 2
    scale = x.abs().amax(dim=-1, keepdim=True) / top
    scale = torch.where(scale == 0, torch.finfo(scale.dtype).eps, scale)
    if isinstance(grid, FloatGrid):
        return (x / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8).to(x.dtype) * scale
    return (x / scale).clamp(grid.low, grid.high).round() * scale


def _spread(scales: Tensor, zeros: Tensor | None, grid: Grid) -> tuple[Tensor, Tensor | None]:
    """Scales and zeros with the trailing dimension that ``grouped`` adds."""
    if grid.strategy == "tensor":
        scales, zeros = scales.reshape(1, 1), None if zeros is None else zeros.reshape(1, 1)
    return scales.unsqueeze(-1), None if zeros is None else zeros.unsqueeze(-1)


def _nonzero(scales: Tensor) -> Tensor:
    """Scale 1 where there is nothing to scale (or too little for the dtype): codes become 0, and no quotient is NaN."""
    return torch.where(scales == 0, 1.0, scales)
