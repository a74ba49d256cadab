"""A model that sees its numbers as an artifact will hold them: as a whole, and block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quantgate.models import OpenedModel
from quantgate.models.walker import CONTEXTS_KEPT, Recorder
from quantgate.train import Group
from quantgate.train._layers import FakeLinear, FakeNorm, Trained
from quantgate.train._running import Running


class FakeNetwork(Running):
    """A model that sees its linear layers, their inputs and its KV cache as the artifact will hold them."""

    def __init__(
        self, model: OpenedModel, network: Any, paths: Mapping[str, str], device: Any, precision: str, rate: float
    ) -> None:
        super().__init__(model, network, paths, device, precision)
        self.rate = rate
        self.layers: dict[str, FakeLinear] = {}  # by the artifact's names
        self.norms: dict[str, FakeNorm] = {}  # by the names of their tensors
        self._contexts: dict[tuple[int, int], list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}

    @property
    def sources(self) -> Sequence[FakeLinear | FakeNorm]:
        """Everything that is rounded once a step."""
        return [*self.layers.values(), *self.norms.values()]

    def groups(self) -> list[Group]:
        return _groups(self.layers, self.norms, self._cache_parameters(), self.rate)

    def _cache_parameters(self) -> dict[str, nn.Parameter]:
        return {} if self.cache is None else self.cache.parameters()

    def leaves(self) -> list[Tensor]:
        """What gradients gather in during a step: rounded weights, and numbers that act where they stand."""
        direct = {id(one): one for layer in self.layers.values() for one in layer.direct().values()}  # some are shared
        caches = self._cache_parameters()
        return [*(source.weight for source in self.sources), *direct.values(), *caches.values()]

    def step(self) -> AbstractContextManager[None]:
        return _step(self.sources, [one for group in self.groups() for one in group.parameters.values()])

    def still(self) -> AbstractContextManager[None]:
        return _still(self.sources)

    @property
    def depth(self) -> int:
        return self.source.depth

    def block(self, index: int) -> FakeBlock:
        """One decoder block, to be trained by itself."""
        return FakeBlock(self, index)

    def trained(self) -> dict[str, Trained]:
        """What every layer is to be stored as, by the artifact's names, on the CPU."""
        return {name: layer.trained() for name, layer in self.layers.items()}

    def others(self) -> dict[str, Tensor]:
        """Gains of norms, and scales of the KV cache, by their tensors' names, in the types they are stored in."""
        norms = {name: norm.stored() for name, norm in self.norms.items()}
        return norms | ({} if self.cache is None else self.cache.stored())

    def context(self, index: int, rows: int, length: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the model passes to block ``index`` beside hidden states [rows, length, hidden]."""
        if (rows, length) not in self._contexts:
            if len(self._contexts) >= CONTEXTS_KEPT:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[rows, length] = self._record(rows, length)
        return self._contexts[rows, length][index]

    @torch.no_grad()
    def _record(self, rows: int, length: int) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Run the model with each block replaced by a recorder, as ``models.walker`` does."""
        anatomy = self.source.walker.anatomy
        parent, _, leaf = anatomy.blocks.rpartition(".")
        trunk, blocks = self.model.get_submodule(parent), self.model.get_submodule(anatomy.blocks)
        recorders = [Recorder(block) for block in blocks]
        for recorder in recorders:
            recorder.wrapped = self.source.walker.wrapped
        setattr(trunk, leaf, nn.ModuleList(recorders))
        try:
            trunk(input_ids=torch.zeros(rows, length, dtype=torch.long, device=self.device), **self._caching())
        finally:
            setattr(trunk, leaf, blocks)
        return [recorder.seen[1:] for recorder in recorders if recorder.seen is not None]


class FakeBlock:
    """A decoder block of a FakeNetwork: the same protocol with hidden states in the place of tokens."""

    def __init__(self, network: FakeNetwork, index: int) -> None:
        self.network, self.index = network, index
        path = f"{network.source.walker.anatomy.blocks}.{index}"
        self.module = network.model.get_submodule(path)
        mine = {id(module) for module in self.module.modules()}
        self.layers = {name: layer for name, layer in network.layers.items() if id(layer) in mine}
        self.norms = {name: norm for name, norm in network.norms.items() if id(norm.module) in mine}

    @property
    def sources(self) -> Sequence[FakeLinear | FakeNorm]:
        return [*self.layers.values(), *self.norms.values()]

    def groups(self) -> list[Group]:
        """As the network's, of this block alone; scales of the KV cache are trained with the whole model."""
        return _groups(self.layers, self.norms, {}, self.network.rate)

    def step(self) -> AbstractContextManager[None]:
        return _step(self.sources, [one for group in self.groups() for one in group.parameters.values()])

    def still(self) -> AbstractContextManager[None]:
        return _still(self.sources)

    def __call__(self, hidden: Tensor) -> Tensor:
        """[rows, length, hidden] -> the same; inside ``step`` or ``still``."""
        args, kwargs = self.network.context(self.index, hidden.shape[0], hidden.shape[1])
        with self.network.products_in():
            out = self.module(hidden.to(self.network.device), *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]


USUAL_SIZE = 0.1  # of weights, root mean square: where they learn at the run's own rate


def _groups(
    layers: Mapping[str, FakeLinear],
    norms: Mapping[str, FakeNorm],
    caches: Mapping[str, nn.Parameter],
    rate: float,
) -> list[Group]:
    """A layer's weights learn at a rate that is in proportion to them, as its steps of rounding are.

    In one model they differ tenfold: what hardly moves one layer's weights would be noise to another's.
    """
    weights, seen = list[Group](), set[int]()
    kinds: dict[str, dict[str, nn.Parameter]] = {"adapters": {}, "scales": dict(caches), "norms": {}}
    for name, layer in layers.items():
        for leaf, parameter in layer.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if parameter.requires_grad and layer.kind(leaf) == "weights":
                weights.append(Group("weights", {f"{name}.{leaf}": parameter}, layer.size / USUAL_SIZE, decay=True))
            elif parameter.requires_grad:
                kinds[layer.kind(leaf)][f"{name}.{leaf}"] = parameter
    for name, norm in norms.items():
        kinds["norms"][name] = norm.gain
    rates = {"scales": rate}
    others = [
        Group(kind, those, rates.get(kind, 1.0), decay=kind == "adapters") for kind, those in kinds.items() if those
    ]
    return weights + others


@contextmanager
def _step(sources: Sequence[FakeLinear | FakeNorm], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.grad = None
    made = [source.rounded() for source in sources]
    for source, rounded in zip(sources, made, strict=True):
        source.weight = rounded.detach().requires_grad_()
    try:
        yield
        moved = [(one, source.weight.grad) for one, source in zip(made, sources, strict=True)]
        torch.autograd.backward(
            [one for one, grad in moved if grad is not None], [grad for _, grad in moved if grad is not None]
        )
    finally:
        for source in sources:
            source.weight = source.weight.detach()


@contextmanager
def _still(sources: Sequence[FakeLinear | FakeNorm]) -> Iterator[None]:
    with torch.no_grad():
        for source in sources:
            source.weight = source.rounded()
        yield
