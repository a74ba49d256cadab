"""llama.cpp's file types: which tensor gets which block type, by name, place and shape.

    Q4_K_M    Q4_K; Q6_K for the values and ffn_down of an eighth of the blocks at each end and every third between
    Q4_K_S    Q4_K; Q5_K for the values of the first four blocks and ffn_down of the first eighth
    Q3_K_M    Q3_K; Q4_K for values, attention output and ffn_down, Q5_K in the first blocks
    Q2_K      Q2_K; Q3_K for values (Q4_K from four query heads a key head on), attention output and ffn_down

The output layer, or the embeddings that stand for it, is Q6_K. A row that does not divide into blocks of 256 gets a
type with blocks of 32, and one that does not divide into those either stays F16.
Source: llama.cpp src/llama-quant.cpp, ``llama_tensor_get_type_impl`` and ``tensor_type_fallback``, as in
llama-cpp-python 0.3.36, for dense models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quantgate.errors import UnknownName
from quantgate.formats.ggml import PRESETS
from quantgate.quantize.gguf.types import TYPES, BlockType

NUMBERS = {  # general.file_type
    "F32": 0, "F16": 1, "BF16": 32, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q8_0": 7, "Q2_K": 10, "Q3_K_S": 11,
    "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25,
}  # fmt: skip
FILE_TYPES = {name: (number, PRESETS.get(name, name)) for name, number in NUMBERS.items()}  # and the usual block type
NARROWER = {  # of blocks of 32, where a row does not divide into blocks of 256
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
OUTPUT, EMBEDDINGS = "output.weight", "token_embd.weight"
LARGE = 80  # blocks of llama.cpp's 70B models, whose values are small and get more bits


@dataclass(frozen=True)
class Shape:
    """What the rules look at besides a tensor's own name and shape."""

    architecture: str  # llama.cpp's name
    blocks: int
    heads: int
    key_heads: int
    importance: bool = False  # whether columns were weighted by an importance matrix

    @property
    def grouped(self) -> bool:
        """Four query heads a key head or more."""
        return self.heads // self.key_heads >= 4

    @property
    def large(self) -> bool:
        return self.blocks == LARGE and (
            self.architecture == "qwen2" or (self.architecture == "llama" and self.heads != self.key_heads)
        )


def types_of(
    preset: str, tensors: Mapping[str, tuple[int, ...]], shape: Shape, *, usual: str = ""
) -> dict[str, BlockType]:
    """The type of every tensor, by its name in the file, from its shape as torch writes it.

    Vectors and norms are float32. ``usual`` is the block type of a ``preset`` that llama.cpp has no name for. Raises
    UnknownName for any other that is not among ``FILE_TYPES``.
    """
    if not usual and preset not in FILE_TYPES:
        raise UnknownName("GGUF type", preset, FILE_TYPES)
    usual = usual or FILE_TYPES[preset][1]
    tied = OUTPUT not in tensors
    found: dict[str, BlockType] = {}
    for name, dimensions in tensors.items():
        if len(dimensions) < 2 or name.endswith("_norm.weight") or not name.endswith("weight"):
            found[name] = TYPES["F32"]
            continue
        kind = usual
        if TYPES[usual].quantized:
            if name == OUTPUT or (name == EMBEDDINGS and tied):
                kind = _of_output(usual, dimensions[-1])
            else:
                kind = _of_block(preset, usual, name, shape)
            kind = narrowed(kind, dimensions[-1])
        found[name] = TYPES[kind]
    return found


def narrowed(kind: str, columns: int) -> str:
    """``kind``, or the type that llama.cpp takes where ``columns`` do not divide into its blocks.

    >>> narrowed("Q4_K", 256), narrowed("Q4_K", 96), narrowed("Q4_K", 172)
    ('Q4_K', 'Q5_0', 'F16')
    """
    if columns % TYPES[kind].block == 0:
        return kind
    narrower = NARROWER.get(kind, kind)
    return narrower if columns % TYPES[narrower].block == 0 else "F16"


def count(types: Iterable[BlockType]) -> dict[str, int]:
    """How many tensors have each type, by the type's name."""
    found: dict[str, int] = {}
    for kind in types:
        found[kind.name] = found.get(kind.name, 0) + 1
    return dict(sorted(found.items()))


def _of_output(usual: str, columns: int) -> str:
    return "Q8_0" if usual == "Q8_0" or columns % TYPES[usual].block else "Q6_K"


def _of_block(preset: str, usual: str, name: str, shape: Shape) -> str:
    place = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if place is None:
        return usual
    at, part = int(place[1]), place[2]
    if part in ("attn_v", "attn_qkv"):
        return _of_values(preset, usual, at, shape)
    if part == "ffn_down":
        return _of_down(preset, usual, at, shape)
    if part == "attn_output":
        return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(preset, usual)
    return usual


def _of_values(preset: str, usual: str, at: int, shape: Shape) -> str:
    kind = usual
    if preset == "Q2_K":
        kind = "Q4_K" if shape.grouped else "Q3_K"
    elif preset == "Q3_K_M":
        kind = "Q5_K" if at < 2 else "Q4_K"
    elif preset == "Q3_K_L" or (preset == "IQ4_NL" and shape.grouped) or (preset == "Q4_K_S" and at < 4):
        kind = "Q5_K"
    elif preset in ("Q4_K_M", "Q5_K_M") and _more(at, shape.blocks):
        kind = "Q6_K"
    return "Q5_K" if shape.large and kind in ("Q3_K", "Q4_K") else kind


def _of_down(preset: str, usual: str, at: int, shape: Shape) -> str:
    early = at < shape.blocks // 8
    if preset in ("Q4_K_M", "Q5_K_M"):
        return "Q6_K" if _more(at, shape.blocks) else usual
    if preset == "Q3_K_M":
        return "Q5_K" if at < shape.blocks // 16 else "Q4_K"
    if early and preset == "IQ4_NL" and not shape.importance:
        return "Q5_K"
    if early and preset in ("Q4_0", "Q5_0") and shape.importance:
        return preset[:-1] + "1"
    if early and preset == "Q4_K_S":
        return "Q5_K"
    return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K"}.get(preset, usual)


def _more(at: int, blocks: int) -> bool:
    """Whether a block gets more bits: an eighth at each end, and every third between."""
    return at < blocks // 8 or at >= 7 * blocks // 8 or (at - blocks // 8) % 3 == 2
