"""A GGUF file as a variant: read without a manifest, checked against the baseline, judged like any other artifact.

    artifact = open_gguf_artifact("model-Q4_K_M.gguf", model)
    artifact.files.read("model.layers.0.self_attn.q_proj.weight")     # decoded, rows as the checkpoint has them
    artifact.label                                                    # "Q4_K (22), Q6_K (5)"

The torch engine runs it with every number decoded once; the llamacpp engine runs the file itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from quantgate.errors import ArtifactError, UsageError
from quantgate.models import OpenedModel
from quantgate.models.seal import Seal
from quantgate.models.tensors import Entry, finite
from quantgate.quantize.artifact import check_fates, identity
from quantgate.quantize.foreign import UNKNOWN_CALIBRATION, UNLIKE, ForeignManifest
from quantgate.quantize.foreign.gguf_belongs import check_settings, check_tensors, check_words, made_by
from quantgate.quantize.gguf import FILE_TYPES, GgufFile, layout_of, open_gguf
from quantgate.quantize.gguf.artifact import GgufArtifact, GgufTensors
from quantgate.quantize.manifest import GGUF, SAFE_NAME, Fate, Note, Recipe, StoredFile, tool_version
from quantgate.records import digest_file, digest_of


@dataclass(frozen=True)
class ForeignGguf(GgufArtifact):
    """A file that lies by itself."""

    manifest: ForeignManifest


def open_gguf_artifact(path: Path | str, model: OpenedModel, name: str = "", *, plain: bool = False) -> ForeignGguf:
    """Open the file ``path`` as a variant of the baseline ``model``; ``name`` is the file's unless given.

    With ``plain`` a file without any blocks is taken, too: the baseline itself, for llama.cpp to run.
    Decodes every tensor once. Raises ArtifactError (damaged or foreign to the baseline), ModelError (the baseline's
    tokenizer or architecture has no GGUF form), UsageError (a name that no variant can have), BadTensor, MissingExtra.
    """
    seal = Seal.of(Path(path))
    file = open_gguf(path)
    name = name or file.path.name[: -len(".gguf")]
    if not SAFE_NAME.fullmatch(name):
        raise UsageError(f"{path}: '{name}' cannot name a variant; give it a name of letters, digits, '.', '_' and '-'")
    ours = layout_of(model, file.text("general.name") or "unnamed")
    notes = [Note(tensor="tokenizer", event="config", detail=one) for one in ours.notes]
    notes += check_settings(file, ours, model.ref)
    check_words(file, ours, model.ref)
    check_tensors(file, ours, model)
    shapes = {name: model.files.entries[name].shape for name in ours.places}
    tensors = GgufTensors.of(file, ours.places, shapes)
    blocks = {layer for block in range(model.depth) for group in model.linears(block) for layer in group}
    blocks |= {end for end in (model.walker.head, model.walker.table) if f"{end}.weight" in ours.places}
    linears = tuple(one for one in sorted(blocks) if file.tensors[ours.places[f"{one}.weight"].name].type.quantized)
    if not linears and not plain:
        raise ArtifactError(
            f"{file.path}: no linear layer of {model.ref} is stored as blocks in it; it is not quantized"
        )
    fates = []
    for tensor in sorted(tensors.entries):
        fate, some = _fate(tensors, model, tensor)
        fates.append(fate)
        notes += some
    manifest = _manifest(file, tensors, model, name, fates, notes)
    artifact = ForeignGguf(file.path, manifest, seal=seal, tensors=tensors, model_folder=model.path, linears=linears)
    check_fates(artifact)
    return artifact


def _fate(tensors: GgufTensors, model: OpenedModel, name: str) -> tuple[Fate, list[Note]]:
    """What became of one tensor, and a line if its numbers are unlike the baseline's."""
    entry, made, ours = tensors.entries[name], tensors.read(name), model.files.read(name).float()
    finite(made, name, entry.file)
    kind = tensors.file.tensors[tensors.places[name].name].type
    energy = float(ours.square().sum().clamp(min=1e-30))
    if not kind.quantized:
        same = torch.allclose(made, ours, rtol=2**-8, atol=1e-6)
        because = "as the baseline has it" if same else "other numbers than the baseline's, and why is not on record"
        return _of(name, entry, "keep", kind.name.lower(), because), []
    cosine = float((made * ours).sum()) / (energy * float(made.square().sum().clamp(min=1e-30))) ** 0.5
    fate = _of(name, entry, kind.name, kind.name).model_copy(
        update={"weight_error": float((made - ours).square().sum()) / energy, "facts": {"cosine": cosine}}
    )
    if cosine >= UNLIKE:
        return fate, []
    why = f"cosine {cosine:.2f} with the baseline's weight: made from other weights, rotated, or misread"
    return fate, [Note(tensor=fate.name, event="unlike", detail=why, value=cosine)]


def _of(name: str, entry: Entry, asked: str, got: str, because: str = "") -> Fate:
    return Fate(
        name=name.removesuffix(".weight"), asked=asked, got=got, because=because, weights=entry.weights,
        bytes=entry.size, tensors=(name,),
    )  # fmt: skip


def _manifest(
    file: GgufFile, tensors: GgufTensors, model: OpenedModel, name: str, fates: list[Fate], notes: list[Note]
) -> ForeignManifest:
    number = file.metadata.get("general.file_type")
    told = next((word for word, (known, _) in FILE_TYPES.items() if known == number), "GGUF")
    stored = StoredFile(sha256=digest_file(file.path), bytes=file.path.stat().st_size)
    known = Note(tensor="artifact", event="made by", detail=made_by(file))
    unknown = Note(tensor="artifact", event="calibration", detail=UNKNOWN_CALIBRATION)
    kept = {key: value for key, value in file.metadata.items() if isinstance(value, str | int | float | bool)}
    kept.pop("tokenizer.chat_template", None)
    return ForeignManifest(
        name=name, recipe=Recipe(scheme=told, container=GGUF, label=name), method="", checkpoint=GGUF,
        model=identity(model).model_copy(update={"ref": ""}), calibration=None,
        inputs=digest_of({file.path.name: stored.sha256}), tool=tool_version(), torch="", device="", seed=0,
        fates=tuple(fates), ledger=(known, unknown, *notes),
        tensor_bytes=sum(entry.size for entry in tensors.entries.values()),
        tensor_weights=sum(entry.weights for entry in tensors.entries.values()),
        total_bytes=stored.bytes, files={file.path.name: stored}, made_by=made_by(file), config=dict(kept),
    )  # fmt: skip
