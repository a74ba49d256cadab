"""An artifact: a container folder and its manifest, which vouches for every byte and every tensor in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import plugins
from quantgate.errors import ArtifactError, QuantgateError
from quantgate.formats import Scheme, scheme
from quantgate.models import OpenedModel
from quantgate.models.seal import Seal
from quantgate.models.tensors import TensorFiles, open_tensors
from quantgate.quantize.manifest import BASELINE, GGUF, MIXED, Fate, Manifest, ModelIdentity, Recipe, tool_version
from quantgate.records import digest_file

if TYPE_CHECKING:
    from quantgate.quantize.checkpoints import Checkpoint, StoredLinear
    from quantgate.quantize.kv_cache import Rounding

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """``path`` holds config, tokenizer, weights and, for all but the baseline, ``manifest.json``."""

    path: Path
    manifest: Manifest
    called: str = ""  # the variant's name, where it is not the manifest's
    seal: Seal | None = field(default=None, compare=False, repr=False)  # of its files, where they lie by themselves

    @property
    def name(self) -> str:
        return self.called or self.manifest.name

    @property
    def is_baseline(self) -> bool:
        return self.manifest.recipe.scheme == BASELINE

    @property
    def config_folder(self) -> Path:
        """Where the architecture's config.json lies."""
        return self.path

    def unchanged(self) -> None:
        """Raises ArtifactError when a file was changed since the artifact was opened."""
        if self.seal is not None and (file := self.seal.broken()):
            raise ArtifactError(
                f"{file}: was changed while the artifact was in use; let it be finished, then run again"
            )

    @cached_property
    def files(self) -> TensorFiles:
        return open_tensors(self.path)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return plugins.get("checkpoints", self.manifest.checkpoint)  # type: ignore[no-any-return]

    @property
    def scheme(self) -> Scheme:
        """Formats of weights and activations. Raises ArtifactError for the baseline and for mixtures."""
        if self.is_baseline:
            raise ArtifactError(f"{self.path}: is the full-precision baseline, nothing in it is quantized")
        recipe = self.manifest.recipe
        if recipe.scheme == MIXED:
            raise ArtifactError(f"{self.path}: its layers are stored in several schemes; ask for a layer's own")
        return scheme(recipe.scheme, group_size=recipe.group_size, symmetric=recipe.symmetric)

    @cached_property
    def _schemes(self) -> dict[str, Scheme]:
        return {fate.name: scheme(fate.scheme) for fate in self.manifest.quantized}

    def scheme_of(self, layer: str) -> Scheme:
        """The scheme of one quantized layer. Raises ArtifactError when the layer is not quantized."""
        if layer not in self._schemes:
            raise ArtifactError(f"{self.path}: '{layer}' is not a quantized layer of it; its fate says what it is")
        return self._schemes[layer]

    @property
    def label(self) -> str:
        """The scheme's label; of a mixture, those of its layers: ``W3A16-g64 (20), W4A16 (6)``."""
        counts = Counter(found.label for found in self._schemes.values())
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))

    @cached_property
    def coded(self) -> dict[str, Fate]:
        """The fates of the linear layers that are stored as codes, by their full names."""
        return {fate.name: fate for fate in self.manifest.quantized}

    @cached_property
    def quantized(self) -> tuple[str, ...]:
        """Full names of the linear layers that are stored as codes."""
        return tuple(self.coded)

    @property
    def rounds_inputs(self) -> bool:
        """Whether the runtime rounds activations too."""
        return any(self.scheme_of(layer).activations is not None for layer in self.quantized)

    def kv_cache(self) -> list[Rounding]:
        """What the cache of each layer rounds keys and values to, in order; nothing when it rounds none."""
        from quantgate.quantize.kv_cache import roundings

        found = self.manifest.kv_cache
        return roundings(self.files, list(found.attentions), found.format) if found else []

    def linear(self, name: str) -> StoredLinear:
        """Codes, scales and zero points of one quantized layer. Raises ArtifactError when it is not quantized."""
        found, bias = self.scheme_of(name), f"{name}.bias"
        return self.checkpoint.unpack(
            name, self.files.read, found, self.files.read(bias) if bias in self.files.entries else None
        )


def open_artifact(path: Path | str, *, verify: bool = True) -> Artifact:
    """Open an artifact folder. Raises ArtifactError when its manifest is missing, its fates are incomplete, or (with
    ``verify``, which reads every byte) a file is not what the manifest says."""
    folder = Path(path)
    file = folder / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{folder}: no {MANIFEST}; it is not an artifact, or it was copied without it")
    seal = Seal.of(folder)
    manifest = Manifest.load(file)
    _check_files(folder, manifest, verify)
    artifact = Artifact(folder, manifest, seal=seal)
    if manifest.checkpoint == GGUF:
        from quantgate.quantize.gguf.artifact import open_made

        artifact = replace(open_made(folder, manifest), seal=seal)
    try:
        check_fates(artifact)
    except ArtifactError:
        raise
    except QuantgateError as problem:
        raise ArtifactError(f"{folder}: its weights cannot be read ({problem})") from None
    return artifact


def baseline(model: OpenedModel, recipe: Recipe | None = None) -> Artifact:
    """The full-precision model itself, seen as an artifact: nothing is copied and nothing is written."""
    entries = model.files.entries
    fates = tuple(kept(model, name, "keep", "the baseline keeps every tensor") for name in sorted(entries))
    recipe = Recipe(scheme=BASELINE, label=recipe.label if recipe else "")
    manifest = Manifest(
        name=recipe.name, recipe=recipe, method="", checkpoint="", model=identity(model), calibration=None,
        inputs=model.weights_digest, tool=tool_version(), torch="", device="", seed=0, fates=fates, ledger=(),
        tensor_bytes=model.weights_bytes, tensor_weights=model.parameters, total_bytes=model.weights_bytes, files={},
    )  # fmt: skip
    return Artifact(model.path, manifest)


def identity(model: OpenedModel) -> ModelIdentity:
    return ModelIdentity(
        ref=model.ref,
        architecture=model.architecture,
        weights=model.weights_digest,
        tokenizer=model.tokenizer_digest,
        template=model.template_digest,
        config=model.config_digest,
    )


def kept(model: OpenedModel, tensor: str, asked: str, because: str) -> Fate:
    """The fate of a tensor that is stored as the model has it."""
    entry = model.files.entries[tensor]
    return Fate(
        name=tensor.removesuffix(".weight"),
        asked=asked,
        got=entry.dtype.lower(),
        because=because,
        weights=entry.weights,
        bytes=entry.size,
        tensors=(tensor,),
    )


def _check_files(folder: Path, manifest: Manifest, verify: bool) -> None:
    for name, stored in sorted(manifest.files.items()):
        file = folder / name
        if not file.is_file():
            raise ArtifactError(f"{file}: is missing, though the manifest lists it; make the artifact again")
        if file.stat().st_size != stored.bytes or (verify and digest_file(file) != stored.sha256):
            raise ArtifactError(f"{file}: its bytes do not match the manifest; make the artifact again")


def check_fates(artifact: Artifact) -> None:
    """Every stored tensor has one fate, and the fates cover the model. Raises ArtifactError."""
    told = [tensor for fate in artifact.manifest.fates for tensor in fate.tensors]
    stored = set(artifact.files.entries)
    for tensor in sorted(stored - set(told)):
        raise ArtifactError(f"{artifact.path}: tensor '{tensor}' has no fate in the manifest; make the artifact again")
    for tensor in sorted(set(told) - stored):
        raise ArtifactError(f"{artifact.path}: tensor '{tensor}' has a fate but is not stored; make the artifact again")
    names = [fate.name for fate in artifact.manifest.fates]
    if len(set(told)) != len(told) or len(set(names)) != len(names):
        raise ArtifactError(f"{artifact.path}: a tensor has two fates in the manifest; make the artifact again")
    weights = sum(fate.weights for fate in artifact.manifest.fates)
    if weights != artifact.manifest.tensor_weights:
        raise ArtifactError(
            f"{artifact.path}: the fates cover {weights} of {artifact.manifest.tensor_weights} numbers of the model; "
            "make the artifact again"
        )
