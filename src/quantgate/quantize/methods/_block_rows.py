"""Rows of GGUF's block formats: their steps and offsets hang together, and may be fitted anew to the codes.

For given codes the damped layer error of a row e is a quadratic in each number that a block stores. ``refit`` goes
through the blocks as ``gptq`` goes through the columns: with g = e (H + ridge I), adding t v to what a row stores
changes its error by -2 t (g v) + t^2 v H v. Shared numbers move along v = scales * codes and v = minima, whole numbers
along one group. What is stored moves only where the error, after rounding to what a file can hold, becomes less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantgate.formats.ggml import BlockFormat
from quantgate.formats.ggml.codec import SMALLEST, snap_
from quantgate.formats.ggml.scales import BlockScales, pack_scales, unpack_scales
from quantgate.formats.grids import BlockGrid
from quantgate.quantize.methods._rows import Levels, Part, Rows


@dataclass(eq=False)
class Numbers:
    """What the blocks of one part store, as float32 with the rows last; of formats without whole numbers those are 1.

    An offset is ``-dmin * minima``, in Q4_1 and Q5_1 too.
    """

    d: Tensor  # [blocks, 1, out]
    scales: Tensor  # [blocks, groups, out]
    dmin: Tensor | None
    minima: Tensor | None

    @classmethod
    def of(cls, header: Tensor, layout: BlockFormat) -> Numbers:
        held = unpack_scales(header, layout)
        if layout.powers:
            steps = held.steps().T.unsqueeze(1)
            return cls(steps, torch.ones_like(steps), None, None)
        d = held.d.float().T.unsqueeze(1)
        dmin = None if held.dmin is None else held.dmin.float().T.unsqueeze(1)
        if held.scales is None:
            ones = torch.ones_like(d)
            return cls(d, ones, None if dmin is None else -dmin, None if dmin is None else ones)
        minima = None if held.minima is None else held.minima.float().permute(1, 2, 0).contiguous()
        return cls(d, held.scales.float().permute(1, 2, 0).contiguous(), dmin, minima)

    def header(self, layout: BlockFormat) -> Tensor:
        """The bytes of a file for them, uint8 [out, blocks * header]."""
        d = self.d.squeeze(1).T.half()
        if layout.whole is None:
            return pack_scales(
                BlockScales(d, None if self.dmin is None else -self.dmin.squeeze(1).T.half(), None, None), layout
            )
        minima = None if self.minima is None else self.minima.permute(2, 0, 1).short()
        dmin = None if self.dmin is None else self.dmin.squeeze(1).T.half()
        return pack_scales(BlockScales(d, dmin, self.scales.permute(2, 0, 1).short(), minima), layout)

    def steps(self) -> Tensor:
        """[in / group, out], none of them 0."""
        steps = (self.d * self.scales).flatten(0, 1)
        return torch.where(steps == 0, SMALLEST, steps)

    def offsets(self) -> Tensor | None:
        """[in / group, out]."""
        return None if self.dmin is None or self.minima is None else -(self.dmin * self.minima).flatten(0, 1)


class BlockRows(Rows):
    """The stack of parts in block formats; those with unevenly spaced codes stand alone. Part.scales are headers."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.layouts = [part.grid.layout for part in parts if isinstance(part.grid, BlockGrid)]
        self.numbers = [Numbers.of(part.scales, layout) for part, layout in zip(parts, self.layouts, strict=True)]
        self._headers = [part.scales for part in parts]
        plain = [
            Part(part.weight, part.grid, one.steps().T, None if (shift := one.offsets()) is None else shift.T)
            for part, one in zip(parts, self.numbers, strict=True)
        ]
        super().__init__(plain)

    def snap(self, x: Tensor, levels: Levels, at: int) -> tuple[Tensor, Tensor]:
        scaled = (x if levels.zeros is None else x - levels.zeros[at]) / levels.scales[at]
        if self.layouts[0].levels is not None:
            codes = snap_(scaled, self.layouts[0])
        else:
            codes = torch.clamp(scaled.round_(), self._low, self._high)
        return codes, self.values(codes, levels, at)

    def values(self, codes: Tensor, levels: Levels, at: int | slice) -> Tensor:
        exact = codes * levels.scales[at]
        return exact if levels.zeros is None else exact.add_(levels.zeros[at])

    def header(self, at: int) -> Tensor:
        """The bytes of the scales of part ``at``."""
        return self._headers[at] if self.layouts[at].powers else self.numbers[at].header(self.layouts[at])

    def refit(self, errors: Tensor, hessian: Tensor, ridge: float) -> None:
        """Fit all stored numbers to the codes; ``errors`` [in, rows] (weight minus stored) follow."""
        for at, (span, numbers, layout) in enumerate(zip(self.spans, self.numbers, self.layouts, strict=True)):
            if layout.powers:
                continue
            mine = errors[:, span].contiguous()
            for block in range(len(numbers.d)):
                columns = slice(block * layout.block, (block + 1) * layout.block)
                coupling = hessian[columns, columns] + ridge * torch.eye(layout.block, device=self.device)
                gradient = torch.addmm(mine[columns], hessian[columns], mine, beta=ridge)
                codes = self._codes[at][columns].float().unflatten(0, (layout.groups, layout.group))
                left = _Block(numbers, block, codes, gradient, coupling, mine[columns])
                left.shared()
                if layout.whole is not None:
                    for group in range(layout.groups):
                        left.whole(group, layout.whole)
                    left.shared()
            errors[:, span] = mine
            self._scales[at] = numbers.steps()
            self._zeros[at] = numbers.offsets()


class _Block:
    """One block of a part: what it stores, its codes [groups, group, out], gradient and errors [block, out]."""

    def __init__(
        self, numbers: Numbers, at: int, codes: Tensor, gradient: Tensor, coupling: Tensor, errors: Tensor
    ) -> None:
        self.numbers, self.at, self.codes = numbers, at, codes
        self.gradient, self.coupling, self.errors = gradient, coupling, errors

    def shared(self) -> None:
        """Move ``d`` and ``dmin``."""
        held, at = self.numbers, self.at
        along = (self.codes * held.scales[at].unsqueeze(1)).flatten(0, 1)
        bent = self.coupling @ along
        p, a = (along * self.gradient).sum(0), (along * bent).sum(0)
        if held.dmin is None or held.minima is None:
            d = (held.d[at, 0] + p / a.clamp(min=SMALLEST)).half().float()
            step = d - held.d[at, 0]
            better = _gains(step * (step * a - 2 * p))
            held.d[at, 0] = torch.where(better, d, held.d[at, 0])
            self._move(along * torch.where(better, step, 0.0))
            return
        below = -held.minima[at].repeat_interleave(self.codes.shape[1], dim=0)
        r, b, c = (below * self.gradient).sum(0), (below * bent).sum(0), (below * (self.coupling @ below)).sum(0)
        det = a * c - b * b
        sure = det > 1e-6 * a * c
        d = torch.where(sure, held.d[at, 0] + (p * c - b * r) / det, held.d[at, 0]).half().float()
        dmin = torch.where(sure, held.dmin[at, 0] + (a * r - b * p) / det, held.dmin[at, 0]).half().float()
        step, sink = d - held.d[at, 0], dmin - held.dmin[at, 0]
        better = _gains(step * (step * a - 2 * p + 2 * sink * b) + sink * (sink * c - 2 * r))
        held.d[at, 0] = torch.where(better, d, held.d[at, 0])
        held.dmin[at, 0] = torch.where(better, dmin, held.dmin[at, 0])
        self._move(along * torch.where(better, step, 0.0) + below * torch.where(better, sink, 0.0))

    def whole(self, group: int, span: tuple[int, int]) -> None:
        """Move the whole numbers of one group: its scale to a number beside the best, its minimum along with it."""
        held, at, (low, high) = self.numbers, self.at, span
        size = self.codes.shape[1]
        rows = slice(group * size, (group + 1) * size)
        coupling, gradient = self.coupling[rows, rows], self.gradient[rows]
        along = self.codes[group] * held.d[at]
        bent = coupling @ along
        p, a = (along * gradient).sum(0), (along * bent).sum(0).clamp(min=SMALLEST)
        number = held.scales[at, group]
        minimum = below = None
        r = b = torch.zeros_like(p)
        c = torch.ones_like(p)
        if held.dmin is not None and held.minima is not None:
            below, minimum = -held.dmin[at, 0], held.minima[at, group]
            r, b = below * gradient.sum(0), below * bent.sum(0)
            c = (below * below * coupling.sum()).clamp(min=SMALLEST)
        wished = number + (p * c - b * r) / (a * c - b * b).clamp(min=SMALLEST)
        least, best, deepest = torch.zeros_like(p), torch.zeros_like(p), torch.zeros_like(p)
        for candidate in (wished.floor(), wished.ceil(), number):
            step = candidate.clamp(low, high) - number
            sink = torch.zeros_like(p)
            if minimum is not None:
                sink = (minimum + (r - step * b) / c).round().clamp(low, high) - minimum
            change = step * (step * a - 2 * p + 2 * sink * b) + sink * (sink * c - 2 * r)
            better = _gains(change) & (change < least)
            least, best = torch.where(better, change, least), torch.where(better, step, best)
            deepest = torch.where(better, sink, deepest)
        held.scales[at, group] += best
        moved = along * best
        if held.minima is not None and below is not None:
            held.minima[at, group] += deepest
            moved += below * deepest
        self._move(moved, rows)

    def _move(self, stored: Tensor, rows: slice = slice(None)) -> None:
        """Add ``stored`` [columns, out] to what ``rows`` of the block store."""
        self.errors[rows] -= stored
        self.gradient -= self.coupling[:, rows] @ stored


def _gains(change: Tensor) -> Tensor:
    return change < 0
