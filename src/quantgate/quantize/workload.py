"""What a sweep has to do, as numbers: the shapes of its blocks, its calibration tokens, and who solves which layer how.

``footprint`` counts the bytes of it, ``duration`` the operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantgate.models import OpenedModel
from quantgate.models.experts import Experts
from quantgate.quantize.manifest import Recipe
from quantgate.quantize.plan import Variant, plan
from quantgate.quantize.predict import predict, stored_size
from quantgate.quantize.propagate import alike
from quantgate.quantize.statistics import batches
from quantgate.quantize.sweep import BATCH_TOKENS


@dataclass(frozen=True)
class Task:
    """One variant's work on the layers of one input; layers that it keeps are not in it."""

    variant: Variant
    outs: tuple[int, ...]  # outputs of each layer
    stored: int  # bytes that they become


@dataclass(frozen=True)
class Group:
    """The linear layers that read one input."""

    columns: int
    outs: tuple[int, ...]
    share: float  # of all tokens that reach it: below 1 for an expert
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class BlockShape:
    """One decoder block."""

    weights: int  # numbers
    largest: int  # bytes of its largest tensor, as stored
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Tokens:
    """The calibration set, padded and in batches; all zero without one."""

    real: int
    padded: int
    batch: int  # padded tokens of the largest batch
    longest: int  # tokens of one sample


@dataclass(frozen=True)
class Own:
    """One hidden stream beside the model's (``propagate``)."""

    forwards: int  # passes of the calibration set through each block
    corrected: bool


@dataclass(frozen=True)
class Workload:
    blocks: tuple[BlockShape, ...]  # and behind them the output layer, where it becomes codes with statistics
    streams: tuple[Own, ...]
    rotated: bool
    tokens: Tokens
    hidden: int
    model_bytes: int
    largest: int  # bytes of the largest tensor, as stored
    around: int  # numbers that stand around the blocks, token embeddings aside
    rows: int  # rows of the token embeddings that the calibration set names, at most
    stored: int  # bytes of all artifacts' tensors


def workload(model: OpenedModel, recipes: Sequence[Recipe], samples: Sequence[Sequence[int]] | None) -> Workload:
    """The work of ``sweep(model, samples, recipes)``. Raises what that would raise before anything slow."""
    variants = plan(model, recipes, calibrated=samples is not None)
    blocks = tuple(_block(model, variants, index) for index in range(model.depth))
    if head := _head(model, variants):
        blocks = (*blocks, head)
    config, walker = model.config, model.walker
    table = walker.skeleton.get_input_embeddings().weight
    around = sum(
        model.files.entry(stored).weights for name in walker.anatomy.around for stored in [walker.anatomy.stored[name]]
    )
    return Workload(
        blocks=blocks,
        streams=_streams(model, variants) if samples is not None else (),
        rotated=any(variant.recipe.rotation for variant in variants),
        tokens=_tokens(model, samples),
        hidden=int(config.hidden_size),
        model_bytes=model.weights_bytes,
        largest=max(entry.size for entry in model.files.entries.values()),
        around=max(0, around - table.numel()),
        rows=0 if samples is None else len({one for sample in samples for one in sample}),
        stored=sum(one.tensor_bytes for one in predict(model, recipes, calibrated=samples is not None)),
    )


def _tokens(model: OpenedModel, samples: Sequence[Sequence[int]] | None) -> Tokens:
    if samples is None:
        return Tokens(0, 0, 0, 0)
    cut = batches(samples, int(model.config.vocab_size), model.context, BATCH_TOKENS)
    sizes = [batch.ids.numel() for batch in cut]
    return Tokens(sum(map(len, samples)), sum(sizes), max(sizes), max(map(len, samples)))


def _block(model: OpenedModel, variants: Sequence[Variant], index: int) -> BlockShape:
    walker = model.walker
    prefix = walker.prefix(index)
    entries = [model.files.entry(stored) for name, stored in walker.anatomy.stored.items() if name.startswith(prefix)]
    return BlockShape(
        weights=sum(entry.weights for entry in entries),
        largest=max(entry.size for entry in entries),
        groups=tuple(_group(model, variants, index, group) for group in model.linears(index)),
    )


def _streams(model: OpenedModel, variants: Sequence[Variant]) -> tuple[Own, ...]:
    inputs = max((len(model.linears(block)) for block in range(model.depth)), default=0)
    found = []
    for mine in alike(model, variants):
        options = mine[0].options
        passes = inputs + 1 if options.steps == "layer" else 2
        found.append(Own(passes, options.propagate == "corrected"))
    return tuple(found)


def _head(model: OpenedModel, variants: Sequence[Variant]) -> BlockShape | None:
    """The output layer as a block of its own; its rows are solved in slices, so a large one takes less than is told."""
    tasks, name = list[Task](), ""
    for variant in variants:
        if (scheme := variant.ends.lm_head) is not None and scheme.weights is not None:
            name = variant.ends.source(variant.ends.head)
            entry, own = model.files.entry(name), replace(variant, scheme=scheme, grid=scheme.weights)
            out, columns = entry.shape
            tasks.append(Task(own, (out,), stored_size(own, (out, columns), entry.dtype)[0]))
    if not tasks:
        return None
    entry = model.files.entry(name)
    return BlockShape(
        weights=entry.weights,
        largest=entry.size,
        groups=(Group(entry.shape[1], (entry.shape[0],), 1.0, tuple(tasks)),),
    )


def _group(model: OpenedModel, variants: Sequence[Variant], index: int, group: Sequence[str]) -> Group:
    entries = {layer: model.files.entry(f"{layer}.weight") for layer in group}
    tasks = []
    for variant in variants:
        mine = [entries[layer] for layer in group if layer not in variant.kept]
        stored = sum(stored_size(variant, (entry.shape[0], entry.shape[1]), entry.dtype)[0] for entry in mine)
        if mine:
            tasks.append(Task(variant, tuple(entry.shape[0] for entry in mine), stored))
    outs = tuple(entry.shape[0] for entry in entries.values())
    return Group(entries[group[0]].shape[1], outs, _share(model, index, group[0]), tuple(tasks))


def _share(model: OpenedModel, index: int, layer: str) -> float:
    """The fraction of all tokens that a layer of block ``index`` is given on average."""
    path = model.walker.paths[layer].removeprefix(model.walker.prefix(index))
    parent = model.walker.layers[index].get_submodule(path.rsplit(".", 2)[0])
    if not isinstance(parent, Experts):
        return 1.0
    return min(1.0, float(getattr(model.config, "num_experts_per_tok", parent.count)) / parent.count)
