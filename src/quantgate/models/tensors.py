"""The tensors of a model folder: names, types, shapes and raw bytes, read from safetensors without holding them all.

A safetensors file is 8 bytes of header length (little endian), a JSON header, then the tensors' bytes back to back. The
header alone tells every name, type and shape, and how long the file must be, so a truncated download is found before
anything slow starts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.errors import BadTensor, ModelError, PickleRefused
from quantgate.records import digest_of

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
HEADER_LIMIT = 100_000_000  # bytes; the limit that the safetensors format itself sets
PIECE = 1 << 22  # bytes of a file that are held together where a whole tensor is not needed


class Extent:
    """What lies in a file from ``start`` to ``end``, and has a ``shape``."""

    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def weights(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Entry(Extent):
    """Where one tensor lies: ``file[start:end]`` holds its bytes, row-major, little endian."""

    file: Path
    dtype: str  # safetensors' word: F32, F16, BF16, I32, F8_E4M3 ...
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorFiles:
    """Every tensor of a folder by name."""

    folder: Path
    entries: dict[str, Entry] = field(repr=False)

    def read(self, name: str) -> Tensor:
        """One tensor as it is stored, in its own memory. Raises ModelError when the folder has no such tensor."""
        import torch

        entry = self.entry(name)
        raw = torch.empty(entry.size, dtype=torch.uint8)
        if entry.size:
            with entry.file.open("rb") as file:
                file.seek(entry.start)
                file.readinto(raw.numpy().data)
        return raw.view(torch_dtype(entry.dtype)).reshape(entry.shape)

    def rows(self, name: str, wanted: Tensor) -> Tensor:
        """Rows ``wanted`` (sorted, each once) of a tensor [rows, columns], float32; the others are not held.

        The tensor that is returned is whole, and zero where nothing was asked for: those pages take no memory until
        something touches them. Raises BadTensor on NaN or Inf, ModelError when the folder has no such tensor.
        """
        import numpy as np
        import torch

        entry = self.entry(name)
        table = torch.from_numpy(np.zeros(entry.shape, np.float32))
        line = entry.size // max(entry.shape[0], 1)
        with entry.file.open("rb") as file:
            for at in wanted.tolist():
                file.seek(entry.start + at * line)
                row = torch.frombuffer(bytearray(file.read(line)), dtype=torch_dtype(entry.dtype))
                finite(row, name, entry.file)
                table[at] = row.float()
        return table

    def entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise ModelError(f"{self.folder}: no tensor '{name}' in its files; the checkpoint is incomplete")
        return self.entries[name]

    def under(self, prefix: str) -> list[str]:
        """The names that start with ``prefix``, sorted."""
        return sorted(name for name in self.entries if name.startswith(prefix))

    def digests(self) -> dict[str, str]:
        """Digest of the bytes of every tensor, by name, sorted."""
        told = {}
        for name, entry in sorted(self.entries.items()):
            found = hashlib.sha256()
            for piece in _pieces(entry):
                found.update(piece)
            told[name] = found.hexdigest()
        return told

    def content_digest(self, digests: Mapping[str, str] | None = None) -> str:
        """Digest over (name, type, shape, digest of bytes), sorted by name: the same however the files are sharded.

        ``digests`` are those of the tensors, where somebody has read them already.
        """
        known = self.digests() if digests is None else digests
        rows = [[name, entry.dtype, list(entry.shape), known[name]] for name, entry in sorted(self.entries.items())]
        return digest_of(rows)

    def check_finite(self, names: Collection[str], progress: Callable[[int, int], None] | None = None) -> None:
        """Look at every number of ``names`` once. Raises BadTensor naming the first tensor (in name order) with NaN or
        Inf."""
        import torch

        for done, name in enumerate(sorted(names), start=1):
            entry = self.entries[name]
            for piece in _pieces(entry):
                finite(torch.frombuffer(piece, dtype=torch_dtype(entry.dtype)), name, entry.file)
            if progress:
                progress(done, len(names))


def _pieces(entry: Entry) -> Iterator[bytearray]:
    """The bytes of one tensor, up to PIECE at a time."""
    with entry.file.open("rb") as file:
        file.seek(entry.start)
        for left in range(entry.size, 0, -PIECE):
            yield bytearray(file.read(min(left, PIECE)))


def finite(tensor: Tensor, name: str, where: Path) -> None:
    """Raises BadTensor when a floating-point ``tensor`` holds NaN or Inf."""
    import torch

    if not tensor.is_floating_point():
        return
    flat = tensor.reshape(-1)
    for at in range(0, flat.numel(), PIECE):
        piece = flat[at : at + PIECE]
        bad = ~torch.isfinite(piece)
        if bad.any():
            kind = "NaN" if torch.isnan(piece).any() else "Inf"
            raise BadTensor(
                f"{where}: tensor '{name}' holds {kind} ({int(bad.sum())} bad numbers in its first bad piece); "
                "quantgate needs finite weights, fix or download the checkpoint again"
            )


def open_tensors(folder: Path) -> TensorFiles:
    """Index every safetensors file of ``folder`` from the headers alone.

    Raises PickleRefused when only pickles are there, ModelError for none, truncated or contradicting files.
    """
    entries: dict[str, Entry] = {}
    for file in _files(folder):
        for name, entry in read_header(file).items():
            if name in entries:
                raise ModelError(f"{file}: tensor '{name}' is also in {entries[name].file.name}; keep one of the two")
            entries[name] = entry
    _check_index(folder, entries)
    return TensorFiles(folder, entries)


def read_header(file: Path) -> dict[str, Entry]:
    """Name -> entry of one safetensors file; raises ModelError when it is truncated or not safetensors."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > HEADER_LIMIT:
            raise ModelError(f"{file}: not a safetensors file (its header would be {length} bytes); download it again")
        raw = handle.read(length)
    if len(raw) < length:
        raise ModelError(f"{file}: truncated inside its header ({size} bytes on disk); download it again")
    try:
        header: dict[str, Any] = json.loads(raw)
        header.pop("__metadata__", None)
        entries = {
            name: Entry(file, one["dtype"], tuple(one["shape"]), *(8 + length + at for at in one["data_offsets"]))
            for name, one in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        raise ModelError(f"{file}: its safetensors header cannot be read ({broken}); download it again") from None
    promised = max((entry.end for entry in entries.values()), default=8 + length)
    if promised != size:
        kind = "truncated" if size < promised else "longer than its header says"
        raise ModelError(f"{file}: {kind}: its header promises {promised} bytes, it has {size}; download it again")
    return entries


def torch_dtype(word: str) -> Any:
    """The torch type for safetensors' word; raises BadTensor for one that torch does not have."""
    import torch

    names = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
        "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    if word not in names:
        raise BadTensor(f"tensor type '{word}' is not one that quantgate reads; convert the checkpoint to BF16")
    return names[word]


def _files(folder: Path) -> list[Path]:
    """The safetensors files: those that the index names if there is one, else all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({folder / shard for shard in _weight_map(index).values()})
        for file in files:
            if not file.is_file():
                raise ModelError(
                    f"{folder}: shard {file.name}, which {index.name} names, is missing; download it again"
                )
        return files
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return [folder / "model.safetensors"] if folder / "model.safetensors" in found else found
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise PickleRefused(
            f"{folder}: the weights are a pickle ({pickles[0]}), which can run code when opened; "
            "quantgate reads safetensors only, convert them with transformers' save_pretrained"
        )
    raise ModelError(f"{folder}: no *.safetensors file; expected the weights of a Hugging Face model in this folder")


def _weight_map(index: Path) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_bytes())["weight_map"])
    except (ValueError, KeyError, TypeError) as broken:
        raise ModelError(f"{index}: cannot be read ({broken!r}); download it again") from None


def _check_index(folder: Path, entries: dict[str, Entry]) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    for name, shard in sorted(_weight_map(index).items()):
        if name not in entries:
            raise ModelError(
                f"{folder}: tensor '{name}' is not in {shard} as the index says; download that shard again"
            )
