"""hqq: scales and zero points fitted without data, so that most weights are stored well and few outliers pay for it.

Half-quadratic quantization (Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models") takes
the rounding error's ``l_p`` norm with p < 1 instead of its square, splits off an error term ``e`` that may be large for
a few weights, and alternates: ``e`` by generalised soft thresholding, then the grid by least squares on ``W - e``. The
original fits a fractional zero point under a fixed scale; the formats here store whole zero points (or none), so the
step is fitted too, and the fit starts from several clippings of the range.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from quantgate.formats import IntGrid
from quantgate.formats.codec import decode, encode, grouped, scales_of_range
from quantgate.quantize.methods import Facts, Job, LayerStats, Solved
from quantgate.quantize.methods._factor import relative_error
from quantgate.quantize.methods._scales import checked_all, choose_scales, clipped_fraction, storable
from quantgate.records import Record

STARTS = (1.0, 0.85, 0.7, 0.5, 0.35, 0.2, 0.1, 0.05)  # fractions of the range that a fit begins with
SHARPNESS = 10.0  # beta: how soon an error counts as an outlier's, in steps of the grid
SHARPER = 1.01  # kappa: what beta is multiplied by in each round


class HqqOptions(Record):
    norm: float = Field(default=0.7, gt=0, le=2, description="p of the norm of the error; 2 is plain least squares")
    rounds: int = Field(default=20, ge=1, le=200, description="rounds of the fit at most")


class Hqq:
    """Half-quadratic quantization. Float grids have nothing to fit: fp8 is rounded, fp4 searched by squared error."""

    Options: type[Record] = HqqOptions
    needs_stats = False

    def solve_many(self, jobs: Sequence[Job], stats: LayerStats | None) -> list[Solved]:
        norms: dict[int, float] = {}
        return [_solve(job, weight, stats, norms) for job, weight in zip(jobs, checked_all(jobs), strict=True)]


def _solve(job: Job, weight: Tensor, stats: LayerStats | None, norms: dict[int, float]) -> Solved:
    options = job.options or HqqOptions()
    if stats is not None:
        stats.check(weight.shape[1], job.name)
    if isinstance(job.grid, IntGrid) and not job.grid.signs:
        scales, zeros = storable(job, weight, *fit(weight, job.grid, job.scale_dtype or torch.bfloat16, options))
        clip = f"l{options.norm:g}"
    else:
        scales, zeros, clip = choose_scales(job, weight, "mse", None)
    codes = encode(weight, job.grid, scales, zeros)
    error = None
    if stats is not None:
        error = relative_error(weight, decode(codes, job.grid, scales, zeros), stats, norms)
    clipped = clipped_fraction(weight, job.grid, scales, zeros)
    return Solved(
        job.grid, codes, scales, zeros, Facts(asked="hqq", method="hqq", error=error, clip=clip, clipped=clipped)
    )


def fit(weight: Tensor, grid: IntGrid, dtype: torch.dtype, options: HqqOptions) -> tuple[Tensor, Tensor | None]:
    """Scales in ``dtype`` and zero points of ``weight`` [out, in], shaped as the grid says.

    Of every state that the rounds pass through, from every start, each scale keeps the one with the least
    ``sum |error|^p``; so the result never loses to min-max in that norm.
    """
    lines = grouped(weight, grid)
    low, high = lines.aminmax(dim=-1, keepdim=True)
    best_scales, best_zeros = scales_of_range(low, high, grid, dtype)
    least = torch.full_like(low, torch.inf)
    for start in STARTS:
        scales, zeros = scales_of_range(low * start, high * start, grid, dtype)
        beta = SHARPNESS
        for _ in range(options.rounds):
            step, shift = scales.float(), 0.0 if zeros is None else zeros.float()
            codes = (lines / step + shift).round().clamp(grid.low, grid.high)
            error = lines - (codes - shift) * step
            loss = error.abs().pow(options.norm).sum(dim=-1, keepdim=True)
            better = loss < least
            if not bool(better.any()):
                break
            least = torch.where(better, loss, least)
            best_scales = torch.where(better, scales, best_scales)
            best_zeros = None if best_zeros is None or zeros is None else torch.where(better, zeros, best_zeros)
            outliers = shrink(error / step, options.norm, beta) * step
            scales, zeros = _regress(codes, lines - outliers, scales, zeros, grid)
            beta *= SHARPER
    shape = grid.scales_shape(*weight.shape)
    return best_scales.reshape(shape), None if best_zeros is None else best_zeros.reshape(shape)


def shrink(x: Tensor, norm: float, beta: float) -> Tensor:
    """``sign(x) max(|x| - |x|^(p-1) / beta, 0)``: generalised soft thresholding, the step for the error term."""
    size = x.abs()
    return (size - size.clamp(min=torch.finfo(x.dtype).tiny).pow(norm - 1) / beta).clamp(min=0).copysign(x)


def _regress(
    codes: Tensor, wanted: Tensor, scales: Tensor, zeros: Tensor | None, grid: IntGrid
) -> tuple[Tensor, Tensor | None]:
    """The scale (and zero point) under which ``codes`` come nearest to ``wanted`` in least squares, as stored.

    Where that is no positive finite number, the present one stays.
    """
    middle = 0.0 if zeros is None else codes.mean(dim=-1, keepdim=True)
    offset = 0.0 if zeros is None else wanted.mean(dim=-1, keepdim=True)
    spread = (codes - middle).square().sum(dim=-1, keepdim=True)
    found = ((codes - middle) * (wanted - offset)).sum(dim=-1, keepdim=True) / spread
    stored = found.to(scales.dtype)
    usable = (stored > 0) & stored.isfinite()
    stored = torch.where(usable, stored, scales)
    if zeros is None:
        return stored, None
    point = (middle - offset / stored.float()).round().clamp(grid.low, grid.high)
    return stored, torch.where(usable, point.to(zeros.dtype), zeros)


METHOD = Hqq()
