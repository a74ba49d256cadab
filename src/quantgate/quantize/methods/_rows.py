"""Many weights and grids as the rows of one matrix.

Rows never talk to each other when a layer is quantized, only columns do. So all output channels of all variants of all
layers that read one input stand side by side as *rows*, each with its own scale, zero point and code range, and every
step of a solver serves them all. Matrices have columns first, [in, rows]: a solver visits one column at a time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from quantgate.formats import BlockGrid, FloatGrid, Fp4Grid, Grid, IntGrid
from quantgate.formats.codec import FP8, nearest_fp4
from quantgate.formats.grids import FP8_MAX


@dataclass(frozen=True, eq=False)
class Part:
    """One job's share of the rows."""

    weight: Tensor  # [out, in] float32
    grid: Grid
    scales: Tensor
    zeros: Tensor | None


@dataclass(frozen=True, eq=False)
class Levels:
    """Scales and zeros of a run of columns, [columns, rows] each; ``zeros`` None when every row is symmetric."""

    scales: Tensor  # float32
    zeros: Tensor | None


class Rows:
    """The stack. ``parts`` come integers first, floats last, fp4 alone; all with scales of one dtype."""

    def __init__(self, parts: list[Part]) -> None:
        assert [isinstance(part.grid, FloatGrid) for part in parts] == sorted(
            isinstance(p.grid, FloatGrid) for p in parts
        )
        self.parts = parts
        self.columns = parts[0].weight.shape[1]
        ends = torch.tensor([0] + [len(part.weight) for part in parts]).cumsum(0).tolist()
        self.spans = [slice(a, b) for a, b in itertools.pairwise(ends)]
        self.count = int(ends[-1])
        self.device = parts[0].weight.device
        self._dtype = parts[0].scales.dtype
        self._fp4 = isinstance(parts[0].grid, Fp4Grid)
        limits = [
            (p.grid.low, p.grid.high) if isinstance(p.grid, IntGrid | BlockGrid) else (-FP8_MAX, FP8_MAX) for p in parts
        ]
        sizes = torch.tensor([len(part.weight) for part in parts])
        self._low, self._high = (
            torch.tensor(side, dtype=torch.float32).repeat_interleave(sizes).to(self.device)
            for side in zip(*limits, strict=True)
        )
        self._floats = sum(len(part.weight) for part in parts if isinstance(part.grid, FloatGrid))
        signs = [isinstance(part.grid, IntGrid) and part.grid.signs for part in parts]
        self._signs = torch.tensor(signs).repeat_interleave(sizes).to(self.device) if any(signs) else None
        self._scales = [_by_group(part.scales.float() * part.grid.unit, part) for part in parts]
        self._zeros = [None if part.zeros is None else _by_group(part.zeros.float(), part) for part in parts]
        # Codes in their own types, [in, rows of the part]
        self._codes = [
            torch.empty(self.columns, len(p.weight), dtype=_code_type(p.grid), device=self.device) for p in parts
        ]

    def weights(self, columns: Tensor) -> Tensor:
        """The weights of ``columns``, [columns, rows]."""
        found = torch.empty(len(columns), self.count, device=self.device)
        for span, part in zip(self.spans, self.parts, strict=True):
            found[:, span] = part.weight[:, columns].T
        return found

    def levels(self, columns: Tensor) -> Levels:
        scales = [_pick(part.grid, columns, held) for part, held in zip(self.parts, self._scales, strict=True)]
        if all(held is None for held in self._zeros):
            return Levels(torch.cat(scales, dim=1), None)
        none = [torch.zeros(1, device=self.device).expand_as(one) for one in scales]
        zeros = [
            none[at] if held is None else _pick(part.grid, columns, held)
            for at, (part, held) in enumerate(zip(self.parts, self._zeros, strict=True))
        ]
        return Levels(torch.cat(scales, dim=1), torch.cat(zeros, dim=1))

    def snap(self, x: Tensor, levels: Levels, at: int) -> tuple[Tensor, Tensor]:
        """Nearest codes of column ``at`` of ``levels`` for ``x`` [rows], as numbers; and what they decode to."""
        codes = x / levels.scales[at]
        if levels.zeros is not None:
            codes += levels.zeros[at]
        if self._fp4:
            codes = nearest_fp4(codes)
        elif self._floats:
            tail = codes[-self._floats :]
            tail.copy_(tail.clamp(-FP8_MAX, FP8_MAX).to(FP8))
            head = codes[: -self._floats]
            head.round_()
        else:
            codes.round_()
        torch.clamp(codes, self._low, self._high, out=codes)
        if self._signs is not None:
            codes = torch.where(self._signs, torch.where(x < 0, -1.0, 1.0), codes)
        return codes, self.values(codes, levels, at)

    def values(self, codes: Tensor, levels: Levels, at: int | slice) -> Tensor:
        """What ``codes`` decode to, rounded to the scales' dtype as ``codec.to_values`` does."""
        shifted = codes if levels.zeros is None else codes - levels.zeros[at]
        exact = shifted * levels.scales[at]
        return exact if self._dtype is torch.float32 else exact.to(self._dtype).float()

    def put(self, columns: Tensor, codes: Tensor) -> None:
        """Keep the codes [columns, rows] of ``columns``."""
        for span, held in zip(self.spans, self._codes, strict=True):
            held[columns] = codes[:, span].to(held.dtype)

    def codes(self, columns: Tensor) -> Tensor:
        """The kept codes of ``columns`` as numbers, [columns, rows]."""
        return torch.cat([held[columns].float() for held in self._codes], dim=1)

    def codes_of(self, at: int) -> Tensor:
        """Codes [out, in] of part ``at``."""
        return self._codes[at].T.contiguous()


def _code_type(grid: Grid) -> torch.dtype:
    return FP8 if isinstance(grid, FloatGrid) else torch.int8


def _by_group(held: Tensor, part: Part) -> Tensor:
    """[groups, out]: scales or zeros with their groups first."""
    if part.grid.strategy == "block":
        return held.T.repeat_interleave(part.grid.group_size or 1, dim=1)
    return held.reshape(1, 1).expand(1, len(part.weight)) if part.grid.strategy == "tensor" else held.T.contiguous()


def _pick(grid: Grid, columns: Tensor, held: Tensor) -> Tensor:
    """[columns, out] of what is held by group."""
    size = grid.layout.group if isinstance(grid, BlockGrid) else grid.group_size
    return held.expand(len(columns), -1) if size is None else held[columns // size]
