"""How a variant's inputs differ from the model's: D = sum (x - x') x'^T over the tokens that both give to a layer.

The same batch goes through the block of the model and through the variant's, one after the other. A token is the same
token in both, so its rows can be held side by side. Routers may send it to other experts, though: an expert learns D
from the tokens that it is given in both runs, and of all others that they have not drifted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from quantgate.models.walker import Block
from quantgate.quantize.statistics import Batch

Rows = tuple[Tensor, Tensor]  # what a layer is given [rows, in], float32; which tokens of the flattened batch [rows]


class Inputs:
    """What the layers of some groups are given while a block runs: the rows of real tokens, by the first layer."""

    def __init__(self, block: Block, groups: Sequence[Sequence[str]]) -> None:
        self._block, self._real = block, torch.empty(0)
        self._experts = {group[0]: block.experts(group[0]) for group in groups}
        self._hooks: list[Any] = [
            block.linear(first).register_forward_pre_hook(partial(self._note, first)) for first in self._experts
        ]
        self.seen: dict[str, Rows] = {}

    def expect(self, batch: Batch) -> None:
        """Forget the batch before; this one is to run next."""
        self.seen = {}
        self._real = batch.real.reshape(-1).to(self._block.device)

    def of(self, hidden: Tensor, batch: Batch) -> dict[str, Rows]:
        """What the block gives them when it is given ``hidden``. An expert that no token reached is left out."""
        self.expect(batch)
        self._block(hidden)
        return self.seen

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, first: str, _layer: Any, args: tuple[Tensor]) -> None:
        rows = args[0].reshape(-1, args[0].shape[-1]).float()
        expert = self._experts[first]
        routed = None if expert is None else expert[1].routed
        tokens = torch.arange(len(rows), device=rows.device) if routed is None else routed
        real = self._real[tokens]
        self.seen[first] = (rows[real], tokens[real])


class Drift:
    """Sums D [in, in] by the first layer of each group, for one variant's copy of a block."""

    def __init__(self, copy: Block, groups: Sequence[Sequence[str]]) -> None:
        self._own = Inputs(copy, groups)
        sizes = {group[0]: copy.linear(group[0]).in_features for group in groups}
        self.sums = {first: torch.zeros(size, size, device=copy.device) for first, size in sizes.items()}

    def expect(self, batch: Batch) -> None:
        self._own.expect(batch)

    def add(self, given: Mapping[str, Rows]) -> None:
        """The copy has run the batch that was expected; ``given`` is what the model gave on it."""
        for first, (mine, tokens) in self._own.seen.items():
            if first not in given:
                continue
            rows, known = given[first]
            if not torch.equal(tokens, known):
                here, there = both(tokens, known)
                mine, rows = mine[here], rows[there]
            self.sums[first].addmm_((rows - mine).T, mine)

    def close(self) -> None:
        self._own.close()


def both(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Where the numbers that are in both [n] stand in ``a`` and in ``b``, whose numbers are their own each."""
    largest = max((int(one.max()) for one in (a, b) if len(one)), default=-1)
    places = torch.full((largest + 1,), -1, device=a.device)
    places[b] = torch.arange(len(b), device=b.device)
    there = places[a]
    at = (there >= 0).nonzero().squeeze(1)
    return at, there[at]
