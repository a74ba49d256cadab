"""The last step of a walk: the embedding table and the output layer of the variants that ask for codes there.

The output layer is solved like any other, by the variant's own method. Its input is what the final norm gives over the
calibration set, so its statistics are collected when the last block has run. Its rows (one per token of the vocabulary)
are independent of each other, so a large one is solved in slices. Rows of a table are looked up, not summed: there is
no other column to make up for an error, and each is rounded to nearest with the least squared error per scale. Codes
that serve both are solved as an output layer, where an error costs several times as much (docs/LOG.md).

In the journal this is the step behind the last block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quantgate.errors import BadTensor
from quantgate.formats import Scheme
from quantgate.quantize import methods
from quantgate.quantize.experts import Crowd
from quantgate.quantize.journal import Journal
from quantgate.quantize.manifest import Note
from quantgate.quantize.methods import SAMPLE, LayerStats, Solved
from quantgate.quantize.methods._scaling import ScalingMethod
from quantgate.quantize.methods.rtn import RtnOptions
from quantgate.quantize.pieces import Pieces
from quantgate.quantize.plan import Variant
from quantgate.quantize.statistics import STRIPE

if TYPE_CHECKING:
    from quantgate.quantize.sweep import Sweep

SLICE = 1 << 26  # numbers of an output layer that are solved together: a quarter of a GiB in float32
LOOKED_UP = "its rows are looked up, so each is rounded to nearest"
SHARED = "solved as the output layer, which is tied to it and reads the same codes"
NOT_SCALED = "the final norm is left as it is, so the output layer goes without channel scales"


class Outside:
    """What is left to do behind the last block, for the variants of one walk."""

    def __init__(self, run: Sweep, variants: list[Variant]) -> None:
        self.run, self.variants = run, variants
        self.asking = [variant for variant in variants if variant.ends.coded]
        self.steps = 1 if self.asking else 0
        self.measured = bool(run.batches) and any(variant.ends.lm_head is not None for variant in self.asking)

    def walked(self, open_steps: Sequence[int]) -> int:
        """How many blocks must run: up to the last unfinished one, or all of them where statistics are missing."""
        depth = self.run.model.depth
        if depth in open_steps and self.measured:
            return depth
        return max((step for step in open_steps if step < depth), default=-1) + 1

    def solve(self, hidden: list[Tensor], journal: Journal) -> None:
        """Put the ends of every variant into the journal; ``hidden`` is what the last block gave, batch by batch."""
        run, depth = self.run, self.run.model.depth
        journal.begin(depth)
        pieces = Pieces(run, self.variants, Crowd({}, {}, {}))
        stats = output_statistics(run, hidden) if self.measured else None
        for variant in self.asking:
            for name, scheme in variant.ends.coded.items():
                self._solve(pieces, variant, name, scheme, stats)
        for variant in self.variants:
            journal.write(depth, variant.name, pieces.tensors[variant.name], pieces.piece(variant))
        journal.finish(depth, [variant.name for variant in self.variants])

    def _solve(self, pieces: Pieces, variant: Variant, name: str, scheme: Scheme, stats: LayerStats | None) -> None:
        assert scheme.weights is not None  # resolve
        ends, files = variant.ends, self.run.model.files
        variant = replace(variant, scheme=scheme, grid=scheme.weights)
        looked_up = name == ends.table and not ends.shared
        if looked_up:
            rounding = methods.get("rtn")
            variant = replace(variant, method=rounding, method_name="rtn", options=RtnOptions(clip="mse"))
            stats = None
        weight = files.read(ends.source(name)).to(self.run.device).float()
        solved = by_rows(variant, name, weight, files.entry(ends.source(name)).dtype, stats)
        because = SHARED if ends.shared else LOOKED_UP if looked_up else ""
        if because:
            solved = replace(solved, facts=solved.facts.model_copy(update={"because": solved.facts.because or because}))
        pieces.add(variant, name, weight, solved, float(weight.abs().max()), None)
        if isinstance(variant.method, ScalingMethod):
            pieces.ledger[variant.name].append(Note(tensor=name, event="not_scaled", detail=NOT_SCALED))


def output_statistics(run: Sweep, hidden: list[Tensor]) -> LayerStats:
    """H = X^T X / n of what the output layer is given: the final norm's output [n, in] at all real tokens.

    Raises BadTensor when an activation was not finite.
    """
    walker, tokens = run.model.walker, sum(int(batch.real.sum()) for batch in run.batches)
    step, seen, sample = max(1, -(-tokens // SAMPLE)), 0, list[Tensor]()
    upper = absmax = torch.zeros(0)
    for at, (batch, given) in enumerate(zip(run.batches, walker.finished(hidden), strict=True)):
        rows = given[batch.real].float().to(run.device)
        if not at:
            upper = torch.zeros(rows.shape[1], rows.shape[1], device=run.device)
            absmax = torch.zeros(rows.shape[1], device=run.device)
        for start in range(0, len(upper), STRIPE):  # H is symmetric: only its upper stripes are summed
            upper[start : start + STRIPE, start:].addmm_(rows[:, start : start + STRIPE].T, rows[:, start:])
        absmax = torch.maximum(absmax, rows.abs().amax(dim=0))
        sample.append(rows[(step // 2 - seen) % step :: step].clone())
        seen += len(rows)
    if not bool(upper.diagonal().isfinite().all()):
        raise BadTensor(
            f"{walker.head}: its input holds NaN or Inf on the calibration samples; check the weights before it"
        )
    hessian = upper.triu() + upper.triu(1).T
    return LayerStats(hessian.div_(max(seen, 1)), seen, absmax, torch.cat(sample)[:SAMPLE])


def by_rows(
    variant: Variant, name: str, weight: Tensor, stored: str, stats: LayerStats | None, limit: int = SLICE
) -> Solved:
    """``weight`` [out, in] solved in slices of at most ``limit`` numbers; ``stored`` is safetensors' word for its type.

    The codes are those of one solve over all rows, up to the order in which sums are taken; but ``hqq`` ends its rounds
    slice by slice, and may find others that are as good.
    """
    reach = float(weight.abs().max())
    rows = max(32, limit // weight.shape[1] // 32 * 32)
    parts = [
        methods.solve(variant.method, variant.job(name, piece, stored, reach), stats) for piece in weight.split(rows)
    ]
    if len(parts) == 1:
        return parts[0]
    shares = [len(part.codes) / len(weight) for part in parts]
    update: dict[str, object] = {
        "clipped": sum(part.facts.clipped * share for part, share in zip(parts, shares, strict=True))
    }
    if stats is not None:
        energies = [float(((piece @ stats.hessian) * piece).sum(dtype=torch.float64)) for piece in weight.split(rows)]
        lost = sum((part.facts.error or 0.0) * energy for part, energy in zip(parts, energies, strict=True))
        update["error"] = lost / sum(energies) if sum(energies) > 0 else None
    zeros = [part.zeros for part in parts if part.zeros is not None]
    return Solved(
        parts[0].grid,
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat(zeros) if zeros else None,
        parts[0].facts.model_copy(update=update),
    )
