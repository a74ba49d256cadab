"""Channel scales of one variant in one block: searched for, made storable, and applied to everything they touch.

The columns of the layers that read an input are multiplied by ``s``, and what makes the input is divided by it. A norm
is stored in the model's type, so what it can be divided by is not quite what was wished: the norm is divided and
rounded first, and ``s`` is then exactly what it was divided by. So a block with channel scales computes what it
computed before, up to the rounding of its linear layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from quantgate.models.folding import Fold
from quantgate.models.tensors import torch_dtype
from quantgate.models.walker import Block
from quantgate.quantize.manifest import Note
from quantgate.quantize.methods import LayerStats, Solved
from quantgate.quantize.methods._factor import relative_error
from quantgate.quantize.methods._scaling import Scaling, ScalingMethod, search
from quantgate.quantize.plan import Variant


@dataclass
class Balanced:
    """What channel scales do to one block."""

    columns: dict[str, Scaling] = field(default_factory=dict)  # by the first layer of those that read the input
    rows: dict[str, Tensor] = field(default_factory=dict)  # linear layer -> [out] that its rows are divided by
    stored: dict[str, Tensor] = field(default_factory=dict)  # norms and biases that changed, in the model's type
    because: dict[str, str] = field(default_factory=dict)  # why, for each of those
    notes: list[Note] = field(default_factory=list)

    def weight(self, layer: str, first: str, weight: Tensor) -> Tensor:
        """The weight [out, in] of ``layer`` as it is to be stored; ``first`` is the first that reads its input."""
        if layer in self.rows:
            weight = weight / self.rows[layer][:, None]
        return weight * self.columns[first].scales if first in self.columns else weight

    def statistics(self, first: str, stats: LayerStats) -> LayerStats:
        return stats.divided(self.columns[first].scales) if first in self.columns else stats

    def told(self, layer: str, first: str, weight: Tensor, solved: Solved, stats: LayerStats | None) -> Solved:
        """``solved`` with the scaling on record, and its error in the layer's own units where rows were divided."""
        update: dict[str, object] = {}
        if first in self.columns:
            update |= {"scaling": self.columns[first].told, "scaling_gain": self.columns[first].gain}
        if layer in self.rows and stats is not None:
            rows = self.rows[layer][:, None]
            update["error"] = relative_error(weight * rows, solved.weight() * rows, stats, {})
        return replace(solved, facts=solved.facts.model_copy(update=update))


def balance(
    variant: Variant,
    block: Block,
    groups: Sequence[Sequence[str]],
    statistics: Mapping[str, LayerStats],
    folds: Sequence[Fold],
    types: Callable[[str], str],
    starved: Callable[[str], str],
) -> Balanced:
    """Scales for every group that has a fold. ``types`` gives safetensors' word for the type a tensor is stored in,
    ``starved`` why the group of a layer goes without statistics, or ""."""
    method, out = variant.method, Balanced()
    assert isinstance(method, ScalingMethod)  # the caller asks for no others
    by_group = {fold.group: fold for fold in folds}
    for group in groups:
        if group[0] in variant.kept:
            continue
        fold = by_group.get(tuple(group))
        reason = "nothing makes its input that the scales could be folded into" if fold is None else ""
        reason = starved(group[0]) or reason
        if fold is not None and fold.source in variant.kept:
            reason = f"the scales would have to go into {fold.source}, which is kept"
        if fold is None or reason:
            out.notes.append(Note(tensor=group[0], event="not_scaled", detail=reason))
            continue
        _fold(out, variant, block, fold, statistics[group[0]], types)
    return out


def _fold(
    out: Balanced, variant: Variant, block: Block, fold: Fold, stats: LayerStats, types: Callable[[str], str]
) -> None:
    assert isinstance(variant.method, ScalingMethod)
    weights = [block.linear(layer).weight for layer in fold.group]
    source = dict(block.module_named(fold.source).named_parameters(recurse=False))

    def fit(wished: Tensor) -> Tensor:
        scales = fold.gather(wished)
        if fold.kind != "linear":
            stored = _stored(fold.divided("weight", source["weight"], scales), types(f"{fold.source}.weight"))
            before, after = (1 + source["weight"], 1 + stored) if "offset" in fold.kind else (source["weight"], stored)
            scales = torch.where((after != 0) & (before != 0), before / after, torch.ones_like(scales))
        return fold.expand(scales)

    dtype = torch_dtype(types(f"{fold.group[0]}.weight"))
    families = variant.method.families(stats, weights)
    found = search(families, weights, variant.grid, variant.scheme.activations, stats, dtype, fit)
    if found is None:
        return
    out.columns[fold.group[0]] = found
    scales = fold.gather(found.scales)
    leaves = ", ".join(layer.rpartition(".")[2] for layer in fold.group)
    for name, parameter in source.items():
        tensor = f"{fold.source}.{name}"
        if fold.kind == "linear" and name == "weight":
            out.rows[fold.source] = scales
        else:
            out.stored[tensor] = _stored(fold.divided(name, parameter, scales), types(tensor)).to(
                torch_dtype(types(tensor))
            )
            out.because[tensor] = f"divided by the channel scales of {leaves}"


def _stored(tensor: Tensor, stored: str) -> Tensor:
    """What is left of ``tensor`` after it was stored."""
    return tensor.to(torch_dtype(stored)).float()
