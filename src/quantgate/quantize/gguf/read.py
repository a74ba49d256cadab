"""Read a GGUF file: its metadata, and where each tensor lies. The header alone says how long the file must be.

    magic "GGUF", version u32, tensors u64, entries u64        little endian throughout
    entries: key, type u32, value                              a string is its length u64 and its bytes
    tensors: name, dimensions u32, sizes u64 ..., type u32, offset u64      the size that changes fastest first
    padding to general.alignment (32 unless told), then the tensors, each at its offset

Nothing is trusted: every length is held against the bytes that are there before it is used.
Source: ggml/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quantgate.errors import ArtifactError
from quantgate.models.tensors import Extent
from quantgate.quantize.gguf.types import BY_ID, BlockType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # by value type
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class Stored(Extent):
    """Where one tensor lies: ``file[start:end]``, row-major."""

    name: str
    type: BlockType
    shape: tuple[int, ...]  # as torch writes it: [out, in]
    start: int
    end: int


@dataclass(frozen=True)
class GgufFile:
    """A file's metadata by key, and its tensors by name, in the order they are stored."""

    path: Path
    version: int
    metadata: dict[str, Any] = field(repr=False)
    tensors: dict[str, Stored] = field(repr=False)

    def rows(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes of one tensor, uint8 [rows, bytes of a row], in their own memory."""
        stored = self.tensors[name]
        with self.path.open("rb") as file:
            file.seek(stored.start)
            raw = np.frombuffer(file.read(stored.size), dtype=np.uint8)
        return raw.reshape(-1, stored.type.row_bytes(stored.shape[-1]))

    def text(self, key: str) -> str:
        """A string of the metadata, or "" where it is not told."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else ""

    def array(self, key: str) -> list[Any]:
        """An array of the metadata, or nothing where it is not told."""
        value = self.metadata.get(key, [])
        return value if isinstance(value, list) else []


def open_gguf(path: Path | str) -> GgufFile:
    """Read the header of a GGUF file, and no weights.

    Raises ArtifactError for a file that is no GGUF, is cut off, or holds a type or a shape that GGUF does not have.
    """
    file = Path(path)
    if not file.is_file():
        raise ArtifactError(f"{file}: no such file; name a GGUF file")
    if file.stat().st_size < 24:
        raise ArtifactError(f"{file}: {file.stat().st_size} bytes are no GGUF file; download it again")
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return _parse(_Cursor(file, view))


class _Cursor:
    """The place in the header up to which it was read."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path, self.view, self.at, self.size = path, view, 0, len(view)

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise ArtifactError(
                f"{self.path}: truncated inside its header, at {what} ({self.size} bytes on disk); download it again"
            )
        self.at += count
        return self.view[self.at - count : self.at]

    def number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def string(self, what: str) -> str:
        raw = self.take(self.number("Q", what), what)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ArtifactError(
                f"{self.path}: {what} is no UTF-8 text; the file is damaged, download it again"
            ) from None

    def value(self, key: str) -> Any:
        return self._of(self.number("I", f"'{key}'"), f"'{key}'")

    def _of(self, kind: int, what: str) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.string(what)
        if kind != ARRAY:
            raise ArtifactError(
                f"{self.path}: {what} has the value type {kind}, and GGUF has 0 to 12; "
                "the file is damaged, download it again"
            )
        inner, count = self.number("I", what), self.number("Q", what)
        if inner in SCALARS:
            code = SCALARS[inner]
            raw = self.take(count * struct.calcsize("<" + code), what)
            return list(struct.unpack(f"<{count}{code}", raw))
        if count * 8 > self.size - self.at:
            self.take(count * 8, what)  # a string has at least its length, an array at least its count
        return [self._of(inner, what) for _ in range(count)]


def _parse(at: _Cursor) -> GgufFile:
    magic = at.take(4, "its first bytes")
    if magic != MAGIC:
        raise ArtifactError(
            f"{at.path}: begins with {magic!r}, a GGUF file with {MAGIC!r}; it is not one, or is damaged"
        )
    version = at.number("I", "its version")
    if version not in VERSIONS:
        swapped = " (it was written for a big-endian machine)" if version & 0xFFFF == 0 and version else ""
        raise ArtifactError(
            f"{at.path}: is GGUF version {version}{swapped}, and 2 and 3 are read; convert it with a newer llama.cpp"
        )
    tensors, entries = at.number("Q", "its counts"), at.number("Q", "its counts")
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = at.string("a key of its metadata")
        metadata[key] = at.value(key)
    told = [_told(at) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise ArtifactError(f"{at.path}: general.alignment is {alignment!r}, expected a power of two; it is damaged")
    begin = -(-at.at // alignment) * alignment
    found: dict[str, Stored] = {}
    for name, kind, shape, offset in told:
        if name in found:
            raise ArtifactError(f"{at.path}: holds two tensors '{name}'; it is damaged, download it again")
        size = math.prod(shape) // kind.block * kind.bytes
        found[name] = Stored(name, kind, shape, begin + offset, begin + offset + size)
    promised = max((one.end for one in found.values()), default=begin)
    if promised > at.size:
        cut = next(one for one in found.values() if one.end > at.size)
        raise ArtifactError(
            f"{at.path}: truncated at '{cut.name}': its header promises {promised} bytes, it has {at.size}; "
            "download it again"
        )
    return GgufFile(at.path, version, metadata, found)


def _told(at: _Cursor) -> tuple[str, BlockType, tuple[int, ...], int]:
    """Name, type, shape and offset of one tensor."""
    name = at.string("the name of a tensor")
    count = at.number("I", f"'{name}'")
    if not 0 < count <= MOST_DIMENSIONS:
        raise ArtifactError(f"{at.path}: '{name}' has {count} dimensions, GGUF has 1 to 4; it is damaged")
    shape = tuple(at.number("Q", f"'{name}'") for _ in range(count))[::-1]
    number, offset = at.number("I", f"'{name}'"), at.number("Q", f"'{name}'")
    if number not in BY_ID:
        raise ArtifactError(
            f"{at.path}: '{name}' has the tensor type {number}, which is none of those read here; "
            "make the file with a type such as Q4_K"
        )
    kind = BY_ID[number]
    if shape[-1] % kind.block:
        raise ArtifactError(
            f"{at.path}: '{name}' has rows of {shape[-1]}, and {kind.name} stores blocks of {kind.block}; "
            "it is damaged, download or make it again"
        )
    return name, kind, shape, offset
