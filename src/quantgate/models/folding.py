"""Where a factor on a layer's input can hide: in the weights of what makes that input.

Dividing the input of some linear layers by ``s`` and multiplying their columns by it changes nothing, and if the input
comes straight from a norm, or from another linear layer channel by channel, the division costs nothing either: it goes
into that one's weights. Which module that is, is not read off names. It is found by trying: scale a module's outputs,
run the block on a few tokens, and see whether the input in question scaled along and nothing else moved. The tokens
should be real ones: a function that saturates between the two (clipped queries, say) shows on large values only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from quantgate.models.experts import Experts
from quantgate.models.walker import Block

AGREE = 1e-4  # relative difference of float32 results that count as the same


@dataclass(frozen=True)
class Fold:
    """``group`` are the layers that read the input, ``source`` the module that makes it; full names."""

    group: tuple[str, ...]
    source: str
    kind: Literal["norm", "offset norm", "linear"]  # an offset norm multiplies by 1 + weight
    channels: int  # of the source
    repeat: int = 1  # how many query heads share a channel of the source (grouped-query attention)
    head: int = 1  # channels of a head, where ``repeat`` is not 1

    def expand(self, scales: Tensor) -> Tensor:
        """[channels] of the source -> [in] of the group."""
        if self.repeat == 1:
            return scales
        return scales.view(-1, 1, self.head).expand(-1, self.repeat, -1).reshape(-1)

    def gather(self, scales: Tensor) -> Tensor:
        """[in] of the group -> [channels]: the geometric mean where several inputs share a channel."""
        if self.repeat == 1:
            return scales
        return scales.log().view(-1, self.repeat, self.head).mean(dim=1).exp().reshape(-1)

    def divided(self, name: str, tensor: Tensor, scales: Tensor) -> Tensor:
        """The source's tensor ``name`` ("weight" or "bias") when its outputs are divided by ``scales`` [channels]."""
        if self.kind == "offset norm" and name == "weight":
            return (1 + tensor) / scales - 1
        return tensor / (scales[:, None] if tensor.dim() == 2 else scales)


@torch.no_grad()
def find_folds(block: Block, groups: Sequence[Sequence[str]], probe: Tensor) -> list[Fold]:
    """One fold for each of the ``groups`` that has one. ``probe`` [batch, tokens, hidden] is given to the block."""
    plain = _seen(block, groups, probe)
    found = []
    for group in groups:
        fits = (fold for fold in _candidates(block, group) if _holds(block, fold, groups, probe, plain))
        if fold := next(fits, None):
            found.append(fold)
    return found


def _candidates(block: Block, group: Sequence[str]) -> Iterator[Fold]:
    columns = block.linear(group[0]).in_features
    home = block.experts(group[0])
    heads = int(getattr(block.config, "num_key_value_heads", 0) or getattr(block.config, "num_attention_heads", 0) or 1)
    for name, module in block.modules():
        weight = getattr(module, "weight", None)
        if name in group or not isinstance(weight, Tensor) or not _reaches(block.experts(name), home):
            continue
        if isinstance(module, nn.Linear):
            channels = module.out_features
            if channels == columns:
                yield Fold(tuple(group), name, "linear", channels)
            elif columns % channels == 0 and channels % heads == 0:
                yield Fold(tuple(group), name, "linear", channels, columns // channels, channels // heads)
        elif weight.shape == (columns,):
            yield Fold(tuple(group), name, "norm", columns)
            yield Fold(tuple(group), name, "offset norm", columns)


def _reaches(source: tuple[str, Experts] | None, home: tuple[str, Experts] | None) -> bool:
    """Whether a module may make an expert's input alone: what comes from outside goes to the router and others too."""
    return (source and source[0]) == (home and home[0])


def _holds(block: Block, fold: Fold, groups: Sequence[Sequence[str]], probe: Tensor, plain: dict[str, Tensor]) -> bool:
    """Whether scaling the source scales the group's input alike, and undoing it there leaves the block as it was."""
    if fold.group[0] not in plain:
        return False  # an expert that none of the probe's tokens is routed to
    powers = torch.randint(-1, 2, (fold.channels,), generator=torch.Generator().manual_seed(1)).float()
    scales = torch.exp2(powers).to(block.device)  # exact in binary, so what differs is no rounding
    wide = fold.expand(scales)
    with _scaled(block, fold, scales):
        seen = _seen(block, groups, probe)
    if seen.keys() != plain.keys():
        return False  # tokens went to other experts
    return all(_alike(tensor * wide if name == fold.group[0] else tensor, plain[name]) for name, tensor in seen.items())


@contextmanager
def _scaled(block: Block, fold: Fold, scales: Tensor) -> Iterator[None]:
    """The block with the source divided by ``scales`` and the group's columns multiplied by them."""
    source = block.module_named(fold.source)
    changed: list[tuple[Any, Tensor]] = []  # parameter, value
    for name, parameter in source.named_parameters(recurse=False):
        changed.append((parameter, fold.divided(name, parameter, scales)))
    wide = fold.expand(scales)
    for layer in fold.group:
        weight = block.linear(layer).weight
        changed.append((weight, weight * wide))
    before = [parameter.data for parameter, _ in changed]
    try:
        for parameter, value in changed:
            parameter.data = value
        yield
    finally:
        for (parameter, _), value in zip(changed, before, strict=True):
            parameter.data = value


def _seen(block: Block, groups: Sequence[Sequence[str]], probe: Tensor) -> dict[str, Tensor]:
    """What the first layer of each group is given, and under "" what the block gives back."""
    seen: dict[str, Tensor] = {}

    def note(name: str, given: Tensor) -> None:
        seen[name] = given.clone()

    hooks = [
        block.linear(group[0]).register_forward_pre_hook(lambda _layer, args, name=group[0]: note(name, args[0]))
        for group in groups
    ]
    try:
        seen[""] = block(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= AGREE * other.abs().max())
