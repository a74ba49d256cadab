"""A transformers model that can be trained: as it is, or with its numbers as an artifact will hold them.

    with network.step():                          # every weight is rounded once, here
        loss_of(network.logits(ids, counted)).backward()
    # gradients of scales and of unrounded weights are in ``grad`` now

Any architecture that quantgate walks is trained. Rows are padded on the right; attention is causal, so no real token
sees the padding. A rounded weight is a leaf for all batches of a step, and its summed gradient goes through the
rounding once, on leaving: rounding costs the same for one batch and for twenty.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from quantgate.errors import TrainingError
from quantgate.hardware.products import wide
from quantgate.models import OpenedModel
from quantgate.quantize.artifact import Artifact, baseline
from quantgate.quantize.load import load_with_paths
from quantgate.quantize.manifest import GGUF
from quantgate.train import Group
from quantgate.train._cache import RoundedCache
from quantgate.train._layers import FakeLinear, FakeNorm, SharedInputs, Trained

__all__ = ["FakeBlock", "FakeNetwork", "PlainNetwork", "Trained", "open_fake_network", "open_network"]


class _Running:
    """What all networks share: a transformers model in float32, run up to the logits that are asked for."""

    def __init__(self, model: OpenedModel, network: Any, paths: Mapping[str, str], device: Any, precision: str) -> None:
        self.device = torch.device(device)
        self.source, self.model, self.paths = model, network, dict(paths)
        self.cache: RoundedCache | None = None
        self.products = _products(precision, self.device)
        self._asked = threading.local()  # several batches may run at once, each in its thread
        self.model.to(self.device).requires_grad_(False)

    def logits(self, ids: Tensor, counted: Tensor) -> Tensor:
        """float32 [N, vocabulary] at the positions of ``ids`` [rows, length] where ``counted`` is True."""
        self._asked.counted = counted.to(self.device)
        try:
            with self.products_in():
                out = self.model(input_ids=ids.to(self.device), **self._caching()).logits
        finally:
            self._asked.counted = None
        return out[0].float()  # type: ignore[no-any-return]

    def _pick(self, _head: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        """The output layer is given the counted positions alone: [1, N, hidden]."""
        return (given[0][self._asked.counted].unsqueeze(0),)

    def _caching(self) -> dict[str, Any]:
        return {"use_cache": False} if self.cache is None else {"past_key_values": self.cache, "use_cache": True}

    def products_in(self) -> AbstractContextManager[Any]:
        """Where matrix products run in the precision that was chosen."""
        if self.products is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.products)

    def prepare(self, checkpointing: bool) -> None:
        """Once all modules stand. ``checkpointing``: of each block keep only what it is given, compute the rest anew."""
        self.model.get_output_embeddings().register_forward_pre_hook(self._pick)
        if not checkpointing:
            return
        for block in self.model.get_submodule(self.source.walker.anatomy.blocks):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def _products(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products: "float32", "bfloat16", or "auto", which is bfloat16 where hardware multiplies it."""
    if precision == "auto":
        return torch.float32 if wide(torch.bfloat16, device) else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


class PlainNetwork(_Running):
    """A model whose every weight is trained in float32."""

    def __init__(self, model: OpenedModel, network: Any, paths: Mapping[str, str], device: Any, precision: str) -> None:
        super().__init__(model, network, paths, device, precision)
        self.model.requires_grad_(True)
        names = {path: name for name, path in paths.items()}
        self._parameters = dict[str, nn.Parameter]()  # by the checkpoint's names; a tied one once
        for path, parameter in self.model.named_parameters():
            owner, _, leaf = path.rpartition(".")
            self._parameters[f"{names[owner]}.{leaf}"] = parameter

    def groups(self) -> list[Group]:
        """Matrices of blocks; what is one-dimensional (gains, biases); embeddings and output layer."""
        ends = {f"{name}.weight" for name in (self.source.walker.table, self.source.walker.head)}
        found: dict[str, dict[str, nn.Parameter]] = {"weights": {}, "norms": {}, "ends": {}}
        for name, parameter in self._parameters.items():
            kind = "norms" if parameter.dim() < 2 else "ends" if name in ends else "weights"
            found[kind][name] = parameter
        return [Group(kind, those, decay=kind == "weights") for kind, those in found.items() if those]

    @contextmanager
    def step(self) -> Iterator[None]:
        for parameter in self._parameters.values():
            parameter.grad = None
        yield

    @contextmanager
    def still(self) -> Iterator[None]:
        with torch.no_grad():
            yield

    def leaves(self) -> list[Tensor]:
        """What gradients gather in during a step."""
        return list(self._parameters.values())

    def state(self) -> dict[str, Tensor]:
        """Every tensor under the checkpoint's name for it, float32, on the CPU."""
        return {name: tensor.detach().cpu() for name, tensor in self._parameters.items()}


class FakeNetwork(_Running):
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
    def sources(self) -> list[FakeLinear | FakeNorm]:
        """Everything that is rounded once a step."""
        return [*self.layers.values(), *self.norms.values()]

    def groups(self) -> list[Group]:
        return _groups(self.layers, self.norms, self._cache_parameters(), self.rate)

    def _cache_parameters(self) -> dict[str, nn.Parameter]:
        return {} if self.cache is None else self.cache.parameters()

    def leaves(self) -> list[Tensor]:
        """What gradients gather in during a step: rounded weights, and numbers that act where they stand."""
        direct = [one for layer in self.layers.values() for one in layer.direct().values()]
        return [source.weight for source in self.sources] + direct + list(self._cache_parameters().values())

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
        from quantgate.models.walker import Recorder

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


CONTEXTS_KEPT = 32  # block arguments, one set for each shape of batch


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
    def sources(self) -> list[FakeLinear | FakeNorm]:
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


def _groups(
    layers: Mapping[str, FakeLinear],
    norms: Mapping[str, FakeNorm],
    caches: Mapping[str, nn.Parameter],
    rate: float,
) -> list[Group]:
    kinds: dict[str, dict[str, nn.Parameter]] = {"weights": {}, "adapters": {}, "scales": dict(caches), "norms": {}}
    for name, layer in layers.items():
        for leaf, parameter in layer.named_parameters(recurse=False):
            if parameter.requires_grad:
                kinds[layer.kind(leaf)][f"{name}.{leaf}"] = parameter
    for name, norm in norms.items():
        kinds["norms"][name] = norm.gain
    rates = {"scales": rate}
    return [
        Group(kind, those, rates.get(kind, 1.0), decay=kind in ("weights", "adapters"))
        for kind, those in kinds.items()
        if those
    ]


@contextmanager
def _step(sources: list[FakeLinear | FakeNorm], parameters: list[nn.Parameter]) -> Iterator[None]:
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
def _still(sources: list[FakeLinear | FakeNorm]) -> Iterator[None]:
    with torch.no_grad():
        for source in sources:
            source.weight = source.rounded()
        yield


def open_network(
    model: OpenedModel, *, device: Any = "cpu", precision: str = "auto", checkpointing: bool = False
) -> PlainNetwork:
    """The model as it is, all of it to be trained in float32. ``precision`` is that of matrix products."""
    network, paths = load_with_paths(baseline(model), torch.float32)
    found = PlainNetwork(model, network, paths, device, precision)
    found.prepare(checkpointing)
    return found


def open_fake_network(
    model: OpenedModel,
    start: Artifact,
    *,
    device: Any = "cpu",
    precision: str = "auto",
    checkpointing: bool = False,
    adapters: int | None = None,
    norms: bool = True,
    scale_rate: float = 1.0,
    latents: str = "start",
    seed: int = 0,
) -> FakeNetwork:
    """``model`` with the numbers of ``start``, a post-training artifact of it, and what rounds them made trainable.

    ``latents``: what the unrounded weights begin as. "start": as near to the model's as the start's codes allow, so
    that training begins with exactly the start's numbers. "baseline": the model's own, so that codes are the nearest
    ones. Where the start changed its weights before rounding (awq, smoothquant, rotations), both mean its numbers.
    ``adapters`` is the rank of matrices that are trained instead of weights, drawn from ``seed``; ``scale_rate`` the
    learning rate of scales and zero points over that of weights. Layers that the artifact keeps are not trained.
    Raises TrainingError when there is nothing in it to train.
    """
    if start.is_baseline or not start.quantized:
        raise TrainingError(f"{start.path}: none of its layers is quantized, so there is no rounding to train for")
    network, paths = load_with_paths(start, torch.float32)
    found = FakeNetwork(model, network, paths, device, precision, scale_rate)
    generator = torch.Generator().manual_seed(seed)
    inputs = SharedInputs()
    wished = _wished(model, start, latents)
    for name in start.quantized:
        module = network.get_submodule(paths[name])
        if isinstance(module, nn.Linear):
            layer = FakeLinear(start.linear(name), wished(name), module.bias, inputs, adapters, generator)
            layer = layer.to(found.device)
            parent, _, leaf = paths[name].rpartition(".")
            setattr(network.get_submodule(parent), leaf, layer)
            found.layers[name] = layer
        else:
            module.weight = nn.Parameter(start.linear(name).dequantized().float(), requires_grad=False)
    if norms:
        found.norms = _norms(model, start, network, paths)
    if start.manifest.kv_cache is not None:
        found.cache = RoundedCache(start.kv_cache(), start.manifest.kv_cache, found.device)
    found.prepare(checkpointing)
    return found


def _wished(model: OpenedModel, start: Artifact, latents: str) -> Callable[[str], tuple[Tensor | None, bool]]:
    """For each layer: the model's own weight, None where the start's speaks of another; whether to keep its codes."""
    recipe = start.manifest.recipe
    changed = bool(recipe.rotation) or start.manifest.method in CHANGES

    def of(name: str) -> tuple[Tensor | None, bool]:
        if changed:
            return None, True
        return model.files.read(f"{name}.weight").float(), latents != "baseline"

    return of


CHANGES = ("awq", "smoothquant")  # methods that move scales between layers before they round


def _norms(model: OpenedModel, start: Artifact, network: Any, paths: Mapping[str, str]) -> dict[str, FakeNorm]:
    """The gains of all norms: one-dimensional weights of modules that are neither linear layers nor tables."""
    found = {}
    for name, path in paths.items():
        module = network.get_submodule(path)
        weight = module._parameters.get("weight")
        if weight is not None and weight.dim() == 1 and not isinstance(module, nn.Linear | nn.Embedding):
            source = start.files if start.manifest.checkpoint != GGUF else model.files  # GGUF's are the model's, wider
            stored = source.read(f"{name}.weight").dtype
            found[f"{name}.weight"] = FakeNorm(module, stored)
    return found
