"""Channel scales: multiply a layer's columns by ``s`` and divide its input by it, so that rounding hurts less.

What a method brings is families of scales with one exponent each. The search is the same for all: the exponent whose
scales lose least, counted on the calibration set without running the model again. For the weights that is
tr(dW H dW^T) with dW = Q(W s) / s - W, and for activations, where the scheme rounds them, the mean square of
(Q(x / s) - x / s) (W s)^T over a sample of tokens x.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats import Grid
from quantgate.formats.codec import calibrated_scale, decode, encode, quantize_activations, scales_for
from quantgate.quantize.methods import Job, LayerStats, Solved
from quantgate.quantize.methods._scales import Clip
from quantgate.quantize.methods.gptq import METHOD as GPTQ
from quantgate.quantize.methods.gptq import GptqOptions
from quantgate.quantize.methods.rtn import METHOD as RTN
from quantgate.quantize.methods.rtn import RtnOptions
from quantgate.records import Record

Family = Callable[[float], Tensor]  # exponent -> scales [in]

COARSE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
FINE = (-0.1, 0.1, -0.05, 0.05)  # around the best so far, in this order
ROWS = 1024  # output channels of a layer that the search looks at, evenly spread
REACH = 1e3  # scales stay between 1 / REACH and REACH


@dataclass(frozen=True)
class Scaling:
    """What a search found: the scales [in] of the columns, how they came about, and what they gained."""

    scales: Tensor
    told: str  # "x^a, a = 0.35"
    gain: float  # loss with these scales over the loss without


class ScalingOptions(Record):
    clip: Clip = "hessian"  # how the scales of the grid are chosen afterwards
    rounding: Literal["rtn", "gptq"] = "rtn"  # "gptq" pushes each column's error on to the next ones


class ScalingMethod(ABC):
    """A method that brings families of channel scales; the sweep folds the best ones before it asks for the codes.

    Without a fold a layer is rounded as it is, and so it is by ``solve_many`` alone.
    """

    name: str
    Options: type[Record] = ScalingOptions
    needs_stats = True

    @abstractmethod
    def families(self, stats: LayerStats, weights: Sequence[Tensor]) -> Mapping[str, Family]:
        """Families for the ``weights`` [out, in] that read one input, under the formula that they follow."""

    def solve_many(self, jobs: Sequence[Job], stats: LayerStats | None) -> list[Solved]:
        if stats is None:
            where = jobs[0].name if jobs else self.name
            raise FormatError(f"{where}: method {self.name} needs a calibration set; give one, or choose rtn or hqq")
        solved: dict[int, Solved] = {}
        for rounding, method, make in (("rtn", RTN, RtnOptions), ("gptq", GPTQ, GptqOptions)):
            asked: list[ScalingOptions] = [job.options or ScalingOptions() for job in jobs]
            places = [at for at, options in enumerate(asked) if options.rounding == rounding]
            mine = [replace(jobs[at], options=make(clip=asked[at].clip)) for at in places]
            solved |= dict(zip(places, method.solve_many(mine, stats) if mine else [], strict=True))
        return [self._named(solved[at]) for at in range(len(jobs))]

    def _named(self, solved: Solved) -> Solved:
        facts = solved.facts
        method = self.name if facts.method == facts.asked else facts.method
        return replace(solved, facts=facts.model_copy(update={"asked": self.name, "method": method}))


def search(
    families: Mapping[str, Family],
    weights: Sequence[Tensor],
    grid: Grid,
    activations: Grid | None,
    stats: LayerStats,
    dtype: torch.dtype,
    fit: Callable[[Tensor], Tensor] = lambda scales: scales,
) -> Scaling | None:
    """The best scales for the ``weights`` [out, in] of the layers that read one input; None when none gain anything.

    ``fit`` turns wished scales into those that can be stored.
    """
    shown = [weight[:: -(-len(weight) // ROWS)] for weight in weights]

    def loss(scales: Tensor) -> float:
        return _loss(scales, shown, grid, activations, stats, dtype)

    plain = least = loss(torch.ones_like(stats.hessian[0]))
    best: Scaling | None = None
    for name, family in families.items():
        at, tried = 0.0, dict[float, tuple[float, Tensor]]()

        def attempt(exponent: float, family: Family = family, tried: dict[float, Any] = tried) -> None:
            exponent = round(min(1.0, max(0.0, exponent)), 4)
            if exponent not in tried:
                scales = fit(_tamed(family(exponent)))
                tried[exponent] = (loss(scales), scales)

        for exponent in COARSE:
            attempt(exponent)
        for shift in FINE:
            at = min(tried, key=lambda one: tried[one][0])
            attempt(at + shift)
        at = min(tried, key=lambda one: tried[one][0])
        if tried[at][0] < least:
            least = tried[at][0]
            best = Scaling(tried[at][1], f"{name}, a = {at:g}", least / plain)
    return best


def _tamed(scales: Tensor) -> Tensor:
    """Positive, finite, and as far above 1 as below; what cannot be (a dead channel) becomes 1."""
    usable = scales.isfinite() & (scales > 0)
    logs = torch.where(usable, scales, 1.0).log()
    if bool(usable.any()):
        middle = (logs[usable].max() + logs[usable].min()) / 2
        logs = torch.where(usable, logs - middle, 0.0)
    return logs.exp().clamp(1 / REACH, REACH)


def _loss(
    scales: Tensor,
    weights: Sequence[Tensor],
    grid: Grid,
    activations: Grid | None,
    stats: LayerStats,
    dtype: torch.dtype,
) -> float:
    reach = max(float((weight * scales).abs().max()) for weight in weights)
    lost = 0.0
    for weight in weights:
        scaled = weight * scales
        if grid.strategy == "block":
            scaled = scaled[: len(scaled) // (grid.group_size or 1) * (grid.group_size or 1)]
        steps, zeros = scales_for(scaled, grid, dtype=dtype, reach=reach)
        change = (decode(encode(scaled, grid, steps, zeros), grid, steps, zeros) - scaled) / scales
        lost += float((change @ stats.hessian).mul_(change).sum(dtype=torch.float64))
    if activations is not None and stats.sample is not None:
        x = stats.sample / scales
        given = calibrated_scale(activations, float((stats.largest() / scales).max()))
        number = None if given is None else torch.tensor([given], device=x.device)
        change = quantize_activations(x, activations, number) - x
        out = change @ torch.cat([weight * scales for weight in weights]).T
        lost += float(out.square().sum(dtype=torch.float64)) / len(x)
    return lost


def column_size(weights: Sequence[Tensor], how: Literal["rms", "max"]) -> Tensor:
    """[in] the size of each column over all ``weights`` [out, in]."""
    if how == "max":
        return torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0)
    return torch.cat(list(weights)).square().mean(dim=0).sqrt()
