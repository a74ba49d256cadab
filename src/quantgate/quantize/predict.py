"""What a sweep will write, known before it starts: every size follows from shapes, grids and the container."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from quantgate.formats import Scheme
from quantgate.models import OpenedModel
from quantgate.models.tensors import torch_dtype
from quantgate.quantize import checkpoints
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.ends import Part, sentences
from quantgate.quantize.manifest import Recipe
from quantgate.quantize.plan import Variant, format_name, plan


@dataclass(frozen=True)
class Predicted:
    """One variant, as it will be on disk."""

    name: str
    format: str  # of the quantized layers, in words
    method: str
    layers: int  # quantized
    kept: int  # linear layers left alone
    tensor_bytes: int  # all tensors of the artifact
    bits_per_weight: float  # over the quantized layers, scales and zero points included
    ends: tuple[str, ...]  # what becomes of the embedding table and the output layer, by which rule, in words


def predict(model: OpenedModel, recipes: Sequence[Recipe], *, calibrated: bool) -> list[Predicted]:
    """The artifacts that ``sweep`` would write, in order. Raises what it would raise before anything slow."""
    return [_variant(model, variant) for variant in plan(model, recipes, calibrated=calibrated)]


def _variant(model: OpenedModel, variant: Variant) -> Predicted:
    layers = [layer for block in range(model.depth) for group in model.linears(block) for layer in group]
    solved = [f"{layer}.weight" for layer in layers if layer not in variant.kept]
    total = codes = weights = 0
    file = variant.file
    for name in solved:
        entry = model.files.entry(name)
        out, columns = entry.shape
        whole, packed = stored_size(variant.at(name.removesuffix(".weight")), (out, columns), entry.dtype)
        total, codes, weights = total + whole, codes + packed, weights + entry.weights
    held = dict(model.files.entries)
    parts = list[Part]()
    for name, scheme in variant.ends.coded.items():
        entry, grid = held[variant.ends.source(name)], scheme.weights
        assert grid is not None  # resolve
        out, columns = entry.shape
        size, plain = stored_size(replace(variant, scheme=scheme, grid=grid), (out, columns), entry.dtype)
        total, codes, weights = total + size, codes + plain, weights + entry.weights
        parts.append(Part(name, format_name(grid), plain))
    held |= variant.ends.copied(held)
    rest = set(held) - set(solved) - {f"{name}.weight" for name in variant.ends.coded}
    total += sum(held[name].size for name in rest)
    for name in (variant.ends.table, variant.ends.head):
        if f"{name}.weight" in rest:
            entry = held[f"{name}.weight"]
            parts.append(Part(name, entry.dtype.lower(), entry.size))
    if file is not None:
        total = file.tensor_bytes
    return Predicted(
        name=variant.name,
        format=variant.format,
        method=variant.method_name,
        layers=len(solved) + len(variant.ends.coded),
        kept=len(variant.kept),
        tensor_bytes=total,
        bits_per_weight=8 * codes / weights if weights else 0.0,
        ends=sentences(variant.ends, parts, total),
    )


def stored_size(variant: Variant, shape: tuple[int, int], word: str) -> tuple[int, int]:
    """Bytes of a layer [out, in], with and without the constant few that tell its shape.

    ``word`` is safetensors' for the type that the model has it in. The scheme's container packs as many zeros.
    """
    return _packed(variant.scheme, variant.recipe.container, shape, torch_dtype(word))


@cache
def _packed(scheme: Scheme, name: str, shape: tuple[int, int], dtype: torch.dtype) -> tuple[int, int]:
    container, grid = checkpoints.get(name), scheme.weights
    assert grid is not None  # a variant quantizes something
    out, columns = shape
    scales = grid.scales_shape(out, columns)
    stored = {"fp4": torch.float32, "ggml": torch.uint8}.get(grid.type) or container.scale_dtype(dtype)
    layer = StoredLinear(
        "layer",
        torch.zeros(out, columns, dtype=torch.float8_e4m3fn if grid.type == "float" else torch.int8),
        torch.ones(scales, dtype=stored),
        None if grid.symmetric else torch.zeros(scales, dtype=torch.int8),
        grid,
        scheme.activations,
        input_scale=torch.ones(1, dtype=stored) if scheme.calibrated else None,
    )
    tensors = container.pack(layer).values()
    return sum(one.nbytes for one in tensors), sum(one.nbytes for one in tensors if one.dtype != torch.int64)
