"""Which products of small numbers this machine's CPU has instructions for."""

from __future__ import annotations

import torch
from torch import Tensor

EXACT = 1024  # products of int8 numbers whose sum float32 holds exactly: 2**14 each, 2**24 in all


def _native(test: str) -> bool:
    """What oneDNN says; a torch without it (on Apple's and some Arm CPUs) multiplies in ways of its own."""
    told = getattr(torch.ops.mkldnn, test, None)
    return True if told is None else bool(told())


NATIVE = {
    torch.bfloat16: _native("_is_mkldnn_bf16_supported"),
    torch.float16: _native("_is_mkldnn_fp16_supported"),
    torch.int8: torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2"),
}  # torch multiplies other numbers one by one: bfloat16 a tenth, int8 a twenty-fifth as fast as float32


def wide(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of ``dtype`` are computed faster in float32 there."""
    return device.type == "cpu" and not NATIVE.get(dtype, True)


def integers(left: Tensor, right: Tensor) -> Tensor:
    """Exactly left [rows, in] int8 times right [in, out] int8 -> [rows, out] int32."""
    if not wide(torch.int8, left.device):
        return torch._int_mm(left, right)
    parts = zip(left.split(EXACT, dim=1), right.split(EXACT, dim=0), strict=True)
    return torch.stack([(one.float() @ two.float()).to(torch.int32) for one, two in parts]).sum(0, dtype=torch.int32)


def square(side: Tensor) -> Tensor:
    """A square matrix times itself, as engines multiply such numbers."""
    if side.dtype is torch.int8:
        return integers(side, side)
    return (side.float() @ side.float()).to(side.dtype) if wide(side.dtype, side.device) else side @ side
