"""Numbers as they will be stored, with gradients: forward is the codec's own arithmetic, backward is straight-through.

Scales are trained as the logarithm of what they are over what they began as, so one learning rate fits all layers; zero
points as half ranges from where they began. Forward uses both as the container stores them. For a weight w, v = w / s
(+ z), and q what is decoded:

    d q / d w      1 where v is within the codes, else 0
    d q / d log s  q - w within, q beyond                (LSQ, Esser et al. 2020, arXiv 1902.08153, equation 3, times s)
    d q / d z      0 within, -s beyond                   (LSQ+, Bhalgat et al. 2020, arXiv 2004.09576, section 3.1)

LSQ's factor 1 / sqrt(weights * codes) on the second is left out: AdamW takes the length of a gradient away again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantgate.formats import codec
from quantgate.formats.ggml import codec as blocks
from quantgate.formats.ggml.scales import BlockScales, pack_scales, unpack_scales
from quantgate.formats.grids import FP4_MAX, FP8_MAX, BlockGrid, Fp4Grid, Grid, IntGrid

SIGN_REACH = 1.0  # of signs: how many scales from zero a weight still feels its gradient (XNOR-Net, section 3.1)


@dataclass(frozen=True, eq=False)
class Start:
    """What a layer's scales and zero points are before training, as its container stores them."""

    grid: Grid
    scales: Tensor  # as the grid shapes them, in the container's type; bytes of a BlockGrid
    zeros: Tensor | None = None  # int8, shaped like scales
    global_scale: float = 1.0  # NVFP4's divisor of all scales

    @property
    def learned(self) -> tuple[int, ...]:
        """The shape of the parameter that scales are trained as; () where nothing is to be learned."""
        if isinstance(self.grid, BlockGrid):
            held = unpack_scales(self.scales, self.grid.layout)
            return () if self.grid.layout.powers else (2 if held.dmin is not None else 1, *held.d.shape)
        return tuple(self.scales.shape)

    def to(self, device: Any) -> Start:
        zeros = None if self.zeros is None else self.zeros.to(device)
        return Start(self.grid, self.scales.to(device), zeros, self.global_scale)


def stored_scales(start: Start, log: Tensor) -> Tensor:
    """The scales that ``start``'s become when multiplied by exp(``log``), as the container stores them.

    ``log`` is shaped like the scales; of a BlockGrid [1 or 2, out, blocks]: of ``d`` and, where there is one, ``dmin``.
    """
    grid, first = start.grid, start.scales
    if isinstance(grid, BlockGrid):
        return _headers(first, log, grid) if start.learned else first
    if isinstance(grid, Fp4Grid):
        if grid.scales == "e8m0":
            power = torch.log2(first) + log / math.log(2)
            return torch.ldexp(torch.ones_like(first), power.round().clamp(-127, 127).int())
        wanted = (first * start.global_scale * log.exp()).clamp(codec.SMALLEST_FP8, FP8_MAX)
        return wanted.to(codec.FP8).float() / start.global_scale
    limits = torch.finfo(first.dtype)
    wanted = first.float() * log.exp()
    small = (wanted.abs() < limits.tiny) & (first != 0)
    return torch.where(small, first.float(), wanted.clamp(-limits.max, limits.max)).to(first.dtype)


def _headers(first: Tensor, log: Tensor, grid: BlockGrid) -> Tensor:
    held = unpack_scales(first, grid.layout)
    largest = torch.finfo(torch.float16).max

    def times(number: Tensor, log: Tensor) -> Tensor:
        return (number.float() * log.exp()).clamp(-largest, largest).half()

    dmin = None if held.dmin is None else times(held.dmin, log[1])
    return pack_scales(BlockScales(times(held.d, log[0]), dmin, held.scales, held.minima), grid.layout)


def stored_zeros(start: Start, moved: Tensor | None) -> Tensor | None:
    """Whole zero points, int8, ``moved`` by so many halves of the grid's range from where they began."""
    if start.zeros is None or moved is None:
        return start.zeros
    grid = start.grid
    assert isinstance(grid, IntGrid)  # no other grid has zero points
    return (start.zeros + moved * half_range(grid)).round().clamp(grid.low, grid.high).to(torch.int8)


def half_range(grid: IntGrid) -> int:
    """Half as many codes as the grid has."""
    return 1 << (grid.bits - 1)


class _RoundWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, log: Tensor | None, moved: Tensor | None, start: Start) -> Tensor:
        scales = start.scales if log is None else stored_scales(start, log)
        zeros = stored_zeros(start, moved)
        rounded = codec.decode(codec.encode(weight, start.grid, scales, zeros), start.grid, scales, zeros)
        ctx.start, ctx.scales, ctx.zeros = start, scales, zeros
        ctx.save_for_backward(weight, rounded)
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, rounded = ctx.saved_tensors
        (grad,) = grads
        if isinstance(ctx.start.grid, BlockGrid):
            return *_blocks_backward(grad, weight, rounded, ctx.start.grid, ctx.scales, ctx.needs_input_grad), None
        return *_backward(grad, weight, rounded, ctx), None


def round_weight(weight: Tensor, start: Start, log: Tensor | None = None, moved: Tensor | None = None) -> Tensor:
    """float32 [out, in]: what the container decodes to when ``weight`` [out, in] is encoded in it.

    ``log`` and ``moved`` are the trained parts of scales and zero points (``stored_scales``, ``stored_zeros``); None:
    those of the start, which do not learn.
    """
    rounded: Tensor = _RoundWeight.apply(weight, log, moved, start)  # type: ignore[no-untyped-call]
    return rounded


def _backward(
    grad: Tensor, weight: Tensor, rounded: Tensor, ctx: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    grid, scales, zeros = ctx.start.grid, ctx.scales, ctx.zeros
    within = codec.grouped(weight, grid) / _spread(scales, grid)
    if zeros is not None:
        within += _spread(zeros, grid)
    inside = _inside(within, grid)
    lines = codec.grouped(grad, grid)
    passed = lines * inside
    for_log = for_moved = None
    if ctx.needs_input_grad[1]:
        per_line = (lines * codec.grouped(rounded, grid)).sum(-1)
        if not (isinstance(grid, IntGrid) and grid.signs):
            per_line -= (passed * codec.grouped(weight, grid)).sum(-1)
        for_log = per_line.reshape(scales.shape)
    if ctx.needs_input_grad[2]:
        beyond = (lines.sum(-1) - passed.sum(-1)).reshape(scales.shape)
        for_moved = -beyond * scales.float() * half_range(grid)
    return codec.ungrouped(passed, weight.shape, grid), for_log, for_moved


def _inside(within: Tensor, grid: Grid) -> Tensor:
    """Where numbers over their scale, plus zero point, are in reach of a code."""
    if isinstance(grid, IntGrid):
        if grid.signs:
            return within.abs() <= SIGN_REACH
        return (within >= grid.low) & (within <= grid.high)
    return within.abs() <= (FP4_MAX if isinstance(grid, Fp4Grid) else FP8_MAX)


def _spread(scales: Tensor, grid: Grid) -> Tensor:
    return (scales.reshape(1, 1) if grid.strategy == "tensor" else scales).float().unsqueeze(-1)


def _blocks_backward(
    grad: Tensor, weight: Tensor, rounded: Tensor, grid: BlockGrid, header: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """As above for ``q = d * scale * code + offset``, where the offset is ``dmin`` (times a whole number), or none."""
    layout, held = grid.layout, unpack_scales(header, grid.layout)
    steps, offsets = held.steps().unsqueeze(-1), held.offsets()
    below = torch.zeros_like(steps) if offsets is None else offsets.unsqueeze(-1)
    lines = weight.unflatten(1, (-1, layout.group)) - below
    scaled = lines / torch.where(steps == 0, blocks.SMALLEST, steps)
    inside = (scaled >= layout.low) & (scaled <= layout.high)
    grads = grad.unflatten(1, (-1, layout.group))
    passed = grads * inside
    for_log = None
    if needs[1]:
        per_block = (weight.shape[0], -1, layout.block)
        for_d = grads * (rounded.unflatten(1, (-1, layout.group)) - below) - passed * lines
        parts = [for_d, (grads - passed) * below] if held.dmin is not None else [for_d]
        for_log = torch.stack([part.reshape(per_block).sum(-1) for part in parts])
    return passed.flatten(1), for_log, None


class _RoundInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid, calibrated: Tensor | None, log: Tensor | None) -> Tensor:
        if calibrated is not None and log is not None:
            calibrated = stored_number(calibrated, log)
        rounded = codec.quantize_activations(x, grid, calibrated)
        ctx.grid, ctx.static = grid, grid.strategy == "tensor"
        if ctx.static:
            ctx.save_for_backward(x, rounded, calibrated)
        elif isinstance(grid, IntGrid):
            ctx.save_for_backward(x, rounded)
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        if not ctx.static and not isinstance(ctx.grid, IntGrid):
            return grad, None, None, None
        if not ctx.static:
            x, rounded = ctx.saved_tensors
            return _through_peaks(grad, x, rounded, ctx.grid), None, None, None
        x, rounded, calibrated = ctx.saved_tensors
        passed = grad * _inside(x / calibrated.to(x.dtype), ctx.grid)
        for_log = None
        if ctx.needs_input_grad[3]:
            for_log = ((grad * rounded).sum(dtype=torch.float32) - (passed * x).sum(dtype=torch.float32)).reshape(1)
        return passed, None, None, for_log


def _through_peaks(grad: Tensor, x: Tensor, rounded: Tensor, grid: Grid) -> Tensor:
    """Gradient of numbers whose scale s is the largest of their line over the top code, for every line's largest too.

    d q / d s is (q - x) / s (LSQ's, within reach), and d s / d x of the largest its sign over the top: so what rounding
    with a large step costs pulls at the number that made the step large.
    """
    width = x.shape[-1] if grid.strategy == "token" else grid.group_size or x.shape[-1]
    lines, off = x.unflatten(-1, (-1, width)), (rounded - x).unflatten(-1, (-1, width))
    at = lines.abs().argmax(-1, keepdim=True)
    peak = lines.gather(-1, at)
    passed = grad.unflatten(-1, (-1, width))
    along = (passed * off).sum(-1, keepdim=True)
    pull = torch.where(peak == 0, 0.0, along / peak)
    gradient: Tensor = passed.scatter_add(-1, at, pull.to(passed.dtype)).reshape(x.shape)
    return gradient


def round_input(x: Tensor, grid: Grid, calibrated: Tensor | None = None, log: Tensor | None = None) -> Tensor:
    """``codec.quantize_activations``; gradients pass, but not where a calibrated scale cuts off.

    ``log`` [1] trains that scale as ``stored_number`` has it. Scales that are made at run time reach every number, and
    of integers the largest number of a line is pulled at by what its scale costs the others.
    """
    rounded: Tensor = _RoundInput.apply(x, grid, calibrated, log)  # type: ignore[no-untyped-call]
    return rounded


def stored_number(first: Tensor, log: Tensor) -> Tensor:
    """A calibrated scale times exp(``log``), in the type that it is stored in."""
    return (first.float() * log.exp()).to(first.dtype)


class _StoreAs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


def store_as(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` float32, rounded to what ``dtype`` holds; gradients pass."""
    rounded: Tensor = _StoreAs.apply(x, dtype)  # type: ignore[no-untyped-call]
    return rounded


def within_cells(wished: Tensor, codes: Tensor, start: Start) -> Tensor:
    """The weights nearest to ``wished`` [out, in] that ``codes`` [out, in] under ``start`` are the rounding of.

    So training begins with exactly the start's numbers and still knows where in its step each weight came from.
    """
    grid = start.grid
    value = codec.decode(codes, grid, start.scales, start.zeros)
    agree = codec.encode(wished, grid, start.scales, start.zeros).float() == codes.float()
    if isinstance(grid, IntGrid) and not grid.signs:
        step = codec.grouped(torch.ones_like(wished), grid) * _spread(start.scales, grid).abs() * 0.49
        step = codec.ungrouped(step, wished.shape, grid)
        near = torch.minimum(torch.maximum(wished, value - step), value + step)
        kept = codec.encode(near, grid, start.scales, start.zeros) == codes
        return torch.where(agree, wished, torch.where(kept, near, value))
    return torch.where(agree, wished, value)
