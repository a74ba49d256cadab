"""Weights to codes of a block format and back; the scales are chosen before (``quantize/methods/_blocks.py``)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from quantgate.formats.ggml import BlockFormat
from quantgate.formats.ggml.scales import BlockScales, pack_scales, unpack_scales

SMALLEST = torch.finfo(torch.float32).tiny  # in place of a scale of 0 where something is divided by it


def decode(codes: Tensor, header: Tensor, layout: BlockFormat) -> Tensor:
    """float32 [out, in] of int8 codes [out, in] and uint8 headers [out, blocks * header]: what ggml computes with."""
    held = unpack_scales(header, layout)
    offsets = held.offsets()
    exact = codes.unflatten(1, (-1, layout.group)) * held.steps().unsqueeze(-1)
    values: Tensor = exact if offsets is None else exact + offsets.unsqueeze(-1)
    return values.flatten(1)


def encode(weight: Tensor, header: Tensor, layout: BlockFormat) -> Tensor:
    """int8 codes [out, in]: those that decode nearest to ``weight`` [out, in] under the scales of the headers."""
    held = unpack_scales(header, layout)
    steps, offsets = held.steps().unsqueeze(-1), held.offsets()
    lines = weight.float().unflatten(1, (-1, layout.group))
    if offsets is not None:
        lines = lines - offsets.unsqueeze(-1)
    return snap_(lines / torch.where(steps == 0, SMALLEST, steps), layout).flatten(1).to(torch.int8)


def snap_(scaled: Tensor, layout: BlockFormat) -> Tensor:
    """Nearest codes of ``scaled`` (weights less offset, over scale) as float32; ``scaled`` is overwritten."""
    if layout.levels is None:
        return scaled.round_().clamp_(layout.low, layout.high)
    low, high = 2 * layout.low, 2 * layout.high
    halves = scaled.mul_(2).floor_().clamp_(low, high - 1).sub_(low).int()
    return _nearest(layout.levels, scaled.device)[halves]


@cache
def _nearest(levels: tuple[int, ...], device: torch.device) -> Tensor:
    """The nearest level of each interval of half a unit: levels are whole, so the middle of two ends an interval."""
    ordered = torch.tensor(sorted(set(levels)), dtype=torch.float32, device=device)
    middle = torch.arange(2 * min(levels), 2 * max(levels), device=device) / 2 + 0.25
    return ordered[(middle.unsqueeze(1) - ordered).abs().argmin(dim=1)]


def minmax(weight: Tensor, layout: BlockFormat) -> Tensor:
    """uint8 headers [out, blocks * header] of scales that reach from the least to the largest weight of each group.

    Without minima the weight of the largest magnitude falls on the lowest code. Whole numbers are rounded to nearest.
    """
    lines = weight.float().unflatten(1, (-1, layout.block))  # [out, blocks, block]
    groups = lines.unflatten(-1, (-1, layout.group))
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    if layout.powers:
        reach = torch.maximum(-low, high).clamp(min=SMALLEST) / layout.high * 2
        exponent = torch.frexp(reach).exponent - torch.where(torch.frexp(reach).mantissa == 0.5, 1, 0)
        return pack_scales(
            BlockScales((exponent + 127).clamp(0, 254).to(torch.uint8).squeeze(-1), None, None, None), layout
        )
    if layout.minima:
        low = low if layout.whole is None else low.clamp(max=0)
        steps, minima = (high - low) / layout.high, -low
    else:
        steps, minima = torch.where(high > -low, high, low) / layout.low, None
    d, scales = _whole(steps, layout)
    if minima is None:
        return pack_scales(BlockScales(d, None, scales, None), layout)
    dmin, below = _whole(minima, layout)
    return pack_scales(BlockScales(d, dmin if below is not None else -dmin, scales, below), layout)


def _whole(wished: Tensor, layout: BlockFormat) -> tuple[Tensor, Tensor | None]:
    """float16 [out, blocks] and whole numbers [out, blocks, groups] whose products are nearly ``wished``."""
    if layout.whole is None:
        return wished.squeeze(-1).half(), None
    low, high = layout.whole
    if low < 0:
        extreme = wished.gather(-1, wished.abs().argmax(dim=-1, keepdim=True)) / low
    else:
        extreme = wished.amax(dim=-1, keepdim=True) / high
    d = extreme.half()
    numbers = (wished / torch.where(d == 0, SMALLEST, d.float())).round().clamp(low, high)
    return d.squeeze(-1), numbers.short()
