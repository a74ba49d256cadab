"""An artifact in one GGUF file: its tensors by the checkpoint's names, rows as the checkpoint has them, decoded.

    artifact.files.read("model.layers.0.self_attn.q_proj.weight")
    artifact.label                                                    # "Q4_K (22), Q6_K (5)"

The torch engine runs it with every number decoded once; the llamacpp engine runs the file itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from quantgate.errors import ArtifactError
from quantgate.formats import BlockGrid, FloatGrid, Scheme
from quantgate.formats.ggml import FORMATS
from quantgate.formats.ggml.pack import unpack
from quantgate.models.tensors import Entry, TensorFiles
from quantgate.quantize.artifact import Artifact
from quantgate.quantize.checkpoints import DecodedLinear, StoredLinear
from quantgate.quantize.gguf.blocks import decode
from quantgate.quantize.gguf.names import Place, places
from quantgate.quantize.gguf.plan import of_blocks
from quantgate.quantize.gguf.read import GgufFile, Stored, open_gguf
from quantgate.quantize.manifest import Manifest


@dataclass(frozen=True)
class GgufTensors(TensorFiles):
    """A file's tensors by the names that the checkpoint has for them. ``entries`` tell types in GGUF's words."""

    file: GgufFile = field(kw_only=True)
    places: dict[str, Place] = field(kw_only=True)

    @classmethod
    def of(cls, file: GgufFile, places: dict[str, Place], shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """``shapes``: of every tensor in ``places``, as the checkpoint has it."""
        entries = {}
        for name, place in places.items():
            one = file.tensors[place.name]
            entries[name] = Entry(file.path, one.type.name, shapes[name], one.start, one.end)
        return cls(file.path.parent, entries, file=file, places=places)

    def read(self, name: str) -> Tensor:
        """One tensor as the checkpoint has it, float32. Raises ModelError when the file has no such tensor."""
        entry, place = self.entry(name), self.places[name]
        stored = self.file.tensors[place.name]
        numbers = decode(self.file.rows(place.name), stored.type, f"{self.file.path}: '{place.name}'")
        tensor = place.rows_in_model(numbers.reshape(entry.shape))
        return tensor - place.plus if place.plus else tensor


@dataclass(frozen=True)
class GgufArtifact(Artifact):
    """An ``Artifact`` in one file. ``config_folder`` holds the configuration that the file was made or checked for."""

    tensors: GgufTensors = field(kw_only=True)
    model_folder: Path = field(kw_only=True)
    linears: tuple[str, ...] = field(kw_only=True)  # linear layers that are stored as blocks

    @property
    def files(self) -> TensorFiles:
        return self.tensors

    @property
    def architecture(self) -> str:
        """llama.cpp's name for it."""
        return self.tensors.file.text("general.architecture")

    @property
    def config_folder(self) -> Path:
        return self.model_folder

    @property
    def quantized(self) -> tuple[str, ...]:
        return self.linears

    @property
    def scheme(self) -> Scheme:
        """A scheme that bears the types' names; what each layer is stored as, ``scheme_of`` tells."""
        return Scheme(name=self.label)

    @property
    def label(self) -> str:
        counts = Counter(self.stored(name).type.name for name in self.linears)
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))

    def scheme_of(self, layer: str) -> Scheme:
        if layer not in self.linears:
            raise ArtifactError(f"{self.path}: '{layer}' is not a quantized layer of it; its fate says what it is")
        kind = self.stored(layer).type.name
        return of_blocks(kind) if kind in FORMATS else Scheme(name=kind)

    def linear(self, name: str) -> StoredLinear:
        """One quantized layer: codes and scales, or its numbers where its type has none. Raises ArtifactError."""
        grid = self.scheme_of(name).weights
        bias = self.files.read(f"{name}.bias") if f"{name}.bias" in self.files.entries else None
        if not isinstance(grid, BlockGrid):
            numbers = self.files.read(f"{name}.weight")
            return DecodedLinear(name, numbers, torch.ones(1), None, FloatGrid(), None, bias)
        place = self.tensors.places[f"{name}.weight"]
        codes, header = unpack(torch.from_numpy(self.tensors.file.rows(place.name).copy()), grid.layout)
        return StoredLinear(name, place.rows_in_model(codes), place.rows_in_model(header), None, grid, None, bias)

    def stored(self, layer: str) -> Stored:
        """Where a layer's weight lies in the file, and in which type."""
        return self.tensors.file.tensors[self.tensors.places[f"{layer}.weight"].name]


def open_made(folder: Path, manifest: Manifest) -> GgufArtifact:
    """An artifact of ours: ``folder`` holds one GGUF file, config.json, and the ``manifest`` that vouches for both.

    Raises ArtifactError when the file is not the one that the manifest tells of, or damaged.
    """
    from transformers import AutoConfig

    (path,) = [folder / name for name in manifest.files if name.endswith(".gguf")] or [folder / f"{manifest.name}.gguf"]
    file = open_gguf(path)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    names = [tensor for fate in manifest.fates for tensor in fate.tensors]
    found = places(config, names, str(folder))
    for place in found.values():
        if place.name not in file.tensors:
            raise ArtifactError(f"{path}: has no tensor '{place.name}', which its manifest tells of; make it again")
    shapes = {name: file.tensors[place.name].shape for name, place in found.items()}
    linears = tuple(fate.name for fate in manifest.quantized)
    return GgufArtifact(
        folder, manifest, tensors=GgufTensors.of(file, found, shapes), model_folder=folder, linears=linears
    )
