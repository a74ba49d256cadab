"""Write safetensors files piece by piece: from tensors in memory, or straight from the bytes of other files.

Written here rather than by the safetensors package for two reasons: merging finished blocks copies bytes and never
holds more than a piece of them, and a full disk shows as the operating system's own error. The layout is the package's:
the widest types first, then by name, the header padded to 8 bytes, so that every tensor is aligned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from quantgate.errors import ArtifactError
from quantgate.models.tensors import Entry
from quantgate.records import disk_errors

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 24  # bytes copied at a time
SHARD_BYTES = 5_000_000_000  # a model larger than this is written as several files with an index
WIDTH = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}  # bytes; all others 1
WORDS = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "bool": "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, Tensor | Entry]) -> None:
    """One safetensors file, flushed to disk and then named. Raises DiskFull with nothing left behind."""
    order = sorted(tensors, key=lambda name: (-WIDTH.get(_word(tensors[name]), 1), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in order:
        header[name] = {
            "dtype": _word(tensors[name]),
            "shape": list(tensors[name].shape),
            "data_offsets": [at, at + _size(tensors[name])],
        }
        at += _size(tensors[name])
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    aside = path.with_name(f"{path.name}.partial")
    try:
        with disk_errors(path):
            with aside.open("wb") as file:
                file.write(len(raw).to_bytes(8, "little") + raw)
                for name in order:
                    _write(file, tensors[name])
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_model(folder: Path, tensors: Mapping[str, Entry], shard_bytes: int = SHARD_BYTES) -> None:
    """``model.safetensors``, or ``model-0000i-of-0000n.safetensors`` with their index when it would be too large."""
    shards: list[dict[str, Entry]] = [{}]
    filled = 0
    for name in sorted(tensors):
        if shards[-1] and filled + tensors[name].size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensors[name]
        filled += tensors[name].size
    if len(shards) == 1:
        return write_tensors(folder / "model.safetensors", shards[0])
    files = [f"model-{at:05d}-of-{len(shards):05d}.safetensors" for at in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        write_tensors(folder / file, shard)
    index = {
        "metadata": {"total_size": sum(entry.size for entry in tensors.values())},
        "weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in sorted(shard)},
    }
    with disk_errors(folder):
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return None


def _word(tensor: Tensor | Entry) -> str:
    return tensor.dtype if isinstance(tensor, Entry) else WORDS[str(tensor.dtype).removeprefix("torch.")]


def _size(tensor: Tensor | Entry) -> int:
    return tensor.size if isinstance(tensor, Entry) else tensor.numel() * tensor.element_size()


def _write(file: BinaryIO, tensor: Tensor | Entry) -> None:
    if isinstance(tensor, Entry):
        with tensor.file.open("rb") as source:
            source.seek(tensor.start)
            left = tensor.size
            while left:
                piece = source.read(min(left, PIECE))
                if not piece:
                    raise ArtifactError(f"{tensor.file}: ends before the tensor that is to be copied; make it again")
                file.write(piece)
                left -= len(piece)
        return
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        file.write(flat.view(torch.uint8).numpy().data)
