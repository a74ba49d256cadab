"""A transformers model that can be trained: as it is, or with its numbers as an artifact will hold them.

    with network.step():                          # every weight is rounded once, here
        loss_of(network.logits(ids, counted)).backward()
    # gradients of scales and of unrounded weights are in ``grad`` now

Any architecture that quantgate walks is trained. Rows are padded on the right; attention is causal, so no real token
sees the padding. A rounded weight is a leaf for all batches of a step, and its summed gradient goes through the
rounding once, on leaving: rounding costs the same for one batch and for twenty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quantgate.errors import TrainingError
from quantgate.models import OpenedModel
from quantgate.quantize.artifact import Artifact, baseline
from quantgate.quantize.checkpoints import DecodedLinear
from quantgate.quantize.load import load_with_paths
from quantgate.quantize.manifest import GGUF
from quantgate.train import Group
from quantgate.train._cache import RoundedCache
from quantgate.train._fake_network import FakeBlock, FakeNetwork
from quantgate.train._layers import FakeLinear, FakeNorm, SharedInputs, Trained, Wish, share_scales
from quantgate.train._running import Running

__all__ = ["FakeBlock", "FakeNetwork", "PlainNetwork", "Trained", "open_fake_network", "open_network"]

CHANGES = ("awq", "smoothquant")  # methods that move scales between layers before they round


class PlainNetwork(Running):
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
        stored, module = start.linear(name), network.get_submodule(paths[name])
        if isinstance(stored, DecodedLinear) or not isinstance(module, nn.Linear):
            module.get_parameter("weight").data.copy_(
                stored.dequantized().float()
            )  # in place: a head may be tied to it
            continue
        layer = FakeLinear(stored, wished(name), module.bias, inputs, adapters, generator).to(found.device)
        parent, _, leaf = paths[name].rpartition(".")
        setattr(network.get_submodule(parent), leaf, layer)
        found.layers[name] = layer
    share_scales(found.layers, (group for at in range(model.depth) for group in model.linears(at)))
    if norms:
        found.norms = _norms(model, start, network, paths)
    if start.manifest.kv_cache is not None:
        found.cache = RoundedCache(start.kv_cache(), start.manifest.kv_cache, found.device)
    found.prepare(checkpointing)
    return found


def _wished(model: OpenedModel, start: Artifact, latents: str) -> Callable[[str], Wish]:
    """What the unrounded weight of each layer should be."""
    changed = bool(start.manifest.recipe.rotation) or start.manifest.method in CHANGES

    def of(name: str) -> Wish:
        if changed:
            return Wish(None)
        source = name if f"{name}.weight" in model.files.entries else model.walker.table  # an untied output layer
        return Wish(model.files.read(f"{source}.weight").float(), keep_codes=latents == "start")

    return of


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
