"""Foreign artifacts: folders that other programs quantized, read without a manifest and judged like our own.

    artifact = open_foreign("Llama-3-8B-AWQ", model)   # checked against the baseline, layer by layer
    artifact.manifest.made_by                          # "auto-round 0.15.1"
    artifact.linear(artifact.quantized[0]).codes       # what low-bit kernels run on

    quant_method         read                                                    file
    compressed-tensors   pack-, int-, float-, naive-, nvfp4- and mxfp4-quantized   compressed.py
    gptq                 layouts 1 and 2, 2, 3, 4 and 8 bits, desc_act, dynamic  gptq.py
    awq                  GEMM                                                    awq.py
    auto-round           GPTQ's or AWQ's tensors, settings of single layers      autoround.py

Nothing is guessed: a layout, a tensor or a setting that is not understood is refused, and so is a file that runtimes
are known to read differently. The folder is only read; the manifest is made when it is opened.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, JsonValue

from quantgate.errors import ArtifactError, UsageError
from quantgate.formats import Scheme
from quantgate.models import OpenedModel
from quantgate.models.seal import Seal
from quantgate.models.tensors import TensorFiles, open_tensors
from quantgate.models.text import tokenizer_files
from quantgate.quantize.artifact import Artifact, check_fates, identity
from quantgate.quantize.foreign.belongs import check_config, check_tokenizer, kept_fates, unused_fates
from quantgate.quantize.foreign.declared import Declared, declared, is_foreign
from quantgate.quantize.foreign.layers import LayerFormat, LayerTensors, Layout, scheme_of
from quantgate.quantize.manifest import SAFE_NAME, Fate, Manifest, Note, Recipe, StoredFile, tool_version
from quantgate.quantize.plan import format_name
from quantgate.records import digest_file, digest_of

if TYPE_CHECKING:
    from quantgate.quantize.checkpoints import StoredLinear

__all__ = ["ForeignArtifact", "ForeignManifest", "is_foreign", "open_foreign"]

UNLIKE = 0.3  # a cosine with the baseline's weight below this is told; unrelated weights have 0
UNKNOWN_CALIBRATION = "what it was calibrated on is not on record, so leaked cases could not be looked for"


class ForeignManifest(Manifest):
    """What a foreign artifact is, as far as its files tell. ``model`` is the baseline that it was checked against."""

    made_by: str  # the program and its version, as far as the folder says
    config: dict[str, JsonValue] = Field(default_factory=dict)  # the quantization settings as they were found


@dataclass(frozen=True)
class Reader:
    """The quantized layers of a folder, read one at a time."""

    files: TensorFiles
    layout: Layout
    shapes: dict[str, tuple[int, int]]  # layer -> [out, in], from the baseline
    biases: frozenset[str]  # the baseline's

    def asked(self, name: str) -> LayerFormat:
        """The format of a quantized layer. Raises ArtifactError when it is none."""
        asked = self.layout.asked(name) if name in self.shapes else None
        if asked is None:
            raise ArtifactError(
                f"{self.files.folder}: '{name}' is not a quantized layer of it; its fate says what it is"
            )
        return asked

    def scheme(self, name: str) -> Scheme:
        asked = self.asked(name)
        return scheme_of(asked.weights, asked.activations)

    def read(self, name: str) -> tuple[StoredLinear, tuple[str, ...]]:
        """A quantized layer, and the names of the tensors that it was read from, without the bias."""
        at, bias = LayerTensors(self.files, name), f"{name}.bias"
        layer = self.layout.read(at, self.shapes[name], self.asked(name))
        if bias in self.biases:
            layer = replace(layer, bias=self.files.read(bias))
        return layer, tuple(sorted(at.taken))


@dataclass(frozen=True)
class ForeignArtifact(Artifact):
    """An ``Artifact`` whose layers may differ in format, and whose fates were read off its files."""

    manifest: ForeignManifest
    reader: Reader = field(kw_only=True)

    @property
    def scheme(self) -> Scheme:
        """The layers' scheme; of several, one that bears all their names and has no formats of its own."""
        return _scheme(self.reader)

    @property
    def label(self) -> str:
        return self.scheme.label

    def scheme_of(self, layer: str) -> Scheme:
        return self.reader.scheme(layer)

    def linear(self, name: str) -> StoredLinear:
        """Codes, scales and zero points of one quantized layer. Raises ArtifactError when it is not quantized."""
        self.reader.asked(name)
        return self.reader.read(name)[0]


def open_foreign(path: Path | str, model: OpenedModel, name: str = "") -> ForeignArtifact:
    """Open the folder ``path`` as a variant of the baseline ``model``; ``name`` is the folder's unless given.

    Reads every tensor once and changes nothing. Raises ArtifactError (a layout that is not read, an incomplete folder,
    another architecture or tokenizer, settings that contradict the tensors), ModelError (truncated files),
    PickleRefused, BadTensor (NaN or Inf) and UsageError (a name that no variant can have).
    """
    folder = Path(path)
    seal = Seal.of(folder)
    told = declared(folder)
    name = name or folder.resolve().name
    if not SAFE_NAME.fullmatch(name):
        raise UsageError(
            f"{folder}: '{name}' cannot name a variant; give it a name of letters, digits, '.', '_' and '-'"
        )
    notes = check_config(folder, model)
    check_tokenizer(folder, model)
    reader = _reader(open_tensors(folder), told, model)
    if not reader.shapes:
        raise ArtifactError(f"{folder}: no linear layer of {model.ref} is stored as codes in it; it is not quantized")
    found = [_fate(reader, model, layer) for layer in reader.shapes]
    fates = [fate for fate, _ in found]
    fates += kept_fates(reader.files, model, set(reader.shapes))
    fates += unused_fates(reader.files, model, {tensor for fate in fates for tensor in fate.tensors})
    notes += [note for _, some in found for note in some]
    artifact = ForeignArtifact(folder, _manifest(told, reader, model, name, fates, notes), seal=seal, reader=reader)
    check_fates(artifact)
    return artifact


def _reader(files: TensorFiles, told: Declared, model: OpenedModel) -> Reader:
    """Which linear layers are stored as codes. Raises ArtifactError where that is not what the config says."""
    layers = [layer for block in range(model.depth) for group in model.linears(block) for layer in group]
    layers += [] if model.tied else [model.walker.head]
    shapes = {}
    for layer in layers:
        coded, asked = told.layout.coded(layer, files), told.layout.asked(layer)
        if coded and asked is None:
            raise ArtifactError(f"{files.folder}: '{layer}' is stored as codes, and {told.file.name} leaves it alone")
        if asked is not None and not coded and told.layout.lists_kept:
            raise ArtifactError(
                f"{files.folder}: '{layer}' is not stored as codes, and {told.file.name} asks for "
                f"{format_name(asked.weights)}; the artifact is incomplete, or 'ignore' lacks the layer"
            )
        if coded:
            out, columns = model.files.entry(f"{layer}.weight").shape
            shapes[layer] = out, columns
    biases = frozenset(f"{layer}.bias" for layer in shapes if f"{layer}.bias" in model.files.entries)
    return Reader(files, told.layout, shapes, biases)


def _fate(reader: Reader, model: OpenedModel, layer: str) -> tuple[Fate, list[Note]]:
    """What became of one quantized layer, and a line if its numbers are unlike the baseline's."""
    stored, tensors = reader.read(layer)
    made, ours = stored.dequantized().float(), model.files.read(f"{layer}.weight").float()
    if not bool(made.isfinite().all()):
        raise ArtifactError(f"{reader.files.folder}: '{layer}' decodes to NaN or Inf; the file is damaged")
    energy = float(ours.square().sum().clamp(min=1e-30))
    cosine = float((made * ours).sum()) / (energy * float(made.square().sum().clamp(min=1e-30))) ** 0.5
    entries = [reader.files.entries[name] for name in tensors]
    fate = Fate(
        name=layer,
        asked=format_name(stored.grid),
        got=format_name(stored.grid),
        weight_error=float((made - ours).square().sum()) / energy,
        weights=ours.numel(),
        bytes=sum(entry.size for entry in entries if entry.dtype != "I64"),
        tensors=tensors,
        facts={"packing": reader.asked(layer).packing, "cosine": cosine, "reordered": stored.group_of is not None},
    )
    if cosine >= UNLIKE:
        return fate, []
    why = f"cosine {cosine:.2f} with the baseline's weight: made from other weights, rotated, or misread"
    return fate, [Note(tensor=layer, event="unlike", detail=why, value=cosine)]


def _scheme(reader: Reader) -> Scheme:
    counts = Counter(reader.scheme(name).label for name in reader.shapes)
    if len(counts) == 1:
        return reader.scheme(next(iter(reader.shapes)))
    return Scheme(name=" + ".join(label for label, _ in counts.most_common()))


def _manifest(
    told: Declared, reader: Reader, model: OpenedModel, name: str, fates: list[Fate], notes: list[Note]
) -> ForeignManifest:
    folder, entries = reader.files.folder, reader.files.entries.values()
    used = {told.file, folder / "config.json", folder / "generation_config.json", *(entry.file for entry in entries)}
    used |= set(tokenizer_files(folder))
    files = {
        file.name: StoredFile(sha256=digest_file(file), bytes=file.stat().st_size)
        for file in sorted(used)
        if file.is_file()
    }
    known = Note(tensor="artifact", event="made by", detail=told.made_by)
    unknown = Note(tensor="artifact", event="calibration", detail=UNKNOWN_CALIBRATION)
    return ForeignManifest(
        name=name,
        recipe=Recipe(scheme=_scheme(reader).label, container=told.layout.container, label=name),
        method=told.algorithm,
        checkpoint=told.layout.container,
        model=identity(model).model_copy(update={"ref": ""}),  # what the user calls it is no part of the evidence
        calibration=None,
        inputs=digest_of({name: file.sha256 for name, file in files.items()}),
        tool=tool_version(),
        torch="",
        device="",
        seed=0,
        fates=tuple(sorted(fates, key=lambda fate: fate.name)),
        ledger=(known, unknown, *notes),
        tensor_bytes=sum(entry.size for entry in entries),
        tensor_weights=model.parameters,
        total_bytes=sum(file.bytes for file in files.values()),
        files=files,
        made_by=told.made_by,
        config=told.config,
    )
