"""What GPTQ's two layouts share: codes packed along the input, one word of zero points for several outputs.

    qweight  int32 [in * bits / 32, out]         code + 2^(bits-1), lowest bits first, also across words
    qzeros   int32 [in / group, out * bits / 32]  zero point + 2^(bits-1); layout 1 stores one less
    scales   float16 [in / group, out]
    g_idx    int32 [in]                           the group of each column

Proven by decoding it as those programs' torch kernels do; no runtime that reads it could be installed for that.
Layout 1 is what AutoGPTQ wrote; its zero points wrap around when the zero point is 0, so only symmetric codes are
stored in it. Layout 2 (GPTQModel's ``gptq_v2``) stores them as they are.
Source: AutoGPTQ 0.7, nn_modules/qlinear/qlinear_cuda_old.py; GPTQModel, ``FORMAT.GPTQ_V2``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantgate.formats import IntGrid, Scheme
from quantgate.formats.pack import pack, unpack
from quantgate.quantize.checkpoints import StoredLinear, half
from quantgate.quantize.ends import Ends

WIDTHS = (2, 3, 4, 8)
LEAST_HALF = 2.0**-17  # the smallest power of two from which on every bfloat16 number is a float16 number too
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}  # as runtimes name them


@dataclass(frozen=True)
class Gptq:
    name: str
    layout: int  # 1 or 2
    least_scale: float = LEAST_HALF

    def refuse(self, scheme: Scheme) -> str | None:
        grid = scheme.weights
        if not isinstance(grid, IntGrid) or scheme.activations is not None:
            return "GPTQ layouts hold integer weights and nothing else"
        if grid.bits not in WIDTHS or grid.strategy not in ("channel", "group"):
            return f"GPTQ layouts hold {', '.join(map(str, WIDTHS))} bits with one scale per channel or group"
        if self.layout == 1 and not grid.symmetric:
            return "layout 1 cannot store a zero point of 0; gptq_v2 can"
        return None

    def refuse_layer(self, scheme: Scheme, out: int, columns: int) -> str | None:
        if out % 32 or columns % 32:
            return f"GPTQ layouts pack 32 codes at a time, and [{out}, {columns}] does not divide"
        return None

    def scale_dtype(self, stored: torch.dtype) -> torch.dtype:
        return half(stored)

    def pack(self, layer: StoredLinear) -> dict[str, Tensor]:
        assert isinstance(layer.grid, IntGrid)  # refuse
        bits, columns = layer.grid.bits, layer.codes.shape[1]
        scales = layer.scales.T.contiguous()
        zeros = torch.zeros_like(scales, dtype=torch.int8) if layer.zeros is None else layer.zeros.T
        held = pack(zeros, bits)
        if self.layout == 1:  # every zero point is 2^(bits-1), so one less borrows from no neighbour
            held = pack(zeros - 1, bits)
        return {
            f"{layer.name}.qweight": pack(layer.codes.T.contiguous(), bits, dim=0),
            f"{layer.name}.qzeros": held,
            f"{layer.name}.scales": half_exactly(scales, layer.name),
            f"{layer.name}.g_idx": torch.arange(columns, dtype=torch.int32) // (layer.grid.group_size or columns),
        }

    def unpack(self, name: str, read: Callable[[str], Tensor], scheme: Scheme, bias: Tensor | None) -> StoredLinear:
        grid = scheme.weights
        assert isinstance(grid, IntGrid)  # refuse
        scales, columns = read(f"{name}.scales"), len(read(f"{name}.g_idx"))
        codes = unpack(read(f"{name}.qweight"), grid.bits, (columns, scales.shape[1]), dim=0).T.contiguous()
        zeros = None
        if not grid.symmetric:
            held = read(f"{name}.qzeros")
            zeros = unpack(held, grid.bits, (scales.shape[0], scales.shape[1])).T.contiguous()
        return StoredLinear(name, codes, scales.T.contiguous(), zeros, grid, None, bias)

    def config(self, config: dict[str, Any], scheme: Scheme, kept: Sequence[str]) -> dict[str, Any]:
        grid = scheme.weights
        assert isinstance(grid, IntGrid)  # refuse
        layers = with_fused(name for name in kept if name != "lm_head")
        told = {
            "quant_method": "gptq",
            "checkpoint_format": self.name,
            "bits": grid.bits,
            "group_size": grid.group_size or -1,
            "sym": grid.symmetric,
            "desc_act": False,
            "static_groups": True,
            "lm_head": False,
            "pack_dtype": "int32",
            "meta": {"quantizer": ["quantgate"]},
        }
        if layers:
            told["dynamic"] = {f"-:^{name.replace('.', chr(92) + '.')}$": {} for name in layers}
        return config | {"quantization_config": told}

    def refuse_ends(self, ends: Ends, blocks: Scheme) -> str | None:
        if ends.embeddings is not None:
            return "GPTQ's layouts are of linear layers, and no runtime looks a token up in them; keep the embeddings"
        if ends.lm_head is not None and (reason := self.refuse(ends.lm_head)):
            return reason
        return None if ends.head == "lm_head" else f"its settings know an output layer as 'lm_head', not '{ends.head}'"

    def config_ends(self, told: dict[str, Any], ends: Ends, blocks: Scheme) -> dict[str, Any]:
        """``lm_head: true``; another format than the blocks' is a rule of ``dynamic``, which vLLM and GPTQModel read.

        Source: vLLM, quantization/utils/gptq_utils.py ``get_linear_quant_method``, ``override_config``.
        """
        settings = dict(told["quantization_config"], lm_head=True)
        grid = None if ends.lm_head is None else ends.lm_head.weights
        assert isinstance(grid, IntGrid)  # refuse_ends
        if grid != blocks.weights:
            own = {"bits": grid.bits, "group_size": grid.group_size or -1, "sym": grid.symmetric}
            settings["dynamic"] = {f"+:^{ends.head}$": own, **settings.get("dynamic", {})}
        return told | {"quantization_config": settings}


def with_fused(kept: Iterable[str]) -> list[str]:
    """The ``kept`` layers, and the names under which runtimes that fuse q/k/v or gate/up look them up.

    >>> with_fused(["mlp.gate_proj", "mlp.up_proj"])
    ['mlp.gate_proj', 'mlp.gate_up_proj', 'mlp.up_proj']
    """
    names = set(kept)
    blocks = {name.rpartition(".")[0] for name in names}
    fused = {
        f"{block}.{whole}"
        for block in blocks
        for whole, parts in FUSED.items()
        if all(f"{block}.{part}" in names for part in parts)
    }
    return sorted(names | fused)


def half_exactly(scales: Tensor, name: str) -> Tensor:
    """``scales`` as float16. Raises FormatError when one of them is no float16 number."""
    from quantgate.errors import FormatError

    stored = scales.to(torch.float16)
    if not torch.equal(stored.float(), scales.float()):
        wrong = float(scales[stored.float() != scales.float()].abs().min())
        raise FormatError(
            f"{name}: its scale {wrong:.3g} is no float16 number, and this container stores no others; "
            f"choose compressed_tensors, or list '{name}' under keep"
        )
    return stored
