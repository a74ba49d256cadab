"""Scales of GGUF's block formats, chosen for the least weighted squared error of what will be stored.

1. Each group of 16 or 32 weights is fitted alone (``_block_fits``): codes are taken from several ranges, and for given
   codes the best scale and minimum are weighted least squares.
2. The fits become whole numbers under float16 numbers that the block shares. For given codes a group's error is a
   quadratic in scale and minimum, so whole blocks are searched at the price of a few sums over each group.
3. Beside each whole number its neighbours are tried, with codes rounded anew: the search goes on where it is stored.
4. Codes are rounded under what is stored and 2. repeated; a block keeps the best state that it was in.

llama.cpp (``make_qkx3_quants``, ``make_qx_quants`` in ggml-quants.c) has steps 1 and 2, the latter without the codes
in sight. Its weights are importance times sqrt(sigma^2 + x^2); plain importance lost less here (docs/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats.ggml import BlockFormat
from quantgate.formats.ggml.codec import SMALLEST, snap_
from quantgate.formats.ggml.scales import BlockScales, pack_scales
from quantgate.quantize.methods._block_fits import (
    Lines,
    Sums,
    fit_lines,
    fit_powers,
    fit_steps,
    whole_lines,
    whole_steps,
)

CHUNK = 1 << 18  # weights searched at once: above, memory costs more than arithmetic, below, calls do
ROUNDS = 2  # times that codes are rounded under what is stored, before the last


@dataclass(frozen=True, eq=False)
class Stored:
    """The numbers of some blocks, as stored but in float32: ``d`` and ``dmin`` [blocks, 1], others [blocks, groups]."""

    d: Tensor
    scales: Tensor
    dmin: Tensor | None = None
    minima: Tensor | None = None

    def steps(self) -> Tensor:
        """[blocks * groups]."""
        return (self.d * self.scales).flatten()

    def offsets(self) -> Tensor | None:
        """[blocks * groups]; minima are subtracted."""
        return None if self.dmin is None or self.minima is None else (self.dmin * self.minima).neg_().flatten()

    def where(self, better: Tensor, other: Stored) -> Stored:
        """These numbers for the blocks that are ``better`` [blocks, 1], the ``other`` ones for the rest."""
        pairs = [(self.d, other.d), (self.scales, other.scales), (self.dmin, other.dmin), (self.minima, other.minima)]
        return Stored(*(None if a is None or b is None else torch.where(better, a, b) for a, b in pairs))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Effort:
    """What a search tries. Chosen for the error within about twice llama.cpp's time (docs/LOG.md)."""

    ends: tuple[float, ...]  # codes that the largest weight is laid on, or how many steps a range is divided into
    lifts: tuple[float, ...] = (0.0,)  # where a range begins, as a fraction of it
    near: int = 0  # whole scales tried on either side, and minima one on either side


def _ends(first: float, last: float, count: int) -> tuple[float, ...]:
    return tuple(first + (last - first) * at / (count - 1) for at in range(count))


EFFORTS: dict[str, Effort] = {
    "Q8_0": Effort((-127.0,)),
    "Q6_K": Effort(_ends(-32.9, -31.1, 3), near=6),
    "Q5_K": Effort(_ends(30.1, 32.5, 5), (0.0, 0.03, 0.06), near=1),
    "Q4_K": Effort(_ends(14.1, 16.5, 5), (0.0, 0.04, 0.08), near=1),
    "Q3_K": Effort((*_ends(-5.8, -3.1, 10), *_ends(2.1, 4.8, 10)), near=3),
    "Q2_K": Effort(_ends(2.1, 4.5, 5), (0.0, 0.03, 0.06, 0.09, 0.12), near=1),
    "Q5_0": Effort((*_ends(-17.8, -15.1, 10), *_ends(14.1, 16.8, 10))),
    "Q5_1": Effort(_ends(30.1, 33.1, 8), (0.0, 0.02, 0.04, 0.06)),
    "Q4_0": Effort((*_ends(-9.8, -7.1, 10), *_ends(6.1, 8.8, 10))),
    "Q4_1": Effort(_ends(14.1, 17.1, 8), (0.0, 0.03, 0.06, 0.09)),
    "IQ4_NL": Effort((*_ends(-150.0, -100.0, 11), *_ends(90.0, 135.0, 10))),
    "MXFP4": Effort((-1.0, 0.0, 1.0)),
}


def choose_blocks(
    weight: Tensor, layout: BlockFormat, importance: Tensor | None = None, name: str = "weight"
) -> Tensor:
    """uint8 headers [out, in / block * header] of ``weight`` [out, in] float32; ``importance`` [in] > 0 weighs columns.

    Raises FormatError when weights are too large for float16 scales.
    """
    out, columns = weight.shape
    heavy = torch.ones(columns, device=weight.device) if importance is None else importance / importance.mean()
    rows = max(1, CHUNK // columns)
    headers = []
    for at in range(0, out, rows):
        part = weight[at : at + rows]
        x = part.reshape(-1, layout.group).T.contiguous()
        w = heavy.expand_as(part).reshape(-1, layout.group).T.contiguous()
        held = _search(Lines(x, w), layout, len(part))
        if not all(bool(one.isfinite().all()) for one in (held.d, held.dmin) if one is not None):
            raise FormatError(
                f"{name}: weights up to {float(weight.abs().max()):.3g} need scales that float16 cannot hold; keep it"
            )
        headers.append(pack_scales(held, layout))
    return torch.cat(headers)


def _search(lines: Lines, layout: BlockFormat, out: int) -> BlockScales:
    effort = EFFORTS[layout.name]
    if layout.powers:
        return BlockScales(fit_powers(lines, layout, effort.ends).view(out, -1), None, None, None)
    if layout.minima:
        steps, offsets = fit_lines(lines, layout, effort.ends, effort.lifts)
    else:
        steps, offsets = fit_steps(lines, layout, effort.ends), None
    now = _stored(lines.sums(_codes(lines, layout, steps, offsets)), layout)
    best = now = _nearby(lines, layout, now, effort.near) if effort.near else now
    least = torch.full_like(now.d, torch.inf)
    for left in reversed(range(ROUNDS)):
        steps, offsets = now.steps(), now.offsets()
        sums = lines.sums(_codes(lines, layout, steps, offsets))
        error = sums.error(steps, offsets).view(-1, layout.groups).sum(1, keepdim=True)
        best = now.where(error < least, best)
        least = torch.minimum(error, least)
        now = _stored(sums, layout) if left else now
    return _numbers(best, layout, out)


def _codes(lines: Lines, layout: BlockFormat, steps: Tensor, offsets: Tensor | None) -> Tensor:
    """The nearest codes [group, n]; the next call reuses their memory."""
    inverse = 1 / torch.where(steps == 0, SMALLEST, steps)
    scaled = (
        torch.mul(lines.x, inverse, out=lines.scratch)
        if offsets is None
        else torch.sub(lines.x, offsets, out=lines.scratch).mul_(inverse)
    )
    return snap_(scaled, layout)


def _stored(sums: Sums, layout: BlockFormat) -> Stored:
    """The best numbers for given codes, that a file can hold."""
    if layout.whole is not None:
        blocks = sums.by_block(layout.groups)
        return Stored(*(whole_lines if layout.minima else whole_steps)(blocks, layout.whole))
    if not layout.minima:
        d = sums.step().half().float().unsqueeze(1)
        return Stored(d, torch.ones_like(d))
    steps = sums.line()[0].half().float()
    dmin = ((sums.x - steps * sums.q) / sums.w).half().float().unsqueeze(1)  # the best for the step as stored
    return Stored(steps.unsqueeze(1), torch.ones_like(dmin), -dmin, torch.ones_like(dmin))


def _nearby(lines: Lines, layout: BlockFormat, held: Stored, near: int) -> Stored:
    """The whole numbers up to ``near`` away (minima: one) under which the weights lose least, rounded anew for each."""
    low, high = layout.whole or (1, 1)
    shape = held.scales.shape
    d, scales = held.d.expand(shape).flatten(), held.scales.flatten()
    minima = None if held.minima is None else held.minima.flatten()
    shared = None if held.dmin is None else held.dmin.expand(shape).flatten()
    least, best, lowest = torch.full_like(scales, torch.inf), scales, minima
    for away in range(-near, near + 1):
        number = (scales + away).clamp(low, high)
        steps = d * number
        safe = torch.where(steps == 0, SMALLEST, steps)
        for aside in (0,) if minima is None else (-1, 0, 1):
            minimum = None if minima is None else (minima + aside).clamp(low, high)
            offsets = None if shared is None or minimum is None else -shared * minimum
            lost = lines.lost(layout, safe, offsets)
            better = (lost < least) & (steps != 0)
            least, best = torch.where(better, lost, least), torch.where(better, number, best)
            if minimum is not None and lowest is not None:
                lowest = torch.where(better, minimum, lowest)
    return Stored(held.d, best.view(shape), held.dmin, None if lowest is None else lowest.view(shape))


def _numbers(held: Stored, layout: BlockFormat, out: int) -> BlockScales:
    """In the types of a file, [out, blocks] and [out, blocks, groups]."""
    d = held.d.view(out, -1).half()
    if layout.whole is None:
        return BlockScales(d, None if held.dmin is None else -held.dmin.view(out, -1).half(), None, None)
    scales = held.scales.view(out, -1, layout.groups).short()
    if held.dmin is None or held.minima is None:
        return BlockScales(d, None, scales, None)
    return BlockScales(d, held.dmin.view(out, -1).half(), scales, held.minima.view(out, -1, layout.groups).short())
