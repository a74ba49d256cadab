"""Before anything slow: which layer of which variant gets what, and every reason to refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from pydantic import Field

from quantgate.errors import FormatError, UnknownName, UsageError, hint
from quantgate.formats import BlockGrid, Fp4Grid, Grid, Scheme, scheme
from quantgate.formats.schemes import KV_CACHES
from quantgate.models import OpenedModel
from quantgate.models.tensors import torch_dtype
from quantgate.quantize import checkpoints, methods
from quantgate.quantize.ends import Ends
from quantgate.quantize.ends import resolve as resolve_ends
from quantgate.quantize.gguf.plan import FilePlan, file_plan
from quantgate.quantize.manifest import ALWAYS_KEPT, BASELINE, CONTAINER, QAT, Note, Recipe
from quantgate.quantize.methods._scaling import ScalingMethod
from quantgate.quantize.rotate import check_rotation, unties
from quantgate.records import Record, parse

# Measured on the reference model, layers of 256 and 768 columns: GPTQ on 128 tokens of one text loses 0.6 to 1.3 times
# what plain rounding loses on other texts, on 512 tokens 0.4 to 1.4 times, on 2,048 tokens 0.2 to 0.6 times.
MIN_EXPERT_TOKENS = 512


class ExpertOptions(Record):
    """Keys of a recipe's ``options`` that every method takes, for models with experts (see ``experts``)."""

    min_expert_tokens: int = Field(default=MIN_EXPERT_TOKENS, ge=1)  # an expert that was given fewer is starved
    starved: Literal["rtn", "keep"] = "rtn"

    @property
    def consequence(self) -> str:
        return "left at full precision" if self.starved == "keep" else "rounded without them"


@dataclass(frozen=True)
class Variant:
    """A recipe with every name in it resolved against one model."""

    recipe: Recipe
    scheme: Scheme
    grid: Grid  # of the weights
    method_name: str
    method: methods.Method
    options: Any  # the method's Options
    kept: dict[str, str]  # linear layer -> why it stays at full precision
    container: checkpoints.Checkpoint
    experts: ExpertOptions
    ends: Ends  # its embedding table and output layer
    schemes: dict[str, Scheme] = field(default_factory=dict)  # linear layers with another one than ``scheme``
    file: FilePlan | None = None  # of a GGUF variant

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def format(self) -> str:
        return format_name(self.grid)

    def at(self, layer: str) -> Variant:
        """The variant as one layer has it."""
        found = self.schemes.get(layer, self.scheme)
        return (
            self if found == self.scheme or found.weights is None else replace(self, scheme=found, grid=found.weights)
        )

    def job(self, layer: str, weight: torch.Tensor, stored: str, reach: float) -> methods.Job:
        """``stored`` is safetensors' word for the type the model has the weight in; scales get the same.

        ``reach``: the largest magnitude among the layers that runtimes fuse with this one.
        """
        scales, grid = self.container.scale_dtype(torch_dtype(stored)), self.at(layer).grid
        return methods.Job(weight, grid, self.options, layer, scales, self.container.least_scale, reach)

    def notes(self) -> tuple[Note, ...]:
        """The ledger's lines that are known before the start."""
        return tuple(
            Note(tensor=layer, event="fused" if "shares its input" in why else "kept", detail=why)
            for layer, why in sorted(self.kept.items())
        )


def plan(model: OpenedModel, recipes: Sequence[Recipe], *, calibrated: bool) -> list[Variant]:
    """Variants in the order of the recipes, the baseline left out.

    Raises UsageError (two recipes with one name, unknown scheme, method, option or keep pattern, a method that needs a
    calibration set without one) and FormatError (groups that do not divide, a scheme that the container cannot hold).
    """
    for name, count in Counter(recipe.name for recipe in recipes).items():
        if count > 1:
            raise UsageError(f"recipe '{name}': {count} recipes have this name; give them different labels")
    layers = [[group for group in model.linears(block)] for block in range(model.depth)]
    return [_resolve(model, recipe, layers, calibrated) for recipe in recipes if recipe.scheme.upper() != BASELINE]


def usual_method(found: Scheme) -> str:
    """GPTQ where rounding hurts, at four bits and fewer, and in GGUF's blocks; round-to-nearest above."""
    grid = found.weights
    if isinstance(grid, BlockGrid):
        return "gptq"
    return "gptq" if grid is not None and grid.bits <= 4 else "rtn"


def format_name(grid: Grid) -> str:
    """A format in words: ``int4 g128``, ``int8 per channel``, ``fp8 per channel``, ``int4 g64 asymmetric``."""
    if isinstance(grid, BlockGrid):
        return grid.name
    if isinstance(grid, Fp4Grid):
        return f"fp4 g{grid.group_size}, scales {'fp8' if grid.scales == 'fp8' else 'powers of two'}"
    sizes = {"group": f"g{grid.group_size}", "block": f"blocks of {grid.group_size} x {grid.group_size}"}
    reach = sizes.get(grid.strategy, f"per {grid.strategy}")
    if grid.type == "int" and grid.signs:
        return f"signs {reach}, stored in 2 bits"
    kind = "fp" if grid.type == "float" else "int"
    return f"{kind}{grid.bits} {reach}{'' if grid.symmetric else ' asymmetric'}"


def _resolve(model: OpenedModel, recipe: Recipe, blocks: list[list[list[str]]], calibrated: bool) -> Variant:
    where = f"recipe '{recipe.name}'"
    found = scheme(recipe.scheme, group_size=recipe.group_size, symmetric=recipe.symmetric, where=where)
    container = checkpoints.get(recipe.container, where=where)
    reason = container.refuse(found)
    if found.weights is None or reason:
        raise FormatError(
            f"{where}: the container {recipe.container} cannot hold {found.label}: {reason}; choose another scheme"
        )
    name = recipe.method or usual_method(found)
    if name == QAT:
        raise UsageError(
            f"{where}: method {QAT} trains, which a sweep does not; run 'quantgate train qat', or name it in a "
            "release.yaml"
        )
    method = methods.get(name, where=where)
    of_experts = {key: value for key, value in recipe.options.items() if key in ExpertOptions.model_fields}
    of_method = {key: value for key, value in recipe.options.items() if key not in of_experts}
    if of_experts and not model.has_experts:
        raise UsageError(f"{where}: {model.ref} has no experts; remove '{next(iter(of_experts))}' from its options")
    experts = parse(ExpertOptions, of_experts, where=f"{where}, options")
    options = parse(method.Options, of_method, where=f"{where}, options of {name}")
    if method.needs_stats and not calibrated:
        raise UsageError(f"{where}: method {name} needs a calibration set; give one, or say method: rtn")
    if found.calibrated and not calibrated:
        raise UsageError(
            f"{where}: {found.label} rounds activations with numbers from a calibration set; give one, or choose "
            "FP8_DYNAMIC, W8A8 or MXFP4, which need none"
        )
    _check_cache(recipe, method, where, calibrated=calibrated)
    if recipe.rotation:
        _check_rotation(model, found, method, where, calibrated=calibrated)
        if getattr(options, "propagate", False):
            raise FormatError(
                f"{where}: a stream of its own (propagate) is not measured in rotated channels; leave out either"
            )
    kept = kept_layers(model, recipe, blocks, where)
    if isinstance(found.weights, BlockGrid):
        if isinstance(method, ScalingMethod) or name == "hqq":
            raise FormatError(f"{where}: method {name} has no search for the scales of blocks; choose gptq or rtn")
        file = file_plan(model, recipe, kept, where, calibrated=calibrated)
        return Variant(
            recipe, found, found.weights, name, method, options, kept | file.kept, container, experts, file.ends,
            file.schemes, file,
        )  # fmt: skip
    layers = [layer for block in blocks for group in block for layer in group]
    _check_groups(model, found.weights, layers, kept, where)
    for layer in layers:
        out, columns = model.files.entry(f"{layer}.weight").shape
        if layer not in kept and (reason := container.refuse_layer(found, out, columns)):
            raise FormatError(f"{where}: {layer}: {reason}; list '{layer.rpartition('.')[2]}' under keep")
    ends = resolve_ends(model, recipe, found, container, where)
    if recipe.rotation:
        ends = _rotated_ends(model, ends, where)
    return Variant(recipe, found, found.weights, name, method, options, kept, container, experts, ends)


def _check_cache(recipe: Recipe, method: methods.Method, where: str, *, calibrated: bool) -> None:
    if not recipe.kv_cache:
        return
    if recipe.kv_cache not in KV_CACHES:
        raise UnknownName("kv_cache", recipe.kv_cache, tuple(KV_CACHES), where=where)
    if recipe.container != CONTAINER:
        raise FormatError(
            f"{where}: the container {recipe.container} has no place for a KV cache; leave kv_cache or container out"
        )
    measured = KV_CACHES[recipe.kv_cache].strategy == "tensor"
    if measured and not calibrated:
        raise UsageError(f"{where}: a KV cache in {recipe.kv_cache} needs a calibration set; give one, or choose int8")
    if measured and isinstance(method, ScalingMethod):
        raise FormatError(
            f"{where}: folded channel scales move the values that a KV cache in {recipe.kv_cache} was measured on; "
            "choose method gptq or rtn, or kv_cache int8"
        )


def _check_rotation(model: OpenedModel, found: Scheme, method: methods.Method, where: str, *, calibrated: bool) -> None:
    if isinstance(method, ScalingMethod):
        raise FormatError(
            f"{where}: channel scales would be folded into the norms whose gains a rotation folds away; "
            "choose method gptq, rtn or hqq, or leave rotation out"
        )
    if found.calibrated:
        raise FormatError(
            f"{where}: {found.label} needs the largest numbers of each input, which are not measured in rotated "
            "channels; choose FP8_DYNAMIC, W8A8, W4A8 or MXFP4, or leave rotation out"
        )
    check_rotation(model, where, calibrated=calibrated)


def _rotated_ends(model: OpenedModel, ends: Ends, where: str) -> Ends:
    """Both ends are turned with the stream; a tied head whose norm weighs its channels becomes a tensor of its own."""
    if ends.coded:
        raise FormatError(
            f"{where}: the embeddings and the output layer are turned with the stream and then kept; leave out "
            "lm_head and embeddings, or rotation"
        )
    return replace(ends, untied=True) if ends.tied and unties(model) else ends


def kept_layers(model: OpenedModel, recipe: Recipe, blocks: list[list[list[str]]], where: str) -> dict[str, str]:
    """Linear layers that stay, with the reason. Layers that share an input stay together: runtimes fuse them."""
    kept: dict[str, str] = {}
    used: set[str] = set(ALWAYS_KEPT)
    for block in blocks:
        for group in block:
            patterns = {layer: recipe.kept_by(layer) for layer in group}
            named = [layer for layer in group if patterns[layer] is not None]
            for layer in group:
                if patterns[layer] is not None:
                    used.add(str(patterns[layer]))
                    kept[layer] = f"'{patterns[layer]}' is on the keep list"
                elif named:
                    kept[layer] = f"shares its input with {named[0]}, which is kept, and runtimes fuse the two"
    every = [layer for block in blocks for group in block for layer in group]
    for pattern in recipe.keep:
        if pattern not in used and not any(
            Recipe(scheme=BASELINE, keep=(pattern,)).kept_by(layer) == pattern for layer in every
        ):
            leaves = sorted({layer.rpartition(".")[2] for layer in every})
            raise UsageError(
                f"{where}: keep: '{pattern}' matches no linear layer of {model.ref}; {hint(pattern, leaves)}"
            )
    return kept


def _check_groups(model: OpenedModel, grid: Grid, layers: list[str], kept: dict[str, str], where: str) -> None:
    """Raises FormatError naming every kind of layer whose columns do not divide into the grid's groups."""
    size = grid.group_size
    if size is None:
        return
    columns_of, outputs_of = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for layer in layers:
        out, columns = model.files.entry(f"{layer}.weight").shape
        if layer not in kept and columns % size:
            columns_of[layer.rpartition(".")[2], columns] += 1
        if layer not in kept and grid.strategy == "block" and out % size:
            outputs_of[layer.rpartition(".")[2], out] += 1
    if columns_of:
        shown, leaves = _shown(columns_of, "columns")
        raise FormatError(
            f"{where}: the input columns of {shown} do not divide into groups of {size}; "
            f"choose a group that divides them, or list {leaves} under keep"
        )
    if outputs_of:
        shown, leaves = _shown(outputs_of, "outputs")
        raise FormatError(
            f"{where}: the outputs of {shown} do not divide into blocks of {size}; list {leaves} under keep"
        )


def _shown(found: Counter[tuple[str, int]], side: str) -> tuple[str, str]:
    """``k_proj (64 columns, 2 layers), ...`` and ``'k_proj', ...``."""
    shown = ", ".join(f"{leaf} ({number} {side}, {count} layers)" for (leaf, number), count in sorted(found.items()))
    return shown, ", ".join(f"'{leaf}'" for leaf in sorted({leaf for leaf, _ in found}))
