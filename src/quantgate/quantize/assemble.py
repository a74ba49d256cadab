"""Layers that became codes, and all that stays as the model has it, become one artifact: a sweep's, or training's.

Whoever made the codes hands over where their bytes lie and what became of each layer; which tensors are left, why they
are kept, and what a runtime must be told follow from the variant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.errors import ArtifactError, RecordError
from quantgate.models import OpenedModel
from quantgate.models.tensors import Entry
from quantgate.quantize.artifact import MANIFEST, Artifact, kept, open_artifact
from quantgate.quantize.checkpoints.compressed_tensors import kv_cache_arguments
from quantgate.quantize.ends import kept_end
from quantgate.quantize.gguf.plan import FilePlan
from quantgate.quantize.gguf.publish import kept_in_file, write_gguf_artifact
from quantgate.quantize.hadamard import Rotation
from quantgate.quantize.kv_cache import attention_of
from quantgate.quantize.manifest import Fate, StoredCache
from quantgate.quantize.plan import Variant
from quantgate.quantize.publish import write_artifact
from quantgate.quantize.rotate import surround
from quantgate.quantize.shards import SHARD_BYTES


def assemble(
    folder: Path,
    model: OpenedModel,
    variant: Variant,
    solved: Mapping[str, Entry],
    fates: dict[str, Fate],
    *,
    around: tuple[Rotation, Path] | None = None,
    shard_bytes: int = SHARD_BYTES,
    **facts: Any,
) -> None:
    """Fill ``folder``, which exists and bears no good name yet, with the artifact of ``variant``.

    ``solved``: tensors that are not the model's own, wherever their bytes lie; ``fates``, by layer, are completed here.
    ``around``: the rotation of the blocks, and a file for what stands around them; None when nothing turns, or when
    ``solved`` holds that as well. ``facts`` are the manifest's other fields. Raises DiskFull, and ArtifactError when
    the fates do not cover the tensors.
    """
    named: dict[str, Any] = {
        "name": variant.name, "recipe": variant.recipe, "method": variant.method_name,
        "checkpoint": variant.recipe.container,
    }  # fmt: skip
    own = model.files.entries
    rest = {name: entry for name, entry in own.items() if name.removesuffix(".weight") not in fates}
    if variant.file is not None:
        for name in rest:
            fates[name.removesuffix(".weight")] = _kept_in_file(model, variant, variant.file, name)
        write_gguf_artifact(folder, model, variant.file, solved, fates, **named, **facts)
        return
    copies = variant.ends.copied(own)
    rest |= {name: entry for name, entry in copies.items() if name.removesuffix(".weight") not in fates}
    entries = rest | dict(solved)  # what rotation changed is in both
    size = sum(entry.size for entry in entries.values())
    for name in rest:
        fates[name.removesuffix(".weight")] = _kept_fate(model, variant, name, entries[name], size)
    config, cache = _told(model, variant, fates)
    if around is not None:
        surround(model, *around, entries, fates)
    write_artifact(
        folder, model, entries=entries, fates=fates, config=config, more_weights=variant.ends.more_weights(own),
        kv_cache=cache, shard_bytes=shard_bytes, **named, **facts,
    )  # fmt: skip


def ready(folder: Path, inputs: str) -> Artifact | None:
    """The artifact that is already there, if it was made from the same inputs and is whole."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        artifact = open_artifact(folder)
    except (ArtifactError, RecordError):
        return None  # broken, or of another version: made again and replaced
    return artifact if artifact.manifest.inputs == inputs else None


def _told(model: OpenedModel, variant: Variant, fates: Mapping[str, Fate]) -> tuple[dict[str, Any], StoredCache | None]:
    """config.json with what a runtime must know, and the KV cache that it is to have."""
    ends, groups = variant.ends, [group for block in range(model.depth) for group in model.linears(block)]
    linears = [layer for group in groups for layer in group]
    left = [*model.unquantized, *(layer for layer in linears if fates[layer].got != variant.at(layer).format)]
    left = [name for name in dict.fromkeys(["lm_head", *left]) if name not in ends.coded]
    config: dict[str, Any] = json.loads((model.path / "config.json").read_bytes())
    told = variant.container.config(config, variant.scheme, left)
    if ends.coded:
        told = variant.container.config_ends(told, ends, variant.scheme)
    if ends.untied:
        told["tie_word_embeddings"] = False
    if not (cache := variant.recipe.kv_cache):
        return told, None
    told["quantization_config"]["kv_cache_scheme"] = kv_cache_arguments(cache)
    attentions = tuple(attention_of(model.linears(block)) for block in range(model.depth))
    return told, StoredCache(format=cache, attentions=attentions)


def _kept_in_file(model: OpenedModel, variant: Variant, file: FilePlan, tensor: str) -> Fate:
    """As ``_kept_fate``, of a GGUF variant."""
    layer, asked = tensor.removesuffix(".weight"), "keep"
    because = model.unquantized.get(layer, "not the weight of a linear layer")
    if layer in variant.kept:
        asked, because = variant.format, variant.kept[layer]
    elif pattern := variant.recipe.kept_by(layer):
        asked, because = variant.format, f"'{pattern}' is on the keep list"
    if layer in (variant.ends.head, variant.ends.table):
        asked, because = "keep", "its rows divide into no blocks"
    return kept_in_file(model, file, tensor, asked, because)


def _kept_fate(model: OpenedModel, variant: Variant, tensor: str, entry: Entry, size: int) -> Fate:
    """``size``: bytes of all tensors of the artifact."""
    layer = tensor.removesuffix(".weight")
    if layer in (variant.ends.head, variant.ends.table):
        return kept_end(variant.ends, layer, entry, size)
    if layer in variant.kept:
        return kept(model, tensor, variant.format, variant.kept[layer])
    if pattern := variant.recipe.kept_by(layer):
        return kept(model, tensor, variant.format, f"'{pattern}' is on the keep list")
    return kept(model, tensor, "keep", model.unquantized.get(layer, "not the weight of a linear layer"))
