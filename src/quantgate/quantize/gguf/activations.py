"""What llama.cpp's CPU kernels round a layer's input to, by the type of its weights.

A matrix of blocks is multiplied in integers: each input row is first rounded to 8 bits, in blocks of 32 with a float16
scale (Q8_0, Q8_1) or of 256 with a float32 one (Q8_K). A reference that rounds alike differs from the runtime only in
the order of sums.
Source: ggml-cpu.c ``type_traits_cpu[].vec_dot_type``; ggml-quants.c ``quantize_row_q8_0_ref`` and those beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARTNER = {  # weights -> inputs
    "F32": "F32", "F16": "F16", "BF16": "BF16",
    "Q4_0": "Q8_0", "Q5_0": "Q8_0", "Q8_0": "Q8_0", "IQ4_NL": "Q8_0", "MXFP4": "Q8_0", "NVFP4": "Q8_0",
    "Q4_1": "Q8_1", "Q5_1": "Q8_1",
    "Q2_K": "Q8_K", "Q3_K": "Q8_K", "Q4_K": "Q8_K", "Q5_K": "Q8_K", "Q6_K": "Q8_K",
    "IQ2_XXS": "Q8_K", "IQ2_XS": "Q8_K", "IQ2_S": "Q8_K", "IQ3_XXS": "Q8_K", "IQ3_S": "Q8_K", "IQ1_S": "Q8_K",
    "IQ1_M": "Q8_K", "IQ4_XS": "Q8_K", "TQ1_0": "Q8_K", "TQ2_0": "Q8_K",
}  # fmt: skip
LEVELS = 127


def round_inputs(x: Tensor, weights: str) -> Tensor:
    """``x`` [..., in] as a kernel for the type ``weights`` sees it, in its own dtype."""
    partner = PARTNER[weights]
    if partner in ("F32", "F16", "BF16"):
        kept = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[partner]
        return x.to(kept).to(x.dtype)
    size = 256 if partner == "Q8_K" else 32
    groups = x.float().reshape(*x.shape[:-1], -1, size)
    if partner == "Q8_K":
        signed = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))  # the largest magnitude with its sign
        factor = torch.where(signed == 0, signed, _over(-LEVELS, signed))
        codes = (groups * factor).round().clamp_(max=LEVELS)
        return (codes * torch.where(signed == 0, signed, _over(1, factor))).reshape(x.shape).to(x.dtype)
    largest = groups.abs().amax(-1, keepdim=True)
    codes = (groups * torch.where(largest == 0, largest, _over(LEVELS, largest))).round()
    return (codes * (largest / LEVELS).half().float()).reshape(x.shape).to(x.dtype)


def _over(number: int, x: Tensor) -> Tensor:
    """``number`` divided by x, rounded once.

    torch's own ``number / x`` is number * (1 / x), another last bit in a quarter of all cases, and it decides the ties
    that inputs on a coarser grid are.
    """
    return torch.full_like(x, number).div(x)
