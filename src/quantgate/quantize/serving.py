"""What a variant takes where it is served, from shapes alone: bytes in memory, bytes that a token reads, geometry.

The bytes of a layer are those of its container, counted by formula and not made, so a model of any size takes no memory
to plan. A test compares them with what ``predict`` counts on the tensors themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantgate.formats import Scheme
from quantgate.formats.grids import BlockGrid, IntGrid
from quantgate.formats.size import stored_bytes, words
from quantgate.hardware import Geometry, Layer, Served, Support, cache_parts
from quantgate.models import OpenedModel
from quantgate.quantize.gguf import names, presets
from quantgate.quantize.gguf.metadata import describe
from quantgate.quantize.gguf.plan import OF_BLOCKS, of_blocks, plain_type, tensor_bytes
from quantgate.quantize.given import trained_variant
from quantgate.quantize.manifest import BASELINE, GGUF, MIXED, QAT, Recipe, in_blocks
from quantgate.quantize.plan import Variant, kept_layers, plan

if TYPE_CHECKING:
    from quantgate.quantize.artifact import Artifact

ROUNDED = {"compressed_tensors": 2, "gptq": 2, "gptq_v2": 2, "awq": 2}  # bytes of a scale, of a 16-bit model


@dataclass(frozen=True)
class Sized:
    """One tensor that a token is multiplied by, or that is looked up."""

    name: str  # of the module
    shape: tuple[int, int]  # out, in
    scheme: str  # label; BF16 where it is kept
    stored: float  # bytes in the artifact
    plain: int  # bytes in 16 bits

    @property
    def weights(self) -> int:
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class ServedVariant:
    """A recipe against one model: every matrix of it, and what stands around them."""

    name: str
    scheme: Scheme
    container: str
    kv_cache: str  # of the recipe; empty: not rounded
    matrices: tuple[Sized, ...]  # linear layers of the blocks, and the output layer
    table: Sized | None  # the embedding table, where it is a tensor of its own
    rest: int  # bytes of norms, biases, routers ...
    model: OpenedModel
    method: str = ""  # how its codes are chosen, where that is known before they are
    others: tuple[Scheme, ...] = ()  # of a mixture: further schemes that its layers have

    @property
    def stored_bytes(self) -> int:
        """All tensors of the artifact."""
        table = self.table.stored if self.table else 0
        return round(sum(one.stored for one in self.matrices) + table) + self.rest

    @property
    def geometry(self) -> Geometry:
        config = self.model.config
        heads = int(config.num_attention_heads)
        head = self.model.walker.head
        return Geometry(
            layers=tuple(Layer(one.name, *one.shape, one.scheme) for one in self.matrices if one.name != head),
            heads=heads,
            key_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            experts=self.model.has_experts,
        )

    def served(self, found: Support) -> Served:
        """As the kernel of ``found`` holds and reads it."""
        config, model = self.model.config, self.model
        experts = [one for one in self.matrices if ".experts." in one.name]
        always = [one for one in self.matrices if ".experts." not in one.name]
        count = int(getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 0)
        chosen = int(getattr(config, "num_experts_per_tok", None) or 0)
        share = chosen / count if experts and count else 1.0
        table = 0 if self.table is None else (self.table.plain if found.decompressed else self.table.stored)
        expert_bytes = sum(_read(one, found) for one in experts)
        return Served(
            parameters=model.parameters,
            resident_bytes=round(sum(_resident(one, found) for one in self.matrices) + table) + self.rest,
            mapped_bytes=round(sum(one.stored for one in self.matrices if _repacked(one, found))),
            plain_bytes=sum(one.plain for one in self.matrices) + (self.table.plain if self.table else 0) + self.rest,
            read_bytes=round(sum(_read(one, found) for one in always)) + self.rest,
            active=round(sum(one.weights for one in always) + share * sum(one.weights for one in experts)),
            expert_bytes=round(expert_bytes),
            experts=count if experts else 0,
            chosen=chosen if experts else 0,
            parts=cache_parts(config, found.runtime),
            layers=model.depth,
            hidden=int(config.hidden_size),
            widest=max(one.shape[0] for one in self.matrices if one.name != model.walker.head),
            vocabulary=int(config.vocab_size),
        )


def serve(model: OpenedModel, recipe: Recipe, *, calibrated: bool = True) -> ServedVariant:
    """``recipe`` against ``model``. Raises what a sweep would raise before anything slow."""
    if recipe.scheme.upper() == BASELINE:
        return _of(model, recipe.name, Scheme(name=BASELINE), "compressed_tensors", "", {}, {})
    if in_blocks(recipe.scheme):
        return replace(_in_blocks(model, recipe), method=recipe.method or "gptq")
    if recipe.method == QAT:
        variant = trained_variant(model, recipe)
    else:
        variant = plan(model, [recipe], calibrated=calibrated)[0]
    schemes = {layer: variant.scheme for layer in _linears(model) if layer not in variant.kept}
    schemes |= variant.ends.coded
    sizes = {layer: _coded_bytes(model, variant, layer, one) for layer, one in schemes.items()}
    served = _of(model, variant.name, variant.scheme, recipe.container, recipe.kv_cache, schemes, sizes)
    return replace(served, method=variant.method_name)


def serve_artifact(model: OpenedModel, artifact: Artifact, *, kv_cache: str = "") -> ServedVariant:
    """An artifact that is there, by the fate of every tensor; ``model`` is the one whose tensors it has.

    ``kv_cache``: what the runtime is told to cache in, where that is not the recipe's.
    """
    from quantgate.formats import scheme

    manifest, recipe = artifact.manifest, artifact.manifest.recipe
    matrices = {*_linears(model), model.walker.head, model.walker.table}
    coded = [fate for fate in manifest.fates if fate.scheme]
    weights = Counter[str]()
    for fate in coded:
        weights[fate.scheme] += fate.weights
    found = {label: scheme(label) for label in weights}
    names = [label for label, _ in weights.most_common()]
    whole = recipe.scheme.upper()
    main = found[names[0]] if names and whole == MIXED else scheme(recipe.scheme) if names else Scheme(name=BASELINE)
    served = _of(
        model,
        manifest.name,
        main,
        recipe.container,
        kv_cache or recipe.kv_cache,
        {fate.name: found[fate.scheme] for fate in coded},
        {fate.name: float(fate.bytes) for fate in manifest.fates if fate.name in matrices and fate.bytes},
        manifest.tensor_bytes - sum(fate.bytes for fate in manifest.fates if fate.name in matrices),
    )
    others = tuple(found[label] for label in names[1:]) if whole == MIXED else ()
    return replace(served, others=others, method=manifest.method if manifest.calibration is None else "")


def _of(
    model: OpenedModel,
    name: str,
    scheme: Scheme,
    container: str,
    kv_cache: str,
    schemes: Mapping[str, Scheme],
    sizes: Mapping[str, float],
    rest: int | None = None,
) -> ServedVariant:
    """Modules that ``sizes`` does not name stay as the model has them; ``rest``: bytes of all that is no matrix."""
    head, table = model.walker.head, model.walker.table
    linears = _linears(model)
    matrices = [_sized(model, one, schemes, sizes) for one in linears]
    looked_up: Sized | None = _sized(model, table, schemes, sizes)
    if model.tied:
        matrices.append(_sized(model, table, schemes, sizes, called=head))
        looked_up = None
    else:
        matrices.append(_sized(model, head, schemes, sizes))
    if rest is None:
        named = {f"{one}.weight" for one in (*linears, head, table)}
        rest = sum(entry.size for tensor, entry in model.files.entries.items() if tensor not in named)
    return ServedVariant(name, scheme, container, kv_cache, tuple(matrices), looked_up, rest, model)


def _sized(
    model: OpenedModel, module: str, schemes: Mapping[str, Scheme], sizes: Mapping[str, float], *, called: str = ""
) -> Sized:
    entry = model.files.entry(f"{module}.weight")
    out, columns = entry.shape
    label = schemes[module].label if module in schemes else BASELINE
    return Sized(called or module, (out, columns), label, sizes.get(module, entry.size), 2 * entry.weights)


def _linears(model: OpenedModel) -> list[str]:
    return [layer for block in range(model.depth) for group in model.linears(block) for layer in group]


def _coded_bytes(model: OpenedModel, variant: Variant, layer: str, scheme: Scheme) -> float:
    """Bytes of a layer in its container (the tensors that ``Checkpoint.pack`` would make)."""
    source = variant.ends.source(layer) if layer in variant.ends.coded else f"{layer}.weight"
    entry, container = model.files.entry(source), variant.recipe.container
    (out, columns), grid = entry.shape, scheme.weights
    assert grid is not None  # plan
    wide = container == "compressed_tensors" and entry.dtype == "F32"
    held = stored_bytes(out, columns, grid, packed=scheme.packed, scale_bytes=4 if wide else 2)
    if container == "compressed_tensors":
        return held.total_bytes + (held.scales_bytes * 0 if not scheme.calibrated else _input_scale(scheme, wide))
    assert isinstance(grid, IntGrid)  # refuse
    groups = 1 if grid.group_size is None else columns // grid.group_size
    zeros = 4 * groups * words(out, grid.bits)
    index = 4 * columns if container.startswith("gptq") else 0
    return held.codes_bytes + 2 * out * groups + zeros + index


def _input_scale(scheme: Scheme, wide: bool) -> int:
    """The number from the calibration set that a static scheme has beside each layer."""
    return 4 if wide or getattr(scheme.weights, "type", "") == "fp4" else 2


def _in_blocks(model: OpenedModel, recipe: Recipe) -> ServedVariant:
    """Types of every tensor by llama.cpp's rules; no tokenizer is needed for them."""
    from quantgate.formats import scheme

    config, entries = model.config, model.files.entries
    described = describe(config, str(model.path))
    wanted = [one for one in entries if not (one == "lm_head.weight" and config.tie_word_embeddings)]
    found = names.places(config, sorted(wanted), str(model.path))
    shapes = {found[one].name: entries[one].shape for one in found}
    heads = int(config.num_attention_heads)
    key_heads = int(config.num_key_value_heads or heads)
    shape = presets.Shape(described.architecture, model.depth, heads, key_heads, importance=True)
    label = scheme(recipe.scheme).name
    usual = "" if label in presets.FILE_TYPES else OF_BLOCKS.get(label, label)
    types = presets.types_of(label, shapes, shape, usual=usual)
    blocks = [model.linears(block) for block in range(model.depth)]
    kept = kept_layers(model, recipe, blocks, f"recipe '{recipe.name}'")
    matrices = {*_linears(model), model.walker.head, model.walker.table}
    of_layers, sizes, rest = dict[str, Scheme](), dict[str, float](), 0
    for tensor, place in found.items():
        module = tensor.removesuffix(".weight")
        kind = plain_type(model, tensor) if module in kept else types[place.name]
        size = tensor_bytes(shapes[place.name], kind)
        if module in matrices:
            sizes[module] = float(size)
            of_layers |= {module: of_blocks(kind.name)} if kind.quantized else {}
        else:
            rest += size
    return _of(model, recipe.name, scheme(label), GGUF, "", of_layers, sizes, rest)


def _resident(one: Sized, found: Support) -> float:
    if one.scheme == BASELINE:
        return one.stored if found.container == GGUF else min(one.stored, one.plain)
    if _repacked(one, found):
        return 2 * one.stored
    if not (found.decompressed or found.resident_bits):
        return one.stored
    if found.decompressed:
        return one.plain
    return one.weights * (found.resident_bits or 0) / 8 + (one.stored - _codes(one, found))


def _repacked(one: Sized, found: Support) -> bool:
    """Whether the runtime holds it a second time, in the order that its kernel reads."""
    return bool(found.repacks) and one.scheme != BASELINE and _block(one) in found.repacks


def _block(one: Sized) -> str:
    """The block format of a tensor, or nothing."""
    from quantgate.formats import scheme

    grid = scheme(one.scheme).weights
    return grid.name if isinstance(grid, BlockGrid) else ""


def _read(one: Sized, found: Support) -> float:
    if one.scheme == BASELINE:
        return one.stored if found.container == GGUF else min(one.stored, one.plain)
    if not (found.decompressed or found.read_bits):
        return one.stored
    if found.decompressed:
        return one.plain
    return one.weights * (found.read_bits or 0) / 8 + (one.stored - _codes(one, found))


def _codes(one: Sized, found: Support) -> float:
    """Bytes of a layer's codes in the artifact; the rest are scales."""
    from quantgate.formats import scheme

    grid = scheme(one.scheme).weights
    return one.stored if grid is None else min(one.stored, one.weights * grid.bits / 8)
