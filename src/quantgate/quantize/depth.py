"""A second walk over the model: what each layer is given, and how a variant's error grows from block to block."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from quantgate.models import OpenedModel
from quantgate.models.walker import Block
from quantgate.quantize.artifact import Artifact
from quantgate.quantize.hadamard import Rotation
from quantgate.quantize.load import round_input
from quantgate.quantize.statistics import Batch, Statistics
from quantgate.records import Record


class InputShape(Record):
    """What the calibration set gives to layers that read one input: how far some channels stand out."""

    layers: tuple[str, ...]
    channels: int
    max_over_median: float  # the largest |x| of the largest channel, over that of the median channel that is not 0
    largest: int  # which channel that is
    kurtosis: float  # of all values of the sample, E (x - mean)^4 / variance^2: 3 for a normal distribution


class Growth(Record):
    """Behind every block, |h' - h|^2 / |h|^2 over all real tokens: hidden states of the variant and of the model."""

    variant: str
    error: tuple[float, ...]  # one per block


def walk(
    model: OpenedModel,
    variants: Sequence[Artifact],
    batches: Sequence[Batch],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[InputShape], list[Growth]]:
    """Inputs of every group of linear layers, and the growth of every variant's error.

    Each variant is given its own hidden states, so the errors of the blocks before are in them. Holds one block, and
    one set of hidden states for the model and for each variant.
    """
    hidden = model.embed([batch.ids for batch in batches])
    turns = [_turn(variant, int(model.config.hidden_size)) for variant in variants]
    own = [[turn(one) for one in hidden] for turn in turns]
    tokens = sum(int(batch.real.sum()) for batch in batches)
    shapes, errors = list[InputShape](), [list[float]() for _ in variants]
    for index in range(model.depth):
        with model.block(index) as block:
            statistics = Statistics(block, model.linears(index), tokens)
            hidden = [statistics.forward(one, batch) for one, batch in zip(hidden, batches, strict=True)]
            statistics.close()
            for group in model.linears(index):
                found = statistics.take(group[0])
                shapes.append(_shape(group, found.largest(), found.sample))
            for at, variant in enumerate(variants):
                rounded = _rounded(block, model, variant)
                own[at] = [rounded(one) for one in own[at]]
                errors[at].append(_distance(own[at], [turns[at](one) for one in hidden], batches))
        if progress:
            progress(index + 1, model.depth)
    growth = [Growth(variant=one.name, error=tuple(row)) for one, row in zip(variants, errors, strict=True)]
    return shapes, growth


def _turn(variant: Artifact, width: int) -> Callable[[Tensor], Tensor]:
    """From the model's hidden states to those of the variant, were it exact."""
    return Rotation.of(width, variant.manifest.seed) if variant.manifest.recipe.rotation else Tensor.clone


def _shape(group: Sequence[str], absmax: Tensor, sample: Tensor | None) -> InputShape:
    """Of an expert that was given no token: all zeros."""
    if sample is None or not len(sample):
        return InputShape(layers=tuple(group), channels=len(absmax), max_over_median=0.0, largest=0, kurtosis=0.0)
    centred = sample.double() - sample.double().mean()
    variance = float(centred.square().mean())
    return InputShape(
        layers=tuple(group),
        channels=len(absmax),
        max_over_median=float(absmax.max() / absmax[absmax > 0].median()) if bool((absmax > 0).any()) else 0.0,
        largest=int(absmax.argmax()),
        kurtosis=float(centred.pow(4).mean()) / max(variance**2, 1e-300),
    )


def _rounded(block: Block, model: OpenedModel, variant: Artifact) -> Block:
    """The block with the variant's weights and, where its scheme says so, rounded inputs."""
    prefix, quantized = model.walker.prefix(block.index), set(variant.quantized)
    module, state = copy.deepcopy(block.module), dict[str, Tensor]()
    for name in module.state_dict():
        stored = model.walker.anatomy.stored[prefix + name]
        layer = stored.removesuffix(".weight")
        tensor = variant.linear(layer).dequantized(torch.float32) if layer in quantized else variant.files.read(stored)
        state[name] = tensor.float()
    module.load_state_dict(state, assign=True)
    for name, inner in module.named_modules():
        layer = model.walker.anatomy.module_name(prefix + name) if isinstance(inner, nn.Linear) else ""
        if layer in quantized and (scheme := variant.scheme_of(layer)).activations is not None:
            round_input(inner, scheme.activations, variant.linear(layer).input_scale if scheme.calibrated else None)
    return Block(model.walker, block.index, module.eval().requires_grad_(False), block.device)


def _distance(own: Sequence[Tensor], hidden: Sequence[Tensor], batches: Sequence[Batch]) -> float:
    wrong = size = 0.0
    for mine, true, batch in zip(own, hidden, batches, strict=True):
        wrong += float((mine - true)[batch.real].double().square().sum())
        size += float(true[batch.real].double().square().sum())
    return wrong / max(size, 1e-300)
