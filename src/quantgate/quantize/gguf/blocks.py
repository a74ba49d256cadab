"""Numbers to the bytes of a GGUF type and back.

Blocks are written by our own search for scales, with weights rounded to nearest under them; a sweep, which has a
calibration set, writes better ones. ``gguf`` writes plain numbers and decodes every type, so what is read back was
decoded by code that is not ours. Whoever has a better quantizer hands it to ``make_gguf``.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from quantgate.errors import ArtifactError, FormatError, MissingExtra
from quantgate.formats.ggml import FORMATS
from quantgate.formats.ggml import codec as ggml
from quantgate.formats.ggml.pack import pack
from quantgate.quantize.gguf.types import PLAIN, BlockType
from quantgate.quantize.methods._blocks import choose_blocks

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
EXTRA = "run: pip install 'quantgate[gguf]'"
ROWS = 1 << 24  # numbers that are rounded together


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
    """See ``Encode``. Raises FormatError for columns that do not divide into blocks, or a type that is only read."""
    columns = weights.shape[-1]
    if columns % kind.block:
        raise FormatError(f"rows of {columns} do not divide into {kind.name}'s blocks of {kind.block}; choose Q8_0")
    if kind.name in PLAIN:
        return encode_at_once(weights, kind)
    numbers = weights.detach().float().reshape(-1, columns)
    layout = next((one for name, one in FORMATS.items() if name == kind.name), None)
    if layout is None:
        raise FormatError(f"{kind.name} is read and not written; choose one of {', '.join(FORMATS)}")
    parts = []
    for some in numbers.split(max(1, ROWS // columns)):
        header = choose_blocks(some, layout, importance)
        parts.append(pack(ggml.encode(some, header, layout), header, layout))
    return torch.cat(parts).numpy()


def encode_at_once(numbers: Tensor, kind: BlockType) -> Bytes:
    """The bytes of ``numbers`` [rows, columns] as a runtime rounds them while it runs: no search, from the largest."""
    gguf = package()
    made = gguf.quants.quantize(
        numbers.detach().float().reshape(-1, numbers.shape[-1]).contiguous().numpy(), gguf.GGMLQuantizationType(kind.id)
    )
    return np.ascontiguousarray(made).view(np.uint8)


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
