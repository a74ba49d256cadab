"""The parts of a model that see their numbers as stored: linear layers, and gains of norms."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantgate.errors import TrainingError
from quantgate.formats import Grid
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.train.fake import (
    Start,
    round_input,
    round_weight,
    store_as,
    stored_number,
    stored_scales,
    stored_zeros,
    within_cells,
)


@dataclass(frozen=True, eq=False)
class Trained:
    """What a layer is to be stored as: ``codec.encode(weight, grid, scales, zeros)`` are its codes."""

    weight: Tensor  # float32 [out, in], not rounded yet
    grid: Grid
    scales: Tensor  # as the grid shapes them, in the container's type
    zeros: Tensor | None  # int8, shaped like scales
    global_scale: float
    activations: Grid | None
    input_scale: Tensor | None  # [1]


@dataclass(frozen=True, eq=False)
class Wish:
    """What a layer's unrounded weight is to begin as."""

    weight: Tensor | None  # float32 [out, in]: the model's own; None: the start's numbers, which speak of another
    keep_codes: bool = True  # moved only so far that the start's codes are still its rounding


class SharedInputs:
    """Rounds what several layers read (queries, keys and values; gate and up) once for all of them."""

    def __init__(self) -> None:
        self._last = threading.local()

    def __call__(self, x: Tensor, grid: Grid, calibrated: Tensor | None, log: Tensor | None) -> Tensor:
        grad = torch.is_grad_enabled()
        asked, kept = getattr(self._last, "asked", None), None if calibrated is None else float(calibrated)
        if asked is not None and asked[0] is x and asked[1] is log and asked[2:] == (grid, kept, grad):
            return self._last.given  # type: ignore[no-any-return]
        given = round_input(x, grid, calibrated, log)
        self._last.asked, self._last.given = (x, log, grid, kept, grad), given
        return given


def share_scales(layers: Mapping[str, FakeLinear], groups: Iterable[Sequence[str]]) -> None:
    """Layers that read one input get one trained scale for it, as runtimes that fuse them have.

    ``groups``: the layers of a model by what they read.
    """
    for group in groups:
        mine = [layers[name] for name in group if name in layers and layers[name].input_log_scale is not None]
        for layer in mine[1:]:
            layer.input_log_scale = mine[0].input_log_scale


class FakeLinear(nn.Module):
    """A linear layer that sees ``weight``, set once a step to ``rounded()``, and its input as the runtime rounds it.

    Parameters: ``latent`` [out, in], the weight before rounding (frozen beside adapters, ``up`` [out, rank] and
    ``down`` [rank, in]); ``log_scale``, ``zero`` and ``input_log_scale``, see ``fake``.
    """

    def __init__(
        self,
        stored: StoredLinear,
        wished: Wish,
        bias: Tensor | None,
        inputs: SharedInputs,
        rank: int | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if stored.group_of is not None:
            raise TrainingError(
                f"{stored.name}: its groups are not columns side by side; start from an artifact of quantgate's own"
            )
        self.start = Start(stored.grid, stored.scales, stored.zeros, stored.global_scale)
        self.activations, self.inputs = stored.activations, inputs
        self.input_scale = stored.input_scale
        weight = wished.weight
        if weight is None:
            weight = stored.dequantized().float()
        elif wished.keep_codes:
            weight = within_cells(weight, stored.codes, self.start)
        self.latent = nn.Parameter(weight, requires_grad=rank is None)
        self.size = float(weight.square().mean().sqrt()) or 1.0  # root mean square before training
        self.up = self.down = None
        if rank is not None:
            out, columns = weight.shape
            rank = min(rank, out, columns)
            self.up = nn.Parameter(torch.zeros(out, rank))
            self.down = nn.Parameter(torch.randn(rank, columns, generator=generator) * columns**-0.5)
        shape = self.start.learned
        self.log_scale = nn.Parameter(torch.zeros(shape)) if shape else None
        self.zero = None if stored.zeros is None else nn.Parameter(torch.zeros(stored.zeros.shape))
        static = stored.activations is not None and stored.activations.strategy == "tensor"
        self.input_log_scale = nn.Parameter(torch.zeros(1)) if static else None
        self.bias = None if bias is None else bias.detach()
        self.in_features, self.out_features = weight.shape[1], weight.shape[0]
        self.weight = self.rounded().detach()

    def _apply(self, fn: Any, recurse: bool = True) -> FakeLinear:
        """Also move what is no parameter."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.start = self.start.to(self.latent.device)
        self.weight = self.weight.to(self.latent.device)
        self.bias = None if self.bias is None else self.bias.to(self.latent.device)
        self.input_scale = None if self.input_scale is None else self.input_scale.to(self.latent.device)
        return self

    def folded(self) -> Tensor:
        """[out, in]: the weight before rounding."""
        if self.up is None or self.down is None:
            return self.latent
        return self.latent + self.up @ self.down

    def rounded(self) -> Tensor:
        """float32 [out, in]: what the container will decode to."""
        return round_weight(self.folded(), self.start, self.log_scale, self.zero)

    def forward(self, x: Tensor) -> Tensor:
        if self.activations is not None:
            x = self.inputs(x, self.activations, self.input_scale, self.input_log_scale)
        return F.linear(x, self.weight, self.bias)

    def direct(self) -> dict[str, nn.Parameter]:
        """Parameters that act where they stand: their gradients do not wait for the end of the step."""
        return {} if self.input_log_scale is None else {"input_log_scale": self.input_log_scale}

    @staticmethod
    def kind(leaf: str) -> str:
        """The group that a parameter learns with."""
        return {"latent": "weights", "up": "adapters", "down": "adapters"}.get(leaf, "scales")

    @torch.no_grad()
    def trained(self) -> Trained:
        scales = self.start.scales if self.log_scale is None else stored_scales(self.start, self.log_scale)
        zeros, given = stored_zeros(self.start, self.zero), self.input_scale
        if given is not None and self.input_log_scale is not None:
            given = stored_number(given, self.input_log_scale)
        return Trained(
            self.folded().detach().cpu().clone(),
            self.start.grid,
            scales.cpu(),
            None if zeros is None else zeros.cpu(),
            self.start.global_scale,
            self.activations,
            None if given is None else given.cpu(),
        )


class FakeNorm:
    """A norm whose gain is trained in float32 and seen as it is stored."""

    def __init__(self, module: nn.Module, stored: torch.dtype) -> None:
        self.module, self.dtype = module, stored
        self.gain = nn.Parameter(module.get_parameter("weight").detach().clone())
        del module._parameters["weight"]
        self.weight = self.rounded().detach()

    @property
    def weight(self) -> Tensor:
        """What the module multiplies by."""
        return self.module.weight  # type: ignore[return-value]

    @weight.setter
    def weight(self, gain: Tensor) -> None:
        self.module.weight = gain

    def rounded(self) -> Tensor:
        return store_as(self.gain, self.dtype)

    @torch.no_grad()
    def stored(self) -> Tensor:
        return self.gain.detach().to(self.dtype).cpu()
