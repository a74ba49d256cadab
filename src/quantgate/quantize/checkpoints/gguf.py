"""GGUF: one file for weights, tokenizer and chat template, read by llama.cpp and what is built on it.

    <layer>.weight    uint8 [out, bytes of a row]    Q4_K, Q6_K, IQ4_NL ...: blocks side by side

While a sweep is under way its journal holds these bytes, with the rows as the model has them; the artifact is a folder
with one file, ``<variant>.gguf``, in which rows stand as llama.cpp wants them (``quantize.gguf``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from quantgate.formats import BlockGrid, Scheme
from quantgate.formats.ggml.pack import pack, unpack
from quantgate.quantize.checkpoints import StoredLinear

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from quantgate.quantize.ends import Ends

NOT_BLOCKS = "it stores blocks of GGUF's own, such as those of Q4_K_M, Q6_K or IQ4_NL"


class Gguf:
    name = "gguf"
    least_scale = 0.0

    def refuse(self, scheme: Scheme) -> str | None:
        return None if isinstance(scheme.weights, BlockGrid) else NOT_BLOCKS

    def refuse_layer(self, scheme: Scheme, out: int, columns: int) -> str | None:
        return None

    def scale_dtype(self, stored: torch.dtype) -> torch.dtype:
        return stored  # scales are bytes of the format

    def pack(self, layer: StoredLinear) -> dict[str, Tensor]:
        assert isinstance(layer.grid, BlockGrid)  # refuse
        return {f"{layer.name}.weight": pack(layer.codes, layer.scales, layer.grid.layout)}

    def unpack(self, name: str, read: Callable[[str], Tensor], scheme: Scheme, bias: Tensor | None) -> StoredLinear:
        assert isinstance(scheme.weights, BlockGrid)  # refuse
        codes, header = unpack(read(f"{name}.weight"), scheme.weights.layout)
        return StoredLinear(name, codes, header, None, scheme.weights, None, bias)

    def config(self, config: dict[str, Any], scheme: Scheme, kept: Sequence[str]) -> dict[str, Any]:
        return config

    def refuse_ends(self, ends: Ends, blocks: Scheme) -> str | None:
        found = [scheme for scheme in ends.coded.values() if not isinstance(scheme.weights, BlockGrid)]
        return NOT_BLOCKS if found else None

    def config_ends(self, told: dict[str, Any], ends: Ends, blocks: Scheme) -> dict[str, Any]:
        return told


CHECKPOINT = Gguf()
