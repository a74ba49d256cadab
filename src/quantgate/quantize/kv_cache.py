"""Rounded key/value caches: the scales that a calibration set gives, how they are stored, and how they round.

``fp8`` has one scale for the keys and one for the values of each layer, found on the calibration set and stored where
runtimes look for them: ``<attention>.k_scale`` and ``.v_scale``. ``int8`` and ``int4`` have a scale for every token and
head, made when the token is cached; they have no numbers to store.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantgate.errors import ArtifactError, BadTensor
from quantgate.formats import Grid
from quantgate.formats.codec import quantize_activations
from quantgate.formats.grids import FP8_MAX
from quantgate.formats.schemes import KV_CACHES
from quantgate.models.tensors import TensorFiles

SIDES = ("k", "v")


class Ranges:
    """Stands where a block expects its cache: passes keys and values on, and remembers the largest of each."""

    def __init__(self) -> None:
        self.largest = {side: 0.0 for side in SIDES}
        self.real: Tensor | None = None  # [batch, tokens], False where padded; None: all real

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys (rotated already) and values, each [batch, heads, tokens, width]."""
        for side, states in zip(SIDES, (keys, values), strict=True):
            seen = states.abs().amax(dim=(1, 3))
            seen = seen if self.real is None else seen[self.real.to(seen.device)]
            self.largest[side] = max(self.largest[side], float(seen.max()))
        return keys, values

    def scales(self, attention: str, format: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """The tensors that the format stores for a layer. Raises BadTensor when there is no range to store."""
        if KV_CACHES[format].strategy != "tensor":
            return {}
        for side, largest in self.largest.items():
            if not 0 < largest < float("inf"):
                raise BadTensor(
                    f"{attention}: the largest magnitude of its {side} is {largest} on the calibration set, so the "
                    "KV cache has no scale; leave 'kv_cache' out, or check the weights"
                )
        found = {side: torch.tensor([self.largest[side] / FP8_MAX], dtype=dtype) for side in SIDES}
        return {f"{attention}.{side}_scale": scale for side, scale in found.items()}


class Rounding:
    """What the cache of one layer does to keys and values."""

    def __init__(self, format: str, scales: tuple[Tensor, Tensor] | None) -> None:
        self.grid: Grid = KV_CACHES[format]
        self.scales = scales or (None, None)

    def __call__(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Both [batch, heads, tokens, width], in their own dtype."""
        rounded = [
            quantize_activations(states, self.grid, None if scale is None else scale.to(states.device))
            for states, scale in zip((keys, values), self.scales, strict=True)
        ]
        return rounded[0], rounded[1]


def attention_of(groups: list[list[str]]) -> str:
    """The attention module of a block with these groups of linear layers: the first ones are its."""
    return groups[0][0].rpartition(".")[0]


def roundings(files: TensorFiles, attentions: list[str], format: str) -> list[Rounding]:
    """One for each layer, with the stored scales. Raises ArtifactError when they are not there."""
    if KV_CACHES[format].strategy != "tensor":
        return [Rounding(format, None) for _ in attentions]
    found = list[Rounding]()
    for attention in attentions:
        names = [f"{attention}.{side}_scale" for side in SIDES]
        for name in names:
            if name not in files.entries:
                raise ArtifactError(f"{name}: is not stored, though the KV cache is {format}; make the artifact again")
        keys, values = (files.read(name) for name in names)
        found.append(Rounding(format, (keys, values)))
    return found
