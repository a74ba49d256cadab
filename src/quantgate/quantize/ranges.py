"""Whether a calibration set has seen the ranges that other traffic brings: clip rates of what the linear layers read.

Static scales for activations and the sizes of outliers come from the calibration set. What held-out traffic gives
beyond them is clipped, or was never in the Hessian: a calibration set of another kind shows here before it shows in
answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quantgate.models import OpenedModel
from quantgate.quantize.drift import Inputs
from quantgate.quantize.statistics import Batch
from quantgate.records import Record


class ClipRate(Record):
    """The input that some linear layers read together, on held-out tokens."""

    layers: tuple[str, ...]
    values: int  # held-out tokens x channels; of an expert, the tokens that were sent to it
    beyond_tensor: float  # share of the values whose |x| is larger than any that calibration gave
    beyond_channel: float  # share whose |x| is larger than any that calibration gave in the same channel
    furthest: float  # the largest |x| over the largest that calibration gave; 1 or less: nothing is clipped


def clip_rates(
    model: OpenedModel,
    calibration: Sequence[Batch],
    held_out: Sequence[Batch],
    progress: Callable[[int, int], None] | None = None,
) -> list[ClipRate]:
    """One rate for each group of layers with one input, in the order of the model.

    Holds one block, and the hidden states of both sets. Layers that neither set reached have no rate.
    """
    first, second = (model.embed([batch.ids for batch in one]) for one in (calibration, held_out))
    found: list[ClipRate] = []
    for index in range(model.depth):
        with model.block(index) as block, torch.no_grad():
            groups = model.linears(index)
            inputs, ranges = Inputs(block, groups), dict[str, Tensor]()
            for at, batch in enumerate(calibration):
                inputs.expect(batch)
                first[at] = block(first[at])
                for name, (rows, _) in inputs.seen.items():
                    _widen(ranges, name, rows)
            beyond = {group[0]: _Beyond(ranges.get(group[0])) for group in groups}
            for at, batch in enumerate(held_out):
                inputs.expect(batch)
                second[at] = block(second[at])
                for name, (rows, _) in inputs.seen.items():
                    beyond[name].add(rows)
            inputs.close()
            found += [beyond[group[0]].rate(group) for group in groups if beyond[group[0]].values]
        if progress:
            progress(index + 1, model.depth)
    return found


def _widen(ranges: dict[str, Tensor], name: str, rows: Tensor) -> None:
    """``ranges[name]`` [in] takes the largest |x| of ``rows`` [n, in] in."""
    if len(rows):
        largest = rows.abs().amax(dim=0)
        ranges[name] = torch.maximum(ranges[name], largest) if name in ranges else largest


class _Beyond:
    """Counts values beyond the calibrated range [in]; all of them, where calibration gave none."""

    def __init__(self, range_: Tensor | None) -> None:
        self._range = range_
        self.values = self._tensor = self._channel = 0
        self._largest = 0.0

    def add(self, rows: Tensor) -> None:
        if not len(rows):
            return
        size = rows.abs()
        self.values += size.numel()
        self._largest = max(self._largest, float(size.max()))
        limit = torch.zeros(size.shape[1], device=size.device) if self._range is None else self._range
        self._tensor += int((size > limit.max()).sum())
        self._channel += int((size > limit).sum())

    def rate(self, group: Sequence[str]) -> ClipRate:
        seen = 0.0 if self._range is None else float(self._range.max())
        return ClipRate(
            layers=tuple(group),
            values=self.values,
            beyond_tensor=self._tensor / self.values,
            beyond_channel=self._channel / self.values,
            furthest=self._largest / max(seen, 1e-30),
        )
