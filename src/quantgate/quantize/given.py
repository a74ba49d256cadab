"""Weights and scales that were trained become an artifact of real codes, like any that a sweep makes.

    write_given(model, recipe, {layer: Given, ...}, {"model.norm.weight": gain}, out, training=..., start=start, ...)

Training starts from a post-training artifact of the same recipe. What it did not train stays as it was there: kept
layers, coded embeddings, folded channel scales, rotated ends. Codes are chosen by ``codec.encode`` and packed by the
container, and each packed layer is read back before anything is named: the artifact decodes to exactly the numbers that
training computed with, or there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from pydantic import JsonValue
from torch import Tensor

from quantgate.errors import FormatError, UsageError, hint
from quantgate.formats import BlockGrid, Fp4Grid, Grid, Scheme
from quantgate.formats.codec import decode, encode
from quantgate.models import OpenedModel
from quantgate.models.tensors import Entry, TensorFiles, finite, torch_dtype
from quantgate.quantize.artifact import Artifact, kept, open_artifact
from quantgate.quantize.assemble import assemble
from quantgate.quantize.checkpoints import Checkpoint, StoredLinear
from quantgate.quantize.gguf.publish import kept_in_file
from quantgate.quantize.journal import Journal, Piece, refuse_strangers
from quantgate.quantize.manifest import BASELINE, CONTAINER, GGUF, QAT, Calibration, Fate, Note, Recipe, Training
from quantgate.quantize.plan import Variant, plan

CARRIED = ("scaling", "scaling_gain", "rotated")  # facts of a layer that say what its input is; training keeps that
MOVED = "trained"  # why a norm is not the model's
CACHE = "a scale of the KV cache"


class Given(Protocol):
    """A layer as it was trained. ``codec.encode(weight, grid, scales, zeros)`` are its codes."""

    @property
    def weight(self) -> Tensor: ...  # float32 [out, in], not rounded

    @property
    def grid(self) -> Grid: ...

    @property
    def scales(self) -> Tensor: ...  # as the grid shapes them, in the container's type

    @property
    def zeros(self) -> Tensor | None: ...  # int8, shaped like scales; None when symmetric

    @property
    def global_scale(self) -> float: ...  # NVFP4's divisor of all scales

    @property
    def input_scale(self) -> Tensor | None: ...  # [1]: what activations need from the calibration set


@dataclass
class _Made:
    """What goes into the artifact that is not the model's own."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    copied: dict[str, Entry] = field(default_factory=dict)
    fates: dict[str, Fate] = field(default_factory=dict)


def write_given(
    model: OpenedModel,
    recipe: Recipe,
    given: Mapping[str, Given],
    others: Mapping[str, Tensor],
    out: Path | str,
    *,
    training: Training,
    inputs: str,
    start: Artifact | None = None,
    calibration: Calibration | None = None,
    ledger: Sequence[Note] = (),
    device: str = "cpu",
    seed: int = 0,
) -> Artifact:
    """The artifact ``out/<recipe name>`` of trained layers.

    ``given``: by the artifact's names of linear layers. ``others``: tensors by name that training moved as well, norms
    and scales of the KV cache. What is in neither comes from ``start``, or is the model's own where there is none.
    ``inputs``: digest of everything that decided the bytes.

    Raises UsageError and FormatError for a recipe that cannot be, layers that are none, numbers that the container
    cannot hold; BadTensor for NaN and Inf; ArtifactError for a foreign folder in the way; DiskFull with nothing named.
    """
    variant = trained_variant(model, recipe)
    out = Path(out)
    refuse_strangers(out, [variant.name])
    _check(model, variant, given, start)
    made = _Made()
    for layer, one in given.items():
        _add(made, model, variant, layer, one, None if start is None else start.coded.get(layer))
    if start is not None:
        _carry(made, start)
    for tensor, numbers in others.items():
        _move(made, model, variant, tensor, numbers)
    notes = variant.notes() if start is None else start.manifest.ledger
    told = dict.fromkeys((*(note for note in notes if note.tensor not in given), *ledger))
    journal = Journal(out, inputs)
    try:
        journal.open()
        journal.begin(0)
        journal.write(0, variant.name, made.tensors, Piece(fates=tuple(made.fates.values()), ledger=()))
        assemble(
            journal.whole(variant.name),
            model,
            variant,
            made.copied | journal.tensors(0, variant.name),
            made.fates,
            calibration=calibration,
            inputs=inputs,
            device=device,
            seed=seed,
            ledger=tuple(told),
            training=training,
        )
        return open_artifact(journal.publish(variant.name), verify=False)
    finally:
        journal.close()


def trained_variant(model: OpenedModel, recipe: Recipe) -> Variant:
    """``recipe``, whose method is qat, resolved against ``model``. Raises UsageError and FormatError, as a sweep's."""
    if recipe.method != QAT:
        raise UsageError(f"recipe '{recipe.name}': its method is '{recipe.method}', and what is trained has {QAT}")
    if recipe.scheme.upper() == BASELINE:
        raise UsageError(f"recipe '{recipe.name}': {BASELINE} rounds nothing, so there is nothing to train for")
    plain = recipe.model_copy(update={"method": "rtn", "options": {}, "label": recipe.name})
    (variant,) = plan(model, [plain], calibrated=True)
    return replace(variant, recipe=recipe, method_name=QAT)


def _check(model: OpenedModel, variant: Variant, given: Mapping[str, Given], start: Artifact | None) -> None:
    where = f"recipe '{variant.name}'"
    every = [layer for block in range(model.depth) for group in model.linears(block) for layer in group]
    for layer in given:
        if layer not in every and layer not in variant.ends.coded:
            raise UsageError(f"{where}: '{layer}' is not a linear layer of {model.ref}; {hint(layer, every)}")
        if layer in variant.kept:
            raise UsageError(f"{where}: {layer} is not to be quantized: {variant.kept[layer]}")
    if start is not None:
        _check_start(model, variant, start)
        return
    if variant.recipe.rotation:
        raise UsageError(f"{where}: a rotated recipe is trained from a rotated artifact; give one as start")
    wanted = [layer for layer in every if layer not in variant.kept]
    wanted += [] if variant.file is not None else list(variant.ends.coded)
    if missing := [layer for layer in wanted if layer not in given]:
        raise UsageError(
            f"{where}: nothing is given for {missing[0]}" + (f" and {len(missing) - 1} others" * (len(missing) > 1))
            + "; give all layers, or the artifact that training started from"
        )  # fmt: skip


def _check_start(model: OpenedModel, variant: Variant, start: Artifact) -> None:
    own = {"method", "options", "label"}
    alike = [key for key in Recipe.model_fields if key not in own]
    asked, was = variant.recipe, start.manifest.recipe
    if start.manifest.model.weights != model.weights_digest:
        raise UsageError(f"recipe '{variant.name}': {start.path} was made from another model than {model.ref}")
    for key in alike:
        if getattr(asked, key) != getattr(was, key):
            raise UsageError(
                f"recipe '{variant.name}': {key} is {getattr(asked, key)!r}, and training started from {start.path}, "
                f"where it is {getattr(was, key)!r}"
            )


def _add(made: _Made, model: OpenedModel, variant: Variant, layer: str, one: Given, was: Fate | None) -> None:
    """Encode and pack one layer; ``was``: what it was before training."""
    variant = _at(variant, layer)
    source = variant.ends.source(layer) if layer in variant.ends.coded else f"{layer}.weight"
    _check_given(model, variant, layer, source, one)
    tensors, rounded = packed(variant.container, variant.scheme, layer, one)
    told: dict[str, JsonValue] = {key: was.facts[key] for key in CARRIED if was is not None and key in was.facts}
    lost = float((rounded - one.weight).square().sum() / one.weight.square().sum().clamp(min=1e-30))
    made.tensors |= tensors
    made.fates[layer] = Fate(
        name=layer,
        asked=variant.format,
        got=variant.format,
        scheme=variant.scheme.label,
        weight_error=lost,
        weights=one.weight.numel(),
        bytes=sum(tensor.nbytes for tensor in tensors.values() if tensor.dtype != torch.int64),
        tensors=tuple(sorted(tensors)),
        facts={"asked": QAT, "method": QAT, **told},
    )


def packed(container: Checkpoint, scheme: Scheme, layer: str, one: Given) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors that a layer becomes, and the float32 numbers [out, in] that they decode to, exactly.

    Raises FormatError when the container would hold other numbers.
    """
    codes = encode(one.weight, one.grid, one.scales, one.zeros)
    stored = StoredLinear(
        layer, codes, one.scales, one.zeros, one.grid, scheme.activations,
        global_scale=one.global_scale, input_scale=one.input_scale,
    )  # fmt: skip
    tensors, rounded = container.pack(stored), decode(codes, one.grid, one.scales, one.zeros)
    again = container.unpack(layer, tensors.__getitem__, scheme, None)
    if not torch.equal(decode(again.codes, again.grid, again.scales, again.zeros), rounded):
        raise FormatError(
            f"{layer}: the container {container.name} stores other numbers than were trained; its scales and zero "
            "points must be rounded as it stores them before they are given"
        )
    return tensors, rounded


def _at(variant: Variant, layer: str) -> Variant:
    """The variant as one layer, or one end, has it."""
    scheme = variant.ends.coded.get(layer)
    if scheme is None or scheme.weights is None:
        return variant.at(layer)
    return replace(variant, scheme=scheme, grid=scheme.weights)


def _check_given(model: OpenedModel, variant: Variant, layer: str, source: str, one: Given) -> None:
    entry = model.files.entry(source)
    if tuple(one.weight.shape) != tuple(entry.shape):
        raise FormatError(f"{layer}: its trained weight is {list(one.weight.shape)}, the model's {list(entry.shape)}")
    if one.grid != variant.grid:
        raise FormatError(f"{layer}: was trained for {one.grid!r}, and {variant.scheme.label} stores {variant.grid!r}")
    finite(one.weight, layer, Path("trained weights"))
    if isinstance(one.grid, BlockGrid):
        return
    finite(one.scales.float(), f"{layer}: scales", Path("trained weights"))
    wanted = torch.float32 if isinstance(one.grid, Fp4Grid) else variant.container.scale_dtype(torch_dtype(entry.dtype))
    shape = one.grid.scales_shape(*one.weight.shape)
    if variant.recipe.container != CONTAINER and one.scales.dtype == torch.float16:
        wanted = torch.float16  # as these containers store them
    if one.scales.dtype != wanted or tuple(one.scales.shape) != tuple(shape):
        raise FormatError(
            f"{layer}: its scales are {one.scales.dtype} {list(one.scales.shape)}, and the container "
            f"{variant.recipe.container} stores {wanted} {list(shape)}; round them to it in training"
        )
    if variant.scheme.calibrated and one.input_scale is None:
        raise FormatError(f"{layer}: {variant.scheme.label} rounds inputs with a stored number, and none is given")


def _carry(made: _Made, start: Artifact) -> None:
    """What training left alone stays as ``start`` has it. A GGUF file's plain numbers are the model's own."""
    for fate in start.manifest.fates:
        if fate.name in made.fates:
            continue
        if start.manifest.checkpoint != GGUF:
            made.fates[fate.name] = fate
            made.copied |= {tensor: start.files.entries[tensor] for tensor in fate.tensors}
        elif fate.name in start.coded:
            made.fates[fate.name] = fate
            made.tensors |= start.checkpoint.pack(start.linear(fate.name))


def _move(made: _Made, model: OpenedModel, variant: Variant, tensor: str, numbers: Tensor) -> None:
    """A norm, or a scale of the KV cache, in the type that it is stored in; what did not move is left out."""
    finite(numbers.float(), tensor, Path("trained weights"))
    name, own = tensor.removesuffix(".weight"), model.files.entries
    entry = made.copied.get(tensor) or own.get(tensor)
    word = next(iter(own.values())).dtype if entry is None else entry.dtype
    stored = numbers.detach().to("cpu", torch_dtype(word)).contiguous()
    if entry is None and not variant.recipe.kv_cache:
        raise UsageError(f"recipe '{variant.name}': '{tensor}' is no tensor of {model.ref}")
    if entry is not None and tuple(stored.shape) != tuple(entry.shape):
        raise FormatError(f"{tensor}: is {list(stored.shape)} after training, and was {list(entry.shape)}")
    if entry is not None and torch.equal(stored, TensorFiles(model.path, {tensor: entry}).read(tensor)):
        return
    before = made.fates.get(name)
    if tensor not in own:
        fate = Fate(name=name, asked="keep", got=word.lower(), because=CACHE, tensors=(tensor,), bytes=stored.nbytes)
    elif variant.file is not None:
        fate = kept_in_file(model, variant.file, tensor, "keep", MOVED)
    else:
        fate = kept(model, tensor, "keep", MOVED)
    if before is not None and before.because:
        fate = fate.model_copy(update={"because": f"{before.because}; {MOVED}"})
    made.copied.pop(tensor, None)
    made.tensors[tensor] = stored
    made.fates[name] = fate
