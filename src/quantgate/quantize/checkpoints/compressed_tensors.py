"""compressed-tensors: the container that vLLM, SGLang and transformers read.

    layout            schemes                    tensors of a linear layer [out, in]
    pack-quantized    W2A16 W3A16 W4A16 W8A16    weight_packed int32 [out, ceil(in*bits/32)]
                                                 weight_scale [out, in/group], weight_shape int64 [2]
                                                 weight_zero_point int32 [ceil(out*bits/32), in/group]
    int-quantized     W8A8                       weight int8 [out, in], weight_scale [out, 1]
    float-quantized   FP8_DYNAMIC                weight float8_e4m3fn [out, in], weight_scale [out, 1]

Codes of 3 bits are packed densely, as compressed-tensors 0.20 does (32 codes in 3 words); old readers expected ten
codes a word and would misread them. Zero points (asymmetric schemes) are packed along the output dimension. What writes
here loads in transformers 5.23 with compressed-tensors 0.20 to the same logits, bit for bit for weight-only schemes; an
asymmetric scheme needs ``CompressedTensorsConfig(dequantize=True)`` there, because without it that pair of versions
expects the zero points unpacked and stops with a size mismatch.
Source: compressed-tensors 0.20, compressors/pack_quantized, compressors/naive_quantized, quantization/quant_config.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quantgate.formats import FloatGrid, Grid, IntGrid, Scheme
from quantgate.formats.pack import pack, unpack
from quantgate.quantize.checkpoints import StoredLinear

LAYOUT_VERSION = "0.20.0"  # the compressed-tensors release that these layouts were proven with


class CompressedTensors:
    name = "compressed_tensors"

    def refuse(self, scheme: Scheme) -> str | None:
        if scheme.weights is None:
            return "it quantizes nothing"
        if scheme.weights.strategy == "token":
            return "weights have no tokens to take scales from"
        if isinstance(scheme.weights, IntGrid) and not scheme.packed and scheme.weights.bits != 8:
            return "integer weights beside quantized activations are stored one code per byte, which means 8 bits"
        if not scheme.weights.symmetric and scheme.weights.strategy == "tensor":
            return "packed zero points need one scale per channel or group"
        return None

    def pack(self, layer: StoredLinear) -> dict[str, Tensor]:
        at, grid = layer.name, layer.grid
        if layer.activations is not None or not isinstance(grid, IntGrid):
            return {f"{at}.weight": layer.codes, f"{at}.weight_scale": layer.scales}
        tensors = {
            f"{at}.weight_packed": pack(layer.codes, grid.bits),
            f"{at}.weight_scale": layer.scales,
            f"{at}.weight_shape": torch.tensor(layer.codes.shape, dtype=torch.int64),
        }
        if layer.zeros is not None:
            tensors[f"{at}.weight_zero_point"] = pack(layer.zeros, grid.bits, dim=0)
        return tensors

    def unpack(self, name: str, read: Callable[[str], Tensor], scheme: Scheme, bias: Tensor | None) -> StoredLinear:
        grid = scheme.weights
        assert grid is not None  # a stored layer has a weight format
        scales, zeros = read(f"{name}.weight_scale"), None
        if scheme.packed and isinstance(grid, IntGrid):
            out, columns = (int(side) for side in read(f"{name}.weight_shape"))
            codes = unpack(read(f"{name}.weight_packed"), grid.bits, (out, columns))
            if not grid.symmetric:
                zeros = unpack(read(f"{name}.weight_zero_point"), grid.bits, (out, scales.shape[1]), dim=0)
        else:
            codes = read(f"{name}.weight")
        return StoredLinear(name, codes, scales, zeros, grid, scheme.activations, bias)

    def config(self, config: dict[str, Any], scheme: Scheme, kept: Sequence[str]) -> dict[str, Any]:
        layout = self.layout(scheme)
        group = {
            "targets": ["Linear"],
            "weights": _arguments(scheme.weights),
            "input_activations": _arguments(scheme.activations),
            "output_activations": None,
            "format": layout,
        }
        return config | {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "format": layout,
                "quantization_status": "compressed",
                "config_groups": {"group_0": group},
                "ignore": sorted(kept),
                "kv_cache_scheme": None,
                "global_compression_ratio": None,
                "version": LAYOUT_VERSION,
            }
        }

    def layout(self, scheme: Scheme) -> str:
        if isinstance(scheme.weights, FloatGrid):
            return "float-quantized"
        return "pack-quantized" if scheme.packed else "int-quantized"


def _arguments(grid: Grid | None) -> dict[str, Any] | None:
    """compressed-tensors' ``QuantizationArgs`` for a grid."""
    if grid is None:
        return None
    dynamic = grid.strategy == "token"
    return {
        "num_bits": grid.bits,
        "type": grid.type,
        "symmetric": grid.symmetric,
        "strategy": grid.strategy,
        "group_size": grid.group_size,
        "dynamic": dynamic,
        "observer": None if dynamic else "minmax",
    }


CHECKPOINT = CompressedTensors()
