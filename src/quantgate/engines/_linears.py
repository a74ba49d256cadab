"""Linear layers that compute from codes: which kernel torch offers for a scheme, and what runs where it offers none.

On a CPU torch 2.13 multiplies low-bit weights directly:

    scheme        kernel                              needs
    int2-4, A16   _weight_int4pack_mm_for_cpu         symmetric, group in {32, 64, 128, 256} that divides in, out % 16 == 0
    int8, A16     _weight_int8pack_mm                 symmetric, one scale per output channel
    int8, A8      _int_mm on int8 activations         symmetric, one scale per output channel
    anything else dequantized weights, plain matmul   nothing; recorded as a fallback with its reason

2- and 3-bit codes are also 4-bit codes, with the same scales, so they run on the int4 kernel exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantgate.formats import FloatGrid
from quantgate.formats.codec import quantize_activations
from quantgate.quantize.checkpoints import StoredLinear

INT4_GROUPS = (32, 64, 128, 256)


class DequantizedLinear(nn.Module):
    """Weights decoded once; activations rounded as the scheme says."""

    got = "dequantized matmul"

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Buffer(stored.dequantized(dtype))
        self.bias = _bias(stored, dtype)
        self.activations = stored.activations

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        if self.activations is not None:
            x = quantize_activations(x, self.activations)
        return F.linear(x, self.weight, self.bias)


class Int4Linear(nn.Module):
    """Weight-only, 2 to 4 bits, groups along the input."""

    got = "int4 packed kernel"

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__()
        group = stored.grid.group_size
        self.group = group if group is not None else stored.codes.shape[1]
        unsigned = stored.codes.to(torch.int32) + 8  # the kernel computes (code - 8) * scale + zero
        self.packed = nn.Buffer(torch.ops.aten._convert_weight_to_int4pack_for_cpu(unsigned, 1))
        scales = stored.scales.to(torch.bfloat16).t().contiguous()  # [in / group, out]
        self.scales = nn.Buffer(torch.stack([scales, torch.zeros_like(scales)], dim=-1).contiguous())
        self.bias = _bias(stored, dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows.bfloat16(), self.packed, self.group, self.scales)
        return _finish(out, x, self.bias)


class Int8Linear(nn.Module):
    """Weight-only, 8 bits, one scale per output channel."""

    got = "int8 weight kernel"

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.codes = nn.Buffer(stored.codes.contiguous())
        self.scales = nn.Buffer(stored.scales.to(torch.bfloat16).flatten())
        self.bias = _bias(stored, dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        return _finish(torch._weight_int8pack_mm(rows, self.codes, self.scales), x, self.bias)


class Int8DynamicLinear(nn.Module):
    """8-bit weights and 8-bit activations: integers are multiplied, one scale per token and one per output channel."""

    got = "int8 x int8 kernel"

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.codes = nn.Buffer(stored.codes.t())  # [in, out], a view: the kernel wants columns
        self.scales = nn.Buffer(stored.scales.float().flatten())
        self.bias = _bias(stored, dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        codes, scale = token_codes(rows)
        out = torch._int_mm(codes, self.codes).float() * (scale.float() * self.scales)
        return _finish(out, x, self.bias)


def token_codes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes [tokens, in] and scales [tokens, 1] of activations, in the steps of ``quantize_activations``."""
    scale = rows.abs().amax(dim=-1, keepdim=True) / 127.5
    scale = torch.where(scale == 0, torch.finfo(scale.dtype).eps, scale)
    return (rows / scale).clamp(-128, 127).round().to(torch.int8), scale


def _finish(out: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    out = out.to(x.dtype).reshape(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def _bias(stored: StoredLinear, dtype: torch.dtype) -> nn.Buffer | None:
    return None if stored.bias is None else nn.Buffer(stored.bias.to(dtype))


def build(stored: StoredLinear, dtype: torch.dtype, device: torch.device, kernels: str) -> tuple[nn.Module, str, str]:
    """The module that runs ``stored``, the kernel that was wanted, and why it is another one (or "")."""
    kind, refusal = wanted(stored, dtype, device)
    if kernels == "dequantize":
        refusal = "kernels: dequantize was asked for" if kind is not DequantizedLinear else ""
    return (DequantizedLinear if refusal else kind)(stored, dtype), kind.got, refusal


def wanted(stored: StoredLinear, dtype: torch.dtype, device: torch.device) -> tuple[type[nn.Module], str]:
    """The fastest kernel for the scheme, and why it cannot take this layer (or "")."""
    grid, (out, columns) = stored.grid, stored.codes.shape
    if isinstance(grid, FloatGrid):
        return DequantizedLinear, ""  # a CPU has no fp8 units: emulated, and named so
    kind: type[nn.Module]
    refusal = ""
    if stored.activations is not None:
        kind = Int8DynamicLinear
        if grid.strategy != "channel" or grid.bits != 8:
            refusal = f"{grid.bits}-bit {grid.strategy} weights with rounded activations have no kernel"
    elif grid.bits <= 4:
        kind, group = Int4Linear, grid.group_size if grid.strategy == "group" else columns
        if group not in INT4_GROUPS:
            refusal = f"groups of {group} columns; the kernel takes {', '.join(map(str, INT4_GROUPS))}"
        elif out % 16:
            refusal = f"{out} outputs; the kernel takes multiples of 16"
    else:
        kind = Int8Linear
        if grid.bits != 8 or grid.strategy != "channel":
            refusal = f"{grid.bits}-bit {grid.strategy} weights; the kernel takes 8 bits with one scale per channel"
    if stored.zeros is not None:
        refusal = "zero points; the kernel takes symmetric codes"
    elif dtype is not torch.bfloat16 and kind is not Int8DynamicLinear:
        refusal = f"activations in {str(dtype).removeprefix('torch.')}; the kernel takes bfloat16"
    elif device.type != "cpu":
        refusal = f"device {device.type}; the kernel is for CPUs"
    return kind, refusal

