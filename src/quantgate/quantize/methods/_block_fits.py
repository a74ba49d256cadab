"""Weighted least squares on groups of weights: the arithmetic of ``_blocks``.

Matrices are [group, n], the weights of a group one below the other, so that every operation runs along n groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from quantgate.formats.ggml import BlockFormat
from quantgate.formats.ggml.codec import SMALLEST, snap_

TINY = 1e-30  # added where a sum of squares is divided by
SHARED = (0.0, -0.5, 0.5, -1.0, 1.0, 2.0, 3.0, 5.0, -2.0, -4.0)  # how far from the last number the largest may land
POLISH = 2  # times that shared and whole numbers are fitted in turn
NEAREST = (-1, 0, 1, 2)  # whole numbers around the wished one that are tried with their own minimum


@dataclass(frozen=True, eq=False)
class Sums:
    """Weighted sums over each group for given codes: its error is ``error`` for any scale and minimum."""

    xx: Tensor  # sum w x^2
    xq: Tensor
    qq: Tensor
    x: Tensor
    q: Tensor
    w: Tensor

    def error(self, step: Tensor, offset: Tensor | None) -> Tensor:
        """sum w (x - step * q - offset)^2."""
        lost = self.xx + step * (step * self.qq - 2 * self.xq)
        if offset is None:
            return lost
        return lost + offset * (2 * step * self.q + offset * self.w - 2 * self.x)

    def step(self) -> Tensor:
        """The best one without an offset."""
        return self.xq / self.qq.clamp(min=TINY)

    def line(self) -> tuple[Tensor, Tensor, Tensor]:
        """The best step and offset; and the curvature of the error in the step, its best offset followed."""
        det = (self.qq * self.w - self.q * self.q).clamp(min=TINY)
        step = (self.xq * self.w - self.q * self.x) / det
        return step, (self.x - step * self.q) / self.w, det / self.w

    def line_below(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same among steps and offsets that k-quants can store: step >= 0 >= offset."""
        step, offset, curvature = self.line()
        above = offset > 0
        step = torch.where(above, self.step(), step).clamp(min=0)
        return step, offset.clamp(max=0), torch.where(above, self.qq, curvature)

    def by_block(self, groups: int) -> Sums:
        """[blocks, groups] each."""
        return Sums(*(getattr(self, field.name).view(-1, groups) for field in fields(self)))


class Lines:
    """Groups of weights ``x`` [group, n] under positive weights ``w`` of the same shape."""

    def __init__(self, x: Tensor, w: Tensor) -> None:
        self.x, self.w = x, w
        self.wx = w * x
        self.scratch, self._other = torch.empty_like(x), torch.empty_like(x)
        self._xx, self._x, self._w = (self.wx * x).sum(0), self.wx.sum(0), w.sum(0)

    def sums(self, codes: Tensor) -> Sums:
        other = self._other
        xq = torch.mul(codes, self.wx, out=other).sum(0)
        q = torch.mul(codes, self.w, out=other).sum(0)
        return Sums(self._xx, xq, other.mul_(codes).sum(0), self._x, q, self._w)

    def products(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """sum w x q and sum w q^2."""
        other = self._other
        xq = torch.mul(codes, self.wx, out=other).sum(0)
        return xq, torch.mul(codes, self.w, out=other).mul_(codes).sum(0)

    def lost(self, layout: BlockFormat, steps: Tensor, offsets: Tensor | None) -> Tensor:
        """[n] the error of weights rounded to the nearest codes under ``steps`` [n], none 0, and ``offsets``."""
        scaled = self.x if offsets is None else torch.sub(self.x, offsets, out=self.scratch)
        scaled = torch.mul(scaled, 1 / steps, out=self.scratch)
        codes = torch.round(scaled, out=self._other).clamp_(layout.low, layout.high)
        scaled.sub_(codes)
        return torch.mul(scaled, self.w, out=codes).mul_(scaled).sum(0) * steps * steps


def fit_steps(lines: Lines, layout: BlockFormat, ends: Sequence[float]) -> Tensor:
    """[n] steps: of the codes that lay the largest weight on each of ``ends``, those whose best step loses least."""
    x = lines.x
    extreme = x.gather(0, x.abs().argmax(0, keepdim=True)).squeeze(0)
    reach = torch.where(extreme == 0, 1.0, extreme)
    gain, best = torch.zeros_like(extreme), extreme / layout.low
    for end in ends:
        codes = snap_(torch.mul(x, end / reach, out=lines.scratch), layout)
        xq, qq = lines.products(codes)
        step = xq / qq.clamp_(min=TINY)
        gained = step * xq  # what the error is less than sum w x^2
        better = gained > gain
        gain, best = torch.where(better, gained, gain), torch.where(better, step, best)
    return best


def fit_lines(
    lines: Lines, layout: BlockFormat, ends: Sequence[float], lifts: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """[n] steps and offsets: of the codes that divide the range into each of ``ends`` steps, begun at each of ``lifts``
    of it, those whose best line loses least.
    """
    low, high = lines.x.aminmax(dim=0)
    if layout.whole is not None:
        low = low.clamp(max=0)
    reach = (high - low).clamp(min=TINY)
    least, steps, offsets = torch.full_like(low, torch.inf), reach / layout.high, low
    base = torch.empty_like(lines.x)
    for lift in lifts:
        torch.sub(lines.x, low + lift * reach, out=base)
        for end in ends:
            sums = lines.sums(snap_(torch.mul(base, end / reach, out=lines.scratch), layout))
            step, offset, _ = sums.line() if layout.whole is None else sums.line_below()
            lost = sums.error(step, offset)
            better = lost < least
            least, steps = torch.where(better, lost, least), torch.where(better, step, steps)
            offsets = torch.where(better, offset, offsets)
    return steps, offsets


def fit_powers(lines: Lines, layout: BlockFormat, away: Sequence[float]) -> Tensor:
    """uint8 [n] exponents of MXFP4, up to so many ``away`` from the one that min-max rounding has.

    An exponent e stands for 2^(e - 128) times a doubled e2m1 number.
    """
    largest = lines.x.abs().amax(0)
    usual = torch.frexp(largest.clamp(min=SMALLEST)).exponent - 3 + 127  # floor(log2) - 2, biased
    least, best = torch.full_like(largest, torch.inf), torch.zeros_like(largest)
    for one in away:
        exponent = (usual + one).clamp(1, 254)
        steps = torch.ldexp(torch.ones_like(largest), exponent - 128)
        codes = snap_(torch.div(lines.x, steps, out=lines.scratch), layout)
        lost = (codes * steps - lines.x).square_().mul_(lines.w).sum(0)
        better = (lost < least) & (largest > 0)
        least, best = torch.where(better, lost, least), torch.where(better, exponent, best)
    return best.to(torch.uint8)


def whole_steps(sums: Sums, whole: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Shared numbers [blocks, 1] and whole ones [blocks, groups] for the sums of some codes."""
    return share(sums.step(), sums.qq, whole)


def whole_lines(sums: Sums, whole: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shared and whole numbers of the steps, then of the minima, for the sums of some codes [blocks, groups]."""
    wished, _, curvature = sums.line_below()
    d, scales = share(wished, curvature, whole)
    dmin, minima = share(((d * scales * sums.q - sums.x) / sums.w).clamp(min=0), sums.w, whole)
    found = d, scales, dmin, minima
    least = sums.error(d * scales, -dmin * minima).sum(1, keepdim=True)
    for _ in range(POLISH):
        d, dmin = _shared_line(sums, d, scales, dmin, minima)
        scales, minima, error = _whole_near(sums, wished, d, dmin, whole)
        better = error < least
        least = torch.where(better, error, least)
        now = d, scales, dmin, minima
        found = tuple(torch.where(better, a, b) for a, b in zip(now, found, strict=True))  # type: ignore[assignment]
    return found


def share(wished: Tensor, curvature: Tensor, whole: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A float16 number [blocks, 1] and whole ones [blocks, groups] whose products lie nearest to the ``wished``.

    Squares are weighed by ``curvature``. The largest number is laid on ends around the last whole one.
    """
    low, high = whole
    if low < 0:
        extreme, end = wished.gather(1, wished.abs().argmax(1, keepdim=True)), low
    else:
        extreme, end = wished.amax(1, keepdim=True), high
    least = torch.full_like(extreme, torch.inf)
    shared, numbers = torch.zeros_like(extreme), torch.zeros_like(wished)
    for beyond in SHARED:
        d = (extreme / (end + beyond if end > 0 else end - beyond)).half().float()
        for again in (True, False):
            found = (wished / torch.where(d == 0, SMALLEST, d)).round_().clamp_(low, high)
            if again:
                pulled = curvature * found
                d = ((pulled * wished).sum(1, True) / (pulled * found).sum(1, True).clamp_(min=TINY)).half().float()
        lost = (curvature * (wished - d * found).square_()).sum(1, keepdim=True)
        better = lost < least
        least, shared = torch.where(better, lost, least), torch.where(better, d, shared)
        numbers = torch.where(better, found, numbers)
    return shared, numbers


def _shared_line(sums: Sums, d: Tensor, scales: Tensor, dmin: Tensor, minima: Tensor) -> tuple[Tensor, Tensor]:
    """The best float16 ``d`` and ``dmin`` of each block for its whole numbers; as they were where none is best."""
    a, b, c = (scales * scales * sums.qq, -scales * minima * sums.q, minima * minima * sums.w)
    a, b, c = (one.sum(1, keepdim=True) for one in (a, b, c))
    p, r = (scales * sums.xq).sum(1, keepdim=True), -(minima * sums.x).sum(1, keepdim=True)
    det = a * c - b * b
    sure = det > 1e-6 * a * c
    first, second = ((p * c - b * r) / det).half().float(), ((a * r - b * p) / det).half().float()
    return torch.where(sure, first, d), torch.where(sure, second, dmin)


def _whole_near(
    sums: Sums, wished: Tensor, d: Tensor, dmin: Tensor, whole: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The best whole numbers of each group under ``d`` and ``dmin``, and the blocks' errors [blocks, 1]."""
    low, high = whole
    first = (wished / torch.where(d == 0, SMALLEST, d)).floor_()
    below = torch.where(dmin == 0, SMALLEST, dmin)
    least = torch.full_like(wished, torch.inf)
    scales, minima = torch.zeros_like(wished), torch.zeros_like(wished)
    for away in NEAREST:
        number = (first + away).clamp_(low, high)
        minimum = ((d * number * sums.q - sums.x) / sums.w / below).round_().clamp_(low, high)
        error = sums.error(d * number, -dmin * minimum)
        better = error < least
        least, scales = torch.where(better, error, least), torch.where(better, number, scales)
        minima = torch.where(better, minimum, minima)
    return scales, minima, least.sum(1, keepdim=True)
