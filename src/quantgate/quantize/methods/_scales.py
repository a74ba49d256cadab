"""How scales are chosen before codes are: min-max, or the clipping that loses least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from quantgate.errors import BadTensor, FormatError
from quantgate.formats import BlockGrid, FloatGrid, Fp4Grid, Grid, IntGrid
from quantgate.formats.codec import fp4_scales, grouped, scales_for, scales_of_range, sign_scales, to_codes, to_values
from quantgate.quantize.methods import Job, LayerStats
from quantgate.quantize.methods._blocks import choose_blocks

Clip = Literal["minmax", "mse", "hessian"]
COARSE = tuple(1 - 0.03 * step for step in range(26))  # 1.00 down to 0.25: two bits with heavy tails go that low
FINE = (-0.015, 0.015, -0.0075, 0.0075)  # around the best so far, in this order
CHUNK = 1 << 17  # numbers searched at once; they stay in the processor's cache


def checked(job: Job, known: Tensor | None = None) -> Tensor:
    """The weight of ``job`` in float32. Raises BadTensor on NaN, Inf or a wrong rank, FormatError on bad groups.

    ``known``: the same weight, if another job has already been checked with it.
    """
    if job.weight.dim() != 2:
        raise BadTensor(
            f"{job.name}: has shape {list(job.weight.shape)}, expected [out, in]; list '{job.name}' under keep"
        )
    if job.grid.strategy == "token":
        raise FormatError(
            f"{job.name}: a grid with one scale per token is for activations; give weights another strategy"
        )
    out, columns = job.weight.shape
    job.grid.check_shape(out, columns, job.name)
    if known is not None:
        return known
    weight = job.weight.float()
    if not bool(weight.isfinite().all()):
        raise BadTensor(
            f"{job.name}: holds NaN or Inf; quantgate needs finite weights, fix or download the checkpoint again"
        )
    return weight


def checked_all(jobs: Sequence[Job]) -> list[Tensor]:
    """``checked`` of every job; those on one weight share it."""
    known: dict[int, Tensor] = {}
    for job in jobs:
        known[id(job.weight)] = checked(job, known.get(id(job.weight)))
    return [known[id(job.weight)] for job in jobs]


def choose_scales(job: Job, weight: Tensor, clip: Clip, stats: LayerStats | None) -> tuple[Tensor, Tensor | None, Clip]:
    """Scales and zero points of ``weight`` [out, in], and the clip that was used: a float grid is never clipped.

    "hessian" weighs each column's error by the Hessian's diagonal.
    """
    scales, zeros, used = _chosen(job, weight, clip, stats)
    return *storable(job, weight, scales, zeros), used


def storable(job: Job, weight: Tensor, scales: Tensor, zeros: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Integer scales no smaller than the container stores, and the zero points that go with the raised ones."""
    small = (scales < job.least_scale) & (scales != 0)
    if not isinstance(job.grid, IntGrid) or not bool(small.any()):
        return scales, zeros
    scales = torch.where(small, job.least_scale, scales)
    if zeros is None:
        return scales, None
    low = grouped(weight, job.grid).amin(dim=-1).clamp(max=0).reshape(scales.shape)
    raised = (job.grid.low - low / scales.float()).round().clamp(job.grid.low, job.grid.high)
    return scales, torch.where(small, raised.to(zeros.dtype), zeros)


def _chosen(job: Job, weight: Tensor, clip: Clip, stats: LayerStats | None) -> tuple[Tensor, Tensor | None, Clip]:
    dtype = job.scale_dtype or torch.bfloat16
    importance = column_importance(stats) if clip == "hessian" and stats is not None else None
    if isinstance(job.grid, IntGrid) and job.grid.signs:  # nothing to clip: the mean magnitude, weighted if asked for
        return sign_scales(weight, job.grid, dtype, importance), None, clip
    if clip == "minmax" or isinstance(job.grid, FloatGrid):  # its steps are relative: clipping gains nothing
        return *scales_for(weight, job.grid, dtype=dtype, name=job.name, reach=job.reach), "minmax"
    if isinstance(job.grid, BlockGrid):
        return choose_blocks(weight, job.grid.layout, importance, job.name), None, clip
    if isinstance(job.grid, Fp4Grid):
        reach = float(weight.abs().max()) if job.reach is None else job.reach
        return best_fp4_scales(weight, job.grid, reach, importance), None, clip
    factors = best_clip(weight, job.grid, dtype, importance)
    return *scales_for(weight, job.grid, factors, dtype=dtype, name=job.name), clip


def column_importance(stats: LayerStats) -> Tensor:
    """[in] what a squared error in each column costs: the Hessian's diagonal and 1 % of its mean."""
    diagonal = stats.hessian.diagonal().clamp(min=0).float()
    return diagonal + 0.01 * diagonal.mean() + torch.finfo(torch.float32).tiny


def best_clip(weight: Tensor, grid: IntGrid, dtype: torch.dtype, importance: Tensor | None = None) -> Tensor:
    """The fraction of the range, one per scale, whose round trip has the smallest (weighted) squared error.

    ``importance`` [in] weighs the columns. The candidates are coarse, then finer around the best of each scale;
    symmetric grids also try the two scales that put the largest weight exactly on the last code of either side, so a
    weight that is already on such a grid stays as it is.
    """
    lines = grouped(weight, grid)
    shape, width = grid.scales_shape(*weight.shape), lines.shape[-1]
    flat = lines.reshape(-1, width)
    heavy = None if importance is None else grouped(importance.expand_as(weight), grid).reshape(-1, width)
    step = max(1, CHUNK // width)
    best = [
        _search(flat[at : at + step], grid, dtype, None if heavy is None else heavy[at : at + step])
        for at in range(0, len(flat), step)
    ]
    return torch.cat(best).reshape(shape)


def _search(lines: Tensor, grid: IntGrid, dtype: torch.dtype, importance: Tensor | None) -> Tensor:
    """Best factors [n] of ``lines`` [n, group]."""
    low, high = lines.aminmax(dim=-1, keepdim=True)
    least = torch.full_like(low, torch.inf)
    best = torch.ones_like(low)
    scratch = torch.empty_like(lines)

    def attempt(factor: Tensor | float) -> None:
        scales, zeros = scales_of_range(low * factor, high * factor, grid, dtype)
        wide = scales.float()
        shift = 0.0 if zeros is None else zeros.float()
        torch.div(lines, wide, out=scratch)
        if zeros is not None:
            scratch.add_(shift)
        scratch.clamp_(grid.low, grid.high).round_()
        if zeros is not None:
            scratch.sub_(shift)
        scratch.mul_(wide).sub_(lines).square_()
        if importance is not None:
            scratch.mul_(importance)
        loss = scratch.sum(dim=-1, keepdim=True)
        better = loss < least
        least.copy_(torch.where(better, loss, least))
        best.copy_(torch.where(better, factor, best))

    for factor in COARSE:
        attempt(factor)
    for shift in FINE:
        attempt(best + shift)
    if grid.symmetric:
        half = 2 ** (grid.bits - 1)
        attempt((half - 0.5) / (half - 1))
        attempt((half - 0.5) / half)
    return best.squeeze(-1)


FP4_FACTORS = {  # of the range that min-max covers; at 2/3 the largest number of a group is its 4, not its 6
    "fp8": (1.0, *(1 - 0.02 * step for step in range(1, 20)), 1.5, 1.25),
    "e8m0": (1.0, 0.5, 0.25),
}


def best_fp4_scales(weight: Tensor, grid: Fp4Grid, reach: float, importance: Tensor | None = None) -> Tensor:
    """Of all scales near the min-max one, those with the smallest (weighted) squared error; float32 [out, in / group].

    ``importance`` [in] weighs the columns.
    """
    lines = grouped(weight, grid)
    heavy = None if importance is None else grouped(importance.expand_as(weight), grid)
    largest = lines.abs().amax(dim=-1)
    best, least = fp4_scales(largest, grid, reach), torch.full_like(largest, torch.inf)
    for factor in FP4_FACTORS[grid.scales]:
        scales = fp4_scales(largest * factor, grid, reach)
        wide = scales.unsqueeze(-1)
        lost = (to_values(to_codes(lines, wide, None, grid), wide * grid.unit, None) - lines).square()
        loss = (lost if heavy is None else lost * heavy).sum(dim=-1)
        better = loss < least
        best, least = torch.where(better, scales, best), torch.where(better, loss, least)
    return best


def clipped_fraction(weight: Tensor, grid: Grid, scales: Tensor, zeros: Tensor | None) -> float:
    """The fraction of weights that lie more than a whole step beyond the last code of their scale."""
    if not isinstance(grid, IntGrid) or grid.signs:
        return 0.0
    lines = grouped(weight, grid)
    wide = scales.float().reshape(*lines.shape[:2], 1)
    shift = 0.0 if zeros is None else zeros.float().reshape(*lines.shape[:2], 1)
    # min-max puts the largest weight half a step beyond, and rounding its scale to bfloat16 adds up to another half
    low, high = (grid.low - 1 - shift) * wide, (grid.high + 1 - shift) * wide
    return int(((lines < low) | (lines > high)).sum()) / weight.numel()
