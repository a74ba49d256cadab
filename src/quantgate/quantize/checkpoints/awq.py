"""awq: AutoAWQ's GEMM layout, read by vLLM, SGLang, TGI and transformers. Four bits, groups along the input.

    qweight  int32 [in, out / 8]          eight outputs a word, in the order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits
    qzeros   int32 [in / group, out / 8]   zero points in the same order; 8 where codes are symmetric
    scales   float16 [in / group, out]

Proven by decoding it as AutoAWQ does; no runtime that reads it could be installed where it was made. A number is
``(code - zero) * scale`` with codes 0 to 15.
Source: AutoAWQ 0.2, modules/linear/gemm.py ``WQLinear_GEMM.from_linear``, utils/packing_utils.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quantgate.formats import IntGrid, Scheme
from quantgate.quantize.checkpoints import StoredLinear, half
from quantgate.quantize.checkpoints._gptq import LEAST_HALF, half_exactly, with_fused
from quantgate.quantize.ends import Ends

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which output of eight stands in nibble 0, 1, 2 ...
MIDDLE = 8  # a code of 0 is stored as this


class Awq:
    name = "awq"
    least_scale = LEAST_HALF

    def refuse(self, scheme: Scheme) -> str | None:
        grid = scheme.weights
        if not isinstance(grid, IntGrid) or scheme.activations is not None:
            return "AWQ's layout holds integer weights and nothing else"
        if grid.bits != 4 or grid.strategy != "group":
            return "AWQ's layout holds 4 bits with one scale per group"
        return None

    def refuse_layer(self, scheme: Scheme, out: int, columns: int) -> str | None:
        return f"AWQ's layout packs 8 outputs into a word, and {out} do not divide" if out % 8 else None

    def scale_dtype(self, stored: torch.dtype) -> torch.dtype:
        return half(stored)

    def pack(self, layer: StoredLinear) -> dict[str, Tensor]:
        scales = layer.scales.T.contiguous()
        zeros = torch.zeros_like(scales, dtype=torch.int8) if layer.zeros is None else layer.zeros.T
        return {
            f"{layer.name}.qweight": _pack(layer.codes.T),
            f"{layer.name}.qzeros": _pack(zeros),
            f"{layer.name}.scales": half_exactly(scales, layer.name),
        }

    def unpack(self, name: str, read: Callable[[str], Tensor], scheme: Scheme, bias: Tensor | None) -> StoredLinear:
        grid = scheme.weights
        assert isinstance(grid, IntGrid)  # refuse
        codes = unpack_words(read(f"{name}.qweight")).T.contiguous()
        zeros = None if grid.symmetric else unpack_words(read(f"{name}.qzeros")).T.contiguous()
        return StoredLinear(name, codes, read(f"{name}.scales").T.contiguous(), zeros, grid, None, bias)

    def config(self, config: dict[str, Any], scheme: Scheme, kept: Sequence[str]) -> dict[str, Any]:
        grid = scheme.weights
        assert isinstance(grid, IntGrid)  # refuse
        layers = with_fused(name for name in kept if name != "lm_head")
        told = {
            "quant_method": "awq",
            "version": "gemm",
            "bits": 4,
            "group_size": grid.group_size,
            "zero_point": True,
            "modules_to_not_convert": layers or None,
        }
        return config | {"quantization_config": told}

    def refuse_ends(self, ends: Ends, blocks: Scheme) -> str | None:
        return (
            "AutoAWQ quantizes the decoder blocks alone, and its settings have no word for more; choose "
            "compressed_tensors, or gptq for the output layer"
        )

    def config_ends(self, told: dict[str, Any], ends: Ends, blocks: Scheme) -> dict[str, Any]:
        return told  # refuse_ends lets none through


def _pack(codes: Tensor) -> Tensor:
    """int8 codes [rows, out], -8 to 7 -> int32 [rows, out / 8]."""
    eights = (codes.to(torch.int32) + MIDDLE).reshape(len(codes), -1, 8)
    words = torch.zeros(eights.shape[:2], dtype=torch.int32, device=codes.device)
    for nibble, at in enumerate(ORDER):
        words |= eights[:, :, at] << (4 * nibble)
    return words


def unpack_words(words: Tensor) -> Tensor:
    """The codes that ``_pack`` was given."""
    out = torch.empty(*words.shape, 8, dtype=torch.int8, device=words.device)
    for nibble, at in enumerate(ORDER):
        out[:, :, at] = ((words >> (4 * nibble)) & 15) - MIDDLE
    return out.reshape(len(words), -1)


CHECKPOINT = Awq()
