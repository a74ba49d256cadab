"""Numbers to the bytes of a GGUF type and back.

``gguf`` reads every type and writes the simple ones; k-quants and IQ4_NL are written by llama.cpp's own
``ggml_quantize_chunk``, which comes with llama-cpp-python. Whoever has a better quantizer hands it to ``make_gguf``.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from quantgate.errors import ArtifactError, FormatError, MissingExtra
from quantgate.quantize.gguf.types import BlockType

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
WRITTEN_HERE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
EXTRA = "run: pip install 'quantgate[gguf]'"


class Encode(Protocol):
    """A quantizer: the bytes [rows, bytes of a row] of float32 numbers [rows, columns] in a type."""

    def __call__(self, weights: Tensor, kind: BlockType, importance: Tensor | None, /) -> Bytes:
        """``importance`` [columns]: how much a column's squared error counts; None: all the same."""


def package() -> Any:
    """The package ``gguf``. Raises MissingExtra."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise MissingExtra(f"GGUF files need the package 'gguf', which is not installed; {EXTRA}") from None
    return gguf


def encode(weights: Tensor, kind: BlockType, importance: Tensor | None = None) -> Bytes:
    """See ``Encode``. Raises FormatError for columns that do not divide into blocks, MissingExtra."""
    columns = weights.shape[-1]
    if columns % kind.block:
        raise FormatError(f"rows of {columns} do not divide into {kind.name}'s blocks of {kind.block}; choose Q8_0")
    numbers = weights.detach().float().reshape(-1, columns).contiguous().numpy()
    if kind.name in WRITTEN_HERE and importance is None:
        gguf = package()
        made = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType(kind.id))
        return np.ascontiguousarray(made).view(np.uint8)
    return _by_ggml(numbers, kind, importance)


def decode(rows: Bytes, kind: BlockType, where: str = "") -> Tensor:
    """The float32 numbers [rows, columns] of the bytes. Raises ArtifactError for a type that nothing here decodes."""
    gguf = package()
    try:
        numbers = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(kind.id))
    except NotImplementedError:
        raise ArtifactError(
            f"{where}: stored as {kind.name}, which is not decoded here; use a type such as Q4_K"
        ) from None
    return torch.from_numpy(np.array(numbers, dtype=np.float32).reshape(len(rows), -1))


def _by_ggml(numbers: np.ndarray[Any, Any], kind: BlockType, importance: Tensor | None) -> Bytes:
    """What llama.cpp's quantizer makes of them."""
    rows, columns = numbers.shape
    made = np.zeros((rows, kind.row_bytes(columns)), dtype=np.uint8)
    weights = None if importance is None else importance.detach().float().contiguous().numpy()
    _library().ggml_quantize_chunk(
        kind.id,
        numbers.ctypes.data,
        made.ctypes.data,
        0,
        rows,
        columns,
        None if weights is None else weights.ctypes.data,
    )
    return made


@cache
def _library() -> Any:
    """ggml as llama-cpp-python brings it. Raises MissingExtra."""
    found = find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise MissingExtra(f"k-quants need the package 'llama_cpp', which is not installed; {EXTRA}")
    folder = Path(found.origin).parent / "lib"
    file = next(iter(sorted(folder.glob("*ggml-base*"))), None)
    if file is None:
        raise MissingExtra(f"{folder}: no ggml library in it, so k-quants cannot be written; {EXTRA}")
    library = ctypes.CDLL(str(file))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    return library
