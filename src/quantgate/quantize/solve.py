"""The layers of one block that read one input, solved for all variants: who shares what with whom."""

from __future__ import annotations

from torch import Tensor

from quantgate.models.walker import Block
from quantgate.quantize.balance import Balanced
from quantgate.quantize.experts import Starved, without_statistics
from quantgate.quantize.methods import LayerStats
from quantgate.quantize.pieces import Pieces
from quantgate.quantize.plan import Variant


def solve(pieces: Pieces, block: Block, group: list[str], stats: LayerStats | None) -> None:
    """All layers of one input for all variants.

    Variants without channel scales share everything, and so do the rotated ones among themselves. One with channel
    scales has weights and statistics of its own.
    """
    rotated = [one for one in pieces.variants if one.recipe.rotation]
    if pieces.turned is not None:
        own = {layer: pieces.turned.weight(layer) for layer in group}
        _solve_with(pieces, rotated, own, pieces.turned.statistics(group[0], stats))
    weights = {layer: block.linear(layer).weight for layer in group}
    _solve_with(pieces, [one for one in pieces.variants if one not in rotated], weights, stats)


def _solve_with(pieces: Pieces, variants: list[Variant], weights: dict[str, Tensor], stats: LayerStats | None) -> None:
    """The layers of one input for ``variants``, which agree on what their weights and that input are."""
    group = list(weights)
    starved = {one.name: why for one in variants if (why := pieces.crowd.starved(group[0], one.experts))}
    fed = [one for one in variants if one.name not in starved]
    _solve_alike(pieces, [one for one in fed if one.name not in pieces.balanced], weights, stats, first=group[0])
    for variant in variants:
        if variant.name in starved:
            _solve_starved(pieces, variant, weights, starved[variant.name], group[0])
        elif variant.name in pieces.balanced and stats is not None:
            how = pieces.balanced[variant.name]
            own = {layer: how.weight(layer, group[0], weight) for layer, weight in weights.items()}
            _solve_alike(pieces, [variant], own, how.statistics(group[0], stats), how, group[0])


def _solve_starved(pieces: Pieces, variant: Variant, weights: dict[str, Tensor], because: str, first: str) -> None:
    """The layers of an expert that was given too few tokens, by the rule of the recipe."""
    if variant.experts.starved == "keep":
        for layer in weights:
            if layer not in variant.kept:
                pieces.keep(variant, layer, because)
        return
    _solve_alike(pieces, [without_statistics(variant)], weights, None, Starved(variant, because), first)


def _solve_alike(
    pieces: Pieces,
    variants: list[Variant],
    weights: dict[str, Tensor],
    stats: LayerStats | None,
    how: Balanced | Starved | None = None,
    first: str = "",
) -> None:
    """All layers of one input, the jobs of one method together so that they share what they can."""
    reach = max(float(weight.abs().max()) for weight in weights.values())
    largest = None if stats is None or stats.absmax is None else float(stats.absmax.max())
    if not isinstance(
        how, Balanced
    ):  # experts share the number that activations are rounded with, as kernels fuse them
        largest = pieces.crowd.largest.get(first, largest)
    entries = pieces.run.model.files.entries
    for method in dict.fromkeys(variant.method_name for variant in variants):
        todo = [
            (variant, layer)
            for variant in variants
            for layer in weights
            if variant.method_name == method and layer not in variant.kept
        ]
        jobs = [variant.job(layer, weights[layer], entries[f"{layer}.weight"].dtype, reach) for variant, layer in todo]
        alike = [repr((job.name, job.grid, job.options, job.scale_dtype)) for job in jobs]  # in another container, say
        asked = dict(zip(reversed(alike), reversed(jobs), strict=True))
        if not jobs:
            continue
        solved = dict(zip(asked, todo[0][0].method.solve_many(list(asked.values()), stats), strict=True))
        for (variant, layer), key in zip(todo, alike, strict=True):
            found = solved[key] if how is None else how.told(layer, first, weights[layer], solved[key], stats)
            pieces.add(variant, layer, weights[layer], found, reach, largest)
