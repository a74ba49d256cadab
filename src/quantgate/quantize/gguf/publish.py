"""Solved blocks and kept tensors become an artifact folder: one GGUF file, config.json, and the manifest written last.

What a sweep solved lies in its journal as the bytes of a file, with the rows as the model has them; here they change
places. Everything else is stored as plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.models import OpenedModel
from quantgate.models.tensors import Entry, TensorFiles
from quantgate.quantize.gguf.blocks import Bytes, encode
from quantgate.quantize.gguf.plan import FilePlan
from quantgate.quantize.gguf.presets import FILE_TYPES
from quantgate.quantize.gguf.write import Layout, config_json, numbers_of, write_gguf
from quantgate.quantize.manifest import LEFT_OUT, Fate, Note
from quantgate.quantize.publish import vouch
from quantgate.records import disk_errors

NOT_READ = "no runtime reads it: it is computed, or the embeddings stand for it"


def write_gguf_artifact(
    folder: Path,
    model: OpenedModel,
    plan: FilePlan,
    solved: Mapping[str, Entry],
    fates: Mapping[str, Fate],
    name: str,
    ledger: tuple[Note, ...],
    **facts: Any,
) -> None:
    """Fill ``folder``, which exists and bears no good name yet, with ``name``.gguf and what belongs to it.

    ``solved``: U8 rows of blocks by the checkpoint's names, and plain numbers that are not the model's own; ``fates``
    are those of all tensors. Raises DiskFull, and ArtifactError when the fates do not cover the tensors.
    """
    blocks, sources = TensorFiles(folder, dict(solved)), plan.layout.sources

    def rows(name: str) -> Bytes:
        tensor = sources.get(name, "")
        if tensor in solved and plan.types[name].quantized:
            return plan.layout.places[tensor].rows_in_file(blocks.read(tensor)).contiguous().numpy()
        changed = blocks if tensor in solved else None
        return encode(numbers_of(model, plan.layout, name, changed), plan.types[name])

    number = FILE_TYPES[plan.preset][0] if plan.preset else None
    write_gguf(folder / f"{name}.gguf", plan.layout, plan.types, rows, file_type=number)
    vouch_for_file(folder, model, plan.layout, fates, tensor_bytes=plan.tensor_bytes, name=name, ledger=ledger, **facts)


def vouch_for_file(
    folder: Path,
    model: OpenedModel,
    layout: Layout,
    fates: Mapping[str, Fate],
    *,
    ledger: tuple[Note, ...],
    **facts: Any,
) -> None:
    """config.json and the manifest beside the GGUF file in ``folder``; what the file cannot say goes to the ledger."""
    with disk_errors(folder):
        (folder / "config.json").write_text(config_json(model))
    notes = [Note(tensor="tokenizer", event="config", detail=one) for one in layout.notes]
    vouch(folder, model, fates, ledger=(*ledger, *(note for note in notes if note not in ledger)), **facts)


def kept_in_file(model: OpenedModel, plan: FilePlan, tensor: str, asked: str, because: str) -> Fate:
    """The fate of a tensor that stays: in the file's plain type, or nowhere where no runtime reads it."""
    entry, name = model.files.entries[tensor], tensor.removesuffix(".weight")
    if tensor not in plan.layout.places:
        return Fate(name=name, asked="keep", got=LEFT_OUT, because=NOT_READ, weights=entry.weights)
    kind, size = plan.stored(tensor)
    return Fate(
        name=name, asked=asked, got=kind.lower(), because=because, weights=entry.weights, bytes=size, tensors=(tensor,)
    )
