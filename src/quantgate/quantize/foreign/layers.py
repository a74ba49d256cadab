"""One linear layer of a foreign artifact: its format, its tensors, and the scheme that both amount to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from quantgate.errors import ArtifactError
from quantgate.formats import FloatGrid, Grid, IntGrid, Scheme, scheme, scheme_names
from quantgate.models.tensors import TensorFiles, finite
from quantgate.quantize.checkpoints import StoredLinear

FLOATS = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class LayerFormat:
    """What a config asks of one linear layer."""

    packing: str  # how codes lie in tensors: pack-quantized, gptq, gptq_v2, awq ...
    weights: Grid
    activations: Grid | None = None
    ordered: bool = False  # GPTQ's desc_act: columns may be grouped in another order than they stand in


class Layout(Protocol):
    """A foreign layout, opened on one config."""

    container: str  # what the house calls the container: compressed_tensors, gptq, gptq_v2, awq
    lists_kept: bool  # whether the config names every linear layer that it leaves alone

    def asked(self, layer: str) -> LayerFormat | None:
        """The format of a linear layer; None: the config leaves it alone. Raises ArtifactError for one nobody reads."""

    def coded(self, layer: str, files: TensorFiles) -> bool:
        """Whether the files hold codes for the layer."""

    def read(self, at: LayerTensors, shape: tuple[int, int], asked: LayerFormat) -> StoredLinear:
        """Codes of a layer [out, in]. Raises ArtifactError or BadTensor for tensors that cannot be that layer's."""


@dataclass
class LayerTensors:
    """The tensors of one layer, each checked as it is read, and a list of those that were."""

    files: TensorFiles
    layer: str
    taken: list[str] = field(default_factory=list)

    def has(self, leaf: str) -> bool:
        return f"{self.layer}.{leaf}" in self.files.entries

    def take(self, leaf: str, types: Sequence[str], *shapes: tuple[int, ...]) -> Tensor:
        """``leaf``, of one of the safetensors ``types`` and one of the ``shapes``; floating point ones are finite.

        Raises ArtifactError when it is missing or is something else, BadTensor for NaN and Inf.
        """
        name = f"{self.layer}.{leaf}"
        if name not in self.files.entries:
            raise ArtifactError(
                f"{self.files.folder}: '{name}' is missing, though other tensors of the layer are there; "
                "the artifact is incomplete, download or make it again"
            )
        entry = self.files.entries[name]
        if entry.dtype not in types or entry.shape not in shapes:
            wanted = f"{' or '.join(types)} {' or '.join(str(list(shape)) for shape in shapes)}"
            raise ArtifactError(
                f"{self.files.folder}: '{name}' is {entry.dtype} {list(entry.shape)}, where the config and the "
                f"baseline ask for {wanted}; they do not belong together"
            )
        tensor = self.files.read(name)
        finite(tensor.float() if entry.dtype == "F8_E4M3" else tensor, name, entry.file)
        self.taken.append(name)
        return tensor

    def refuse(self, what: str) -> ArtifactError:
        """An error about this layer: one sentence."""
        return ArtifactError(f"{self.files.folder}: {self.layer}: {what}")


def scheme_of(weights: Grid, activations: Grid | None) -> Scheme:
    """The scheme of one layer, under the field's name where it has one: W4A16, W8A8, FP8_DYNAMIC, W4A8 ...

    >>> scheme_of(IntGrid(bits=4, strategy="group", group_size=64), IntGrid(bits=8, strategy="token")).label
    'W4A8-g64'
    """
    for name in scheme_names():
        known = scheme(name)
        if (known.weights, known.activations) == (weights, activations):
            return known
    inputs = 16 if activations is None else activations.bits
    static = "_STATIC" if activations is not None and activations.strategy == "tensor" else ""
    if isinstance(weights, IntGrid):
        floats = "FP" if isinstance(activations, FloatGrid) else ""
        return Scheme(name=f"W{weights.bits}A{floats}{inputs}{static}", weights=weights, activations=activations)
    sizes = {"group": f"-g{weights.group_size}", "block": f"-block{weights.group_size}"}
    name = f"FP{weights.bits}A{inputs}{static}{sizes.get(weights.strategy, f'-{weights.strategy}')}"
    return Scheme(name=name, weights=weights, activations=activations)


def number(config: Mapping[str, Any], spellings: Sequence[str], file: Path) -> int:
    """A whole number under the first of its ``spellings``; -1 stands for "all". Raises ArtifactError."""
    value = next((config[key] for key in spellings if config.get(key) is not None), None)
    if not isinstance(value, int) or isinstance(value, bool) or not (value > 0 or value == -1):
        raise ArtifactError(
            f"{file}: {spellings[0]} is {value!r}, expected a whole number; the file is damaged, download it again"
        )
    return value


def check_pattern(pattern: str, file: Path) -> None:
    """Raises ArtifactError for a pattern that no regular expression is."""
    try:
        re.compile(pattern)
    except re.error as wrong:
        raise ArtifactError(f"{file}: '{pattern}' is no regular expression ({wrong}); correct it") from None
