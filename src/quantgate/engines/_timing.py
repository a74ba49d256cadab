"""What one decoded token costs in a linear layer: the engine's own kernels, timed on this machine, one row at a time.

A token at batch 1 passes through every layer once, so it finds in the cache what the other layers left of it. Layers
are therefore timed in turns, as many of a shape as the model has, up to SPREAD bytes of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from quantgate.engines._linears import build
from quantgate.formats import Scheme
from quantgate.formats.codec import encode, scales_for
from quantgate.quantize.checkpoints import StoredLinear

SPREAD = 1 << 26  # bytes of bfloat16 weights that are gone through in turns
ROUNDS = 15  # whose median counts
SHORTEST = 2e-3  # seconds that a round takes at least, so that the clock can tell

Shape = tuple[int, int]  # out, in


def token_seconds(
    shapes: Mapping[Shape, int], schemes: Sequence[Scheme | None], *, device: str = "cpu", kernels: str = "auto"
) -> dict[tuple[Shape, int], float]:
    """Seconds of one layer for one token, by its shape and the place of the scheme; None is bfloat16 itself.

    ``shapes`` says how many layers of each [out, in] the model has. The median of ROUNDS, after first ones that warm
    up, of what ``build`` takes for the scheme.
    """
    found = dict[tuple[Shape, int], float]()
    with torch.inference_mode():
        for shape, count in shapes.items():
            copies = max(1, min(count, SPREAD // (2 * shape[0] * shape[1])))
            weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / shape[1] ** 0.5
            row = torch.randn(1, shape[1]).to(device=device, dtype=torch.bfloat16)
            for at, scheme in enumerate(schemes):
                layers = [_layer(weight, scheme, device, kernels) for _ in range(copies)]
                found[shape, at] = _median(layers, row)
    return found


def _layer(weight: Tensor, scheme: Scheme | None, device: str, kernels: str) -> nn.Module:
    if scheme is None or scheme.weights is None:
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.bfloat16, device=device)
        plain.weight.copy_(weight)
        return plain
    scales, zeros = scales_for(weight, scheme.weights)
    codes = encode(weight, scheme.weights, scales, zeros)
    stored = StoredLinear("layer", codes, scales, zeros, scheme.weights, scheme.activations)
    if scheme.calibrated:
        stored = replace(stored, input_scale=torch.ones(1, dtype=torch.bfloat16))
    return build(stored, torch.bfloat16, torch.device(device), kernels)[0].to(device)


def _median(layers: Sequence[nn.Module], row: Tensor) -> float:
    turns = 1
    while (spent := _round(layers, row, turns)) < SHORTEST:
        turns = max(turns + 1, int(turns * min(10.0, 1.2 * SHORTEST / max(spent, 1e-9))))
    return statistics.median(_round(layers, row, turns) for _ in range(ROUNDS)) / (turns * len(layers))


def _round(layers: Sequence[nn.Module], row: Tensor, turns: int) -> float:
    if row.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(turns):
        for layer in layers:
            layer(row)
    if row.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began
