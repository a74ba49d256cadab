"""compressed-tensors: the container that vLLM, SGLang and transformers read.

    layout            schemes                    tensors of a linear layer [out, in]
    pack-quantized    W1A16 to W8A16, W4A4       weight_packed int32 [out, ceil(in*bits/32)]
                                                 weight_scale [out, in/group], weight_shape int64 [2]
                                                 weight_zero_point int32 [ceil(out*bits/32), in/group]
    int-quantized     W8A8                       weight int8 [out, in], weight_scale [out, 1]
                      W4A8                       the same, 4-bit codes in a byte each, weight_scale [out, in/group]
    float-quantized   FP8_DYNAMIC                weight float8_e4m3fn [out, in], weight_scale [out, 1]
                      FP8                        weight_scale [1], input_scale [1]
                      FP8_BLOCK                  weight_scale [out/128, in/128]
    nvfp4-pack-...    NVFP4A16 NVFP4             weight_packed uint8 [out, in/2], two codes a byte
                                                 weight_scale float8_e4m3fn [out, in/16]
                                                 weight_global_scale float32 [1], a divisor of the scales
                                                 input_global_scale float32 [1], of NVFP4 alone
    mxfp4-pack-...    MXFP4A16 MXFP4             weight_packed uint8 [out, in/2]
                                                 weight_scale uint8 [out, in/32], powers of two, 127 for 1

Codes of 3 bits are packed densely, as compressed-tensors 0.20 does (32 codes in 3 words); old readers expected ten
codes a word and would misread them. Zero points (asymmetric schemes) are packed along the output dimension. What writes
here loads in transformers 5.23 with compressed-tensors 0.20 to the same logits, bit for bit for weight-only schemes; an
asymmetric scheme needs ``CompressedTensorsConfig(dequantize=True)`` there, because without it that pair of versions
expects the zero points unpacked and stops with a size mismatch. That path is also the only one that opens an embedding
table in codes, and it decodes every layer by the first group's format.
Source: compressed-tensors 0.20, compressors/pack_quantized, compressors/naive_quantized, quantization/quant_config.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from quantgate.formats import BlockGrid, FloatGrid, Fp4Grid, Grid, IntGrid, Scheme
from quantgate.formats.codec import FP8
from quantgate.formats.pack import pack, pack_fp4, unpack, unpack_fp4
from quantgate.formats.schemes import KV_CACHES
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.ends import Ends

LAYOUT_VERSION = "0.20.0"  # the compressed-tensors release that these layouts were proven with


class CompressedTensors:
    name = "compressed_tensors"
    least_scale = 0.0

    def refuse(self, scheme: Scheme) -> str | None:
        if scheme.weights is None:
            return "it quantizes nothing"
        if isinstance(scheme.weights, BlockGrid):
            return "block formats belong in a GGUF file"
        if scheme.weights.strategy == "token":
            return "weights have no tokens to take scales from"
        if isinstance(scheme.weights, IntGrid) and not scheme.packed and scheme.weights.bits not in (4, 8):
            return "integer weights beside quantized activations are stored one code per byte, of 4 or 8 bits"
        if not scheme.weights.symmetric and scheme.weights.strategy == "tensor":
            return "packed zero points need one scale per channel or group"
        return None

    def refuse_layer(self, scheme: Scheme, out: int, columns: int) -> str | None:
        return None

    def scale_dtype(self, stored: torch.dtype) -> torch.dtype:
        return stored

    def pack(self, layer: StoredLinear) -> dict[str, Tensor]:
        at, grid = layer.name, layer.grid
        told = {} if layer.input_scale is None else {f"{at}.{_input_scale(layer.activations)}": layer.input_scale}
        if isinstance(grid, Fp4Grid):
            return _pack_fp4(layer, grid) | told
        if not isinstance(grid, IntGrid) or not _packed(grid, layer.activations):
            return {f"{at}.weight": layer.codes, f"{at}.weight_scale": layer.scales} | told
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
        given = read(f"{name}.{_input_scale(scheme.activations)}") if scheme.calibrated else None
        if isinstance(grid, Fp4Grid):
            return _unpack_fp4(name, read, grid, scheme, bias, given)
        scales, zeros = read(f"{name}.weight_scale"), None
        if scheme.packed and isinstance(grid, IntGrid):
            out, columns = (int(side) for side in read(f"{name}.weight_shape"))
            codes = unpack(read(f"{name}.weight_packed"), grid.bits, (out, columns))
            if not grid.symmetric:
                zeros = unpack(read(f"{name}.weight_zero_point"), grid.bits, (out, scales.shape[1]), dim=0)
        else:
            codes = read(f"{name}.weight")
        return StoredLinear(name, codes, scales, zeros, grid, scheme.activations, bias, input_scale=given)

    def config(self, config: dict[str, Any], scheme: Scheme, kept: Sequence[str]) -> dict[str, Any]:
        return self._told(config, [(scheme, ["Linear"])], kept)

    def mixed_config(
        self, config: dict[str, Any], schemes: Mapping[str, Scheme], kept: Sequence[str]
    ) -> dict[str, Any]:
        """``config`` for layers of several ``schemes``: one group a scheme, each naming its layers."""
        groups: dict[str, tuple[Scheme, list[str]]] = {}
        for layer, scheme in sorted(schemes.items()):
            groups.setdefault(scheme.label, (scheme, []))[1].append(layer)
        return self._told(config, [groups[label] for label in sorted(groups)], kept)

    def refuse_ends(self, ends: Ends, blocks: Scheme) -> str | None:
        """transformers 5.23 reads a table in codes, and zero points, only where it decodes while loading
        (``dequantize=True``), and there it takes the first group's format for all layers."""
        alike = all(scheme == blocks for scheme in ends.coded.values())
        if ends.embeddings is not None and not alike:
            return (
                "transformers opens embeddings in codes only while it decodes the whole model by one format; "
                f"choose {blocks.label} for them and for an lm_head in codes, or keep the embeddings"
                if blocks.activations is None
                else "transformers opens embeddings in codes only while it decodes the whole model by one weight-only "
                f"format, and {blocks.label} is none; keep the embeddings"
            )
        grids = [one.weights for one in (blocks, ends.lm_head) if one is not None and one.weights is not None]
        if not alike and not all(grid.symmetric for grid in grids):
            return (
                "transformers opens zero points only while it decodes the whole model by one format; choose "
                f"{blocks.label}, or schemes without zero points"
            )
        return None

    def config_ends(self, told: dict[str, Any], ends: Ends, blocks: Scheme) -> dict[str, Any]:
        """Each module by its name in the group of its scheme: the blocks', or one of its own."""
        settings = dict(told["quantization_config"])
        groups = {label: dict(group) for label, group in settings["config_groups"].items()}
        for name, scheme in sorted(ends.coded.items()):
            alike = next((one for one in groups.values() if one == self._group(scheme, one["targets"])), None)
            if alike is None:
                groups[f"group_{len(groups)}"] = self._group(scheme, [name])
            else:
                alike["targets"] = [*alike["targets"], name]
        layouts = {group["format"] for group in groups.values()}
        settings |= {"config_groups": groups, "format": layouts.pop() if len(layouts) == 1 else "mixed-precision"}
        return told | {"quantization_config": settings}

    def _told(
        self, config: dict[str, Any], groups: Sequence[tuple[Scheme, list[str]]], kept: Sequence[str]
    ) -> dict[str, Any]:
        layouts = {self.layout(scheme) for scheme, _ in groups}
        return config | {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "format": layouts.pop() if len(layouts) == 1 else "mixed-precision",
                "quantization_status": "compressed",
                "config_groups": {f"group_{at}": self._group(*group) for at, group in enumerate(groups)},
                "ignore": sorted(kept),
                "kv_cache_scheme": None,
                "global_compression_ratio": None,
                "version": LAYOUT_VERSION,
            }
        }

    def _group(self, scheme: Scheme, targets: list[str]) -> dict[str, Any]:
        return {
            "targets": targets,
            "weights": _arguments(scheme.weights),
            "input_activations": _arguments(scheme.activations, activations=True),
            "output_activations": None,
            "format": self.layout(scheme),
        }

    def layout(self, scheme: Scheme) -> str:
        if isinstance(scheme.weights, Fp4Grid):
            return "nvfp4-pack-quantized" if scheme.weights.scales == "fp8" else "mxfp4-pack-quantized"
        if isinstance(scheme.weights, FloatGrid):
            return "float-quantized"
        return "pack-quantized" if scheme.packed else "int-quantized"


def kv_cache_arguments(format: str) -> dict[str, Any] | None:
    """compressed-tensors' ``kv_cache_scheme``; None for a scale per token and head, which it has no words for."""
    grid = KV_CACHES[format]
    if grid.strategy != "tensor":
        return None
    return {
        "num_bits": grid.bits,
        "type": grid.type,
        "symmetric": True,
        "strategy": "tensor",
        "dynamic": False,
        "observer": "minmax",
    }


def _packed(weights: Grid, activations: Grid | None) -> bool:
    return Scheme(name="stored", weights=weights, activations=activations).packed


def _input_scale(activations: Grid | None) -> str:
    return "input_global_scale" if isinstance(activations, Fp4Grid) else "input_scale"


def _arguments(grid: Grid | None, *, activations: bool = False) -> dict[str, Any] | None:
    """compressed-tensors' ``QuantizationArgs`` for a grid."""
    if grid is None:
        return None
    if isinstance(grid, Fp4Grid):
        return _fp4_arguments(grid, dynamic=activations)
    dynamic = activations and grid.strategy != "tensor"
    block = {"block_structure": [grid.group_size] * 2} if grid.strategy == "block" else {}
    return {
        "num_bits": grid.bits,
        "type": grid.type,
        "symmetric": grid.symmetric,
        "strategy": grid.strategy,
        "group_size": None if block else grid.group_size,
        "dynamic": dynamic,
        "observer": None if dynamic else "minmax",
    } | block


def _fp4_arguments(grid: Fp4Grid, *, dynamic: bool) -> dict[str, Any]:
    scale = "torch.float8_e4m3fn" if grid.scales == "fp8" else "torch.uint8"
    return {
        "num_bits": 4,
        "type": "float",
        "symmetric": True,
        "strategy": "tensor_group" if grid.scales == "fp8" else "group",
        "group_size": grid.group_size,
        "dynamic": "local" if dynamic and grid.scales == "fp8" else dynamic,
        "observer": "static_minmax" if dynamic and grid.scales == "fp8" else None if dynamic else "minmax",
        "scale_dtype": scale,
        "zp_dtype": scale,
    }


def _pack_fp4(layer: StoredLinear, grid: Fp4Grid) -> dict[str, Tensor]:
    packed = {f"{layer.name}.weight_packed": pack_fp4(layer.codes)}
    if grid.scales == "e8m0":
        exponents = torch.frexp(layer.scales).exponent - 1
        return packed | {f"{layer.name}.weight_scale": (exponents + 127).to(torch.uint8)}
    shared = torch.tensor([layer.global_scale])
    return packed | {
        f"{layer.name}.weight_scale": (layer.scales * shared).to(FP8),
        f"{layer.name}.weight_global_scale": shared,
    }


def _unpack_fp4(
    name: str,
    read: Callable[[str], Tensor],
    grid: Fp4Grid,
    scheme: Scheme,
    bias: Tensor | None,
    given: Tensor | None,
) -> StoredLinear:
    codes, stored = unpack_fp4(read(f"{name}.weight_packed")), read(f"{name}.weight_scale")
    if grid.scales == "e8m0":
        scales = torch.ldexp(torch.ones(stored.shape), stored.int() - 127)
        return StoredLinear(name, codes, scales, None, grid, scheme.activations, bias)
    shared = read(f"{name}.weight_global_scale").float()
    return StoredLinear(
        name, codes, stored.float() / shared, None, grid, scheme.activations, bias, float(shared), given
    )


CHECKPOINT = CompressedTensors()
