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
from quantgate.formats.ggml import codec as blocks
from quantgate.formats.grids import FP4_MAX, FP8_MAX, BlockGrid, FloatGrid, Fp4Grid, Grid, IntGrid

FP8 = torch.float8_e4m3fn
SMALLEST_FP8 = 2.0**-9  # the smallest e4m3 number above zero


def grouped(weight: Tensor, grid: Grid) -> Tensor:
    """``weight`` [out, in] with one scale per leading pair: [out, in/group, group], [out, 1, in] or [1, 1, all].

    Of blocks of n: [out/n, in/n, n * n].
    """
    out, columns = weight.shape
    if grid.strategy == "tensor":
        return weight.reshape(1, 1, out * columns)
    if grid.strategy == "block":
        side = grid.group_size or 1
        return weight.reshape(out // side, side, columns // side, side).transpose(1, 2).flatten(2)
    return weight.reshape(out, columns // (grid.group_size or columns), grid.group_size or columns)


def ungrouped(lines: Tensor, shape: torch.Size, grid: Grid) -> Tensor:
    """The inverse of ``grouped``: a weight of ``shape``."""
    if grid.strategy == "block":
        side = grid.group_size or 1
        lines = lines.unflatten(2, (side, side)).transpose(1, 2)
    return lines.reshape(shape)


def scales_for(
    weight: Tensor,
    grid: Grid,
    clip: Tensor | float | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    name: str = "weight",
    reach: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Min-max scales and zero points of ``weight`` [out, in].

    ``clip``: the fraction of the range to cover, a number or one per scale. Scales come in ``dtype``, or as float32
    from an Fp4Grid, shaped as the grid says; zero points int8 of the same shape, None when symmetric. A group of zeros
    gets scale 1. The scale of signs is the mean magnitude, which loses least (Rastegari et al. 2016, "XNOR-Net",
    equation 6), and 0 for zeros. ``reach`` is the largest magnitude of all tensors that share NVFP4's global scale;
    None: of this one.
    Raises FormatError when groups do not divide, or when a scale overflows ``dtype``.
    """
    grid.check_shape(weight.shape[0], weight.shape[1], name)
    if isinstance(grid, BlockGrid):
        return blocks.minmax(weight, grid.layout), None
    shape = grid.scales_shape(*weight.shape)
    if isinstance(grid, IntGrid) and grid.signs:
        return sign_scales(weight, grid, dtype), None
    low, high = grouped(weight, grid).float().aminmax(dim=-1)
    low, high = low.reshape(shape), high.reshape(shape)
    if clip is not None:
        low, high = low * clip, high * clip
    reach = float(weight.abs().max()) if reach is None else reach
    scales, zeros = scales_of_range(low, high, grid, dtype, reach)
    if not scales.isfinite().all():
        raise FormatError(
            f"{name}: weights up to {float(weight.abs().max()):.3g} need scales that {dtype} cannot hold; keep it"
        )
    return scales, zeros


def sign_scales(weight: Tensor, grid: IntGrid, dtype: torch.dtype, importance: Tensor | None = None) -> Tensor:
    """The mean magnitude under each scale, in ``dtype``, as the grid shapes it; ``importance`` [in] weighs columns."""
    lines = grouped(weight.float(), grid).abs()
    heavy = torch.ones_like(lines) if importance is None else grouped(importance.expand_as(weight), grid)
    means = (lines * heavy).sum(dim=-1) / heavy.sum(dim=-1)
    return means.reshape(grid.scales_shape(*weight.shape)).to(dtype)


def scales_of_range(
    low: Tensor, high: Tensor, grid: Grid, dtype: torch.dtype, reach: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """Scales in ``dtype`` and int8 zero points for ``low..high`` (any shape, elementwise); 0 is always covered."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    if isinstance(grid, Fp4Grid):
        return fp4_scales(torch.maximum(-low, high), grid, reach), None
    if isinstance(grid, FloatGrid):
        return _nonzero((torch.maximum(-low, high) / FP8_MAX).to(dtype)), None
    steps = 2**grid.bits - 1
    if grid.symmetric:
        return _nonzero((torch.maximum(-low, high) / (steps / 2)).to(dtype)), None
    scales = _nonzero(((high - low) / steps).to(dtype))
    zeros = (grid.low - low / scales.float()).round().clamp(grid.low, grid.high)
    return scales, zeros.to(torch.int8)


def fp4_scales(largest: Tensor, grid: Fp4Grid, reach: float) -> Tensor:
    """float32 scales under which ``largest`` is within the grid (any shape), as numbers that the grid's scales can be.

    Powers of two are rounded up, so nothing is cut off; e4m3 numbers are rounded to the nearest.
    """
    wanted = largest.float() / FP4_MAX
    if grid.scales == "e8m0":
        exponent = torch.frexp(wanted)  # wanted = mantissa * 2^exponent, mantissa in [0.5, 1)
        power = torch.where(exponent.mantissa == 0.5, exponent.exponent - 1, exponent.exponent)
        return torch.where(wanted > 0, torch.ldexp(torch.ones_like(wanted), power.clamp(-127, 127)), 1.0)
    shared = global_scale(reach)
    stored = (wanted * shared).clamp(max=FP8_MAX).to(FP8).float().clamp(min=SMALLEST_FP8)
    return stored / shared


def global_scale(reach: float) -> float:
    """NVFP4's divisor of all scales of a tensor: the largest magnitude ``reach`` becomes the largest scale times 6.

    A float32 number, as the file holds it.
    """
    return float(torch.tensor(FP8_MAX * FP4_MAX / reach if reach > 0 else 1.0, dtype=torch.float32))


def nearest_fp4(doubled: Tensor) -> Tensor:
    """Numbers of twice the e2m1 values: 0, 1, 2, 3, 4, 6, 8, 12 of either sign; ties go to the even code."""
    size = doubled.abs()
    near = torch.where(size < 4, size.round(), torch.where(size < 8, (size / 2).round() * 2, (size / 4).round() * 4))
    return near.clamp(max=2 * FP4_MAX).copysign(doubled)


def to_codes(x: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid) -> Tensor:
    """Nearest codes of ``x``, with scales and zeros that broadcast against it; int8, or float8_e4m3fn."""
    if isinstance(grid, IntGrid) and grid.signs:
        return torch.where(x < 0, -1, 1).to(torch.int8)
    scaled = x / scales
    if isinstance(grid, Fp4Grid):
        return nearest_fp4(scaled * 2).to(torch.int8)
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
    if isinstance(grid, BlockGrid):
        return blocks.encode(weight, scales, grid.layout)
    return ungrouped(to_codes(grouped(weight.float(), grid), *_spread(scales, zeros, grid), grid), weight.shape, grid)


def decode(codes: Tensor, grid: Grid, scales: Tensor, zeros: Tensor | None = None) -> Tensor:
    """float32 [out, in]: the numbers that a runtime computes with."""
    if isinstance(grid, BlockGrid):
        return blocks.decode(codes, scales, grid.layout)
    if isinstance(grid, Fp4Grid):
        scales = scales * grid.unit
    return ungrouped(to_values(grouped(codes, grid), *_spread(scales, zeros, grid)), codes.shape, grid)


def roundtrip(weight: Tensor, grid: Grid, *, dtype: torch.dtype = torch.bfloat16, name: str = "weight") -> Tensor:
    """``weight`` after min-max quantization, float32."""
    scales, zeros = scales_for(weight, grid, dtype=dtype, name=name)
    return decode(encode(weight, grid, scales, zeros), grid, scales, zeros)


def calibrated_scale(grid: Grid, largest: float) -> float | None:
    """What of an activation grid's scales the calibration set decides, as the file holds it; None: nothing.

    ``largest`` is the largest magnitude of the layer's input. FP8 with one scale: that scale. NVFP4: the divisor of all
    scales, which are computed from each group at run time.
    """
    if isinstance(grid, Fp4Grid):
        return global_scale(largest) if grid.scales == "fp8" else None
    return (largest / _top(grid) or 1.0) if grid.strategy == "tensor" else None


def quantize_activations(x: Tensor, grid: Grid, calibrated: Tensor | None = None) -> Tensor:
    """``x`` [..., features] rounded to a grid with one scale per token, per group, or calibrated, in its own dtype.

    ``calibrated`` is the number of ``calibrated_scale`` in the type that it is stored in. Every step runs in the dtype
    of ``x`` as in compressed-tensors' emulation (``compute_dynamic_scales_and_zp``, then ``_quantize_dequantize``), so
    bfloat16 inputs see bfloat16 rounding of scale, quotient and product. For inputs of two dimensions that package
    takes one scale for the whole tensor; here a token keeps its own.
    """
    if isinstance(grid, Fp4Grid):
        return _fp4_activations(x, grid, calibrated)
    if not grid.symmetric or grid.strategy not in ("token", "group", "tensor"):
        raise FormatError(
            f"activations: strategy '{grid.strategy}', symmetric={grid.symmetric}; only symmetric grids with one scale "
            "per token, per group, or calibrated run"
        )
    if grid.strategy == "tensor":
        if calibrated is None:
            raise FormatError("activations: one scale for all tokens needs a calibrated number, and none is stored")
        return _rounded(x, calibrated.to(x.dtype), grid)
    lines = x if grid.strategy == "token" else x.unflatten(-1, (-1, grid.group_size or 1))
    scale = lines.abs().amax(dim=-1, keepdim=True) / _top(grid)
    scale = torch.where(scale == 0, torch.finfo(scale.dtype).eps, scale)
    return _rounded(lines, scale, grid).reshape(x.shape)


def _top(grid: Grid) -> float:
    """The magnitude that a scale of 1 reaches."""
    return FP8_MAX if isinstance(grid, FloatGrid) else (2**grid.bits - 1) / 2


def _rounded(x: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    if isinstance(grid, IntGrid):
        return (x / scale).clamp(grid.low, grid.high).round() * scale
    return (x / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8).to(x.dtype) * scale


def _fp4_activations(x: Tensor, grid: Fp4Grid, calibrated: Tensor | None) -> Tensor:
    """Groups of features under scales of their own: powers of two (MXFP4), or e4m3 numbers over ``calibrated`` (NVFP4).

    The power is floor(log2(largest)) - 2 with the largest rounded to two bits first. Source: OCP MX v1.0, section 6.3;
    the rounding is that of compressed-tensors (``round_to_power_2``).
    """
    lines = x.unflatten(-1, (-1, grid.group_size or x.shape[-1]))
    largest = lines.abs().amax(dim=-1, keepdim=True)
    if grid.scales == "e8m0":
        split = torch.frexp(largest.float())
        power = split.exponent - 1 + (split.mantissa >= 0.875)  # 1.75 and more round up to the next power of two
        scale = torch.ldexp(torch.ones_like(split.mantissa), (power - 2).clamp(-127, 127))
    else:
        if calibrated is None:
            raise FormatError("activations: NVFP4 needs a calibrated global scale, and none is stored")
        stored = ((largest / FP4_MAX) * calibrated.float()).clamp(max=FP8_MAX).to(FP8).float()
        scale = torch.where(stored == 0, torch.finfo(FP8).eps, stored) / calibrated.float()
    return (nearest_fp4(lines.float() / scale * 2) * grid.unit * scale).reshape(x.shape).to(x.dtype)


def _spread(scales: Tensor, zeros: Tensor | None, grid: Grid) -> tuple[Tensor, Tensor | None]:
    """Scales and zeros with the trailing dimension that ``grouped`` adds."""
    if grid.strategy == "tensor":
        scales, zeros = scales.reshape(1, 1), None if zeros is None else zeros.reshape(1, 1)
    return scales.unsqueeze(-1), None if zeros is None else zeros.unsqueeze(-1)


def _nonzero(scales: Tensor) -> Tensor:
    """Scale 1 where there is nothing to scale (or too little for the dtype): codes become 0, and no quotient is NaN."""
    return torch.where(scales == 0, 1.0, scales)
