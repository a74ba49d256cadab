"""Linear layers that compute from codes: which kernel torch offers for a scheme, and what runs where it offers none.

On a CPU torch multiplies low-bit weights directly:

    scheme        kernel                        needs
    int2-4, A16   _weight_int4pack_mm_for_cpu   symmetric, groups of a multiple of 32 columns, out % 16 == 0
    int8, A16     _weight_int8pack_mm           symmetric, one scale per output channel, in % 16 == 0
    int8, A8      _int_mm                       symmetric, one scale per output channel
    anything else dequantized weights, matmul   nothing; recorded as a fallback with its reason

2- and 3-bit codes are also 4-bit codes with the same scales, and a scale of 768 columns is three equal ones of 256, so
these run on the int4 kernel exactly. With other widths ``_weight_int8pack_mm`` of torch 2.13 reads past its buffers
(width 40 gave infinities, then a crash), so they are refused here.

The two weight-only kernels read fewer bytes, which is what one token per row waits for, but they multiply slower than
bfloat16: at 4096 x 4096 one row takes 0.3 of its time, 512 rows 2.5 times as long. So more than KERNEL_ROWS rows, that
is prompts, decode the weight and multiply it, as GPU runtimes do; ``got`` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quantgate.engines._products import linear
from quantgate.formats import BlockGrid, FloatGrid, Fp4Grid
from quantgate.formats.codec import quantize_activations
from quantgate.hardware.products import integers
from quantgate.quantize.checkpoints import DecodedLinear, StoredLinear

INT4_GROUPS = (256, 128, 64, 32)
KERNEL_ROWS = 64  # at most; measured break-even with decoding first: 33 rows at 768 x 256, 98 at 4096 x 4096
ABOVE = f", decoded above {KERNEL_ROWS} rows"


class Rounded:
    """What an input was rounded to, kept while the next layers read the same tensor: q, k and v, or gate and up."""

    def __init__(self) -> None:
        self.seen: Tensor | None = None
        self.made: dict[type[nn.Module], Any] = {}  # by the kind of layer that asked

    def of(self, x: Tensor, kind: type[nn.Module], how: Callable[[Tensor], Any]) -> Any:
        if x is not self.seen:
            self.seen, self.made = x, {}
        if kind not in self.made:
            self.made[kind] = how(x)
        return self.made[kind]


class RoundingLinear(nn.Module):
    """A layer that rounds its input; ``rounded`` may be shared with the layers that read the same one."""

    def __init__(self) -> None:
        super().__init__()
        self.rounded = Rounded()


class DequantizedLinear(RoundingLinear):
    """Weights decoded once; activations rounded as the scheme says."""

    got = "dequantized matmul"

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Buffer(stored.dequantized(dtype))
        self.bias = _bias(stored, dtype)
        self.activations = stored.activations
        self.input_scale = None if stored.input_scale is None else nn.Buffer(stored.input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        if self.activations is not None:
            x = self.rounded.of(x, DequantizedLinear, self._round)
        return linear(x, self.weight, self.bias)

    def _round(self, x: Tensor) -> Tensor:
        assert self.activations is not None  # forward
        return quantize_activations(x, self.activations, self.input_scale)


class WeightOnlyLinear(nn.Module):
    """A kernel for few rows, and the same codes decoded for many. Activations are bfloat16."""

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.codes = nn.Buffer(stored.codes.contiguous())  # [out, in] int8
        self.scales = nn.Buffer(stored.scales.to(dtype).contiguous())  # [out, in / group]
        self.bias = _bias(stored, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) > KERNEL_ROWS:
            return linear(x, self.decoded(), self.bias)
        return _finish(self.few(rows), x, self.bias)

    def decoded(self) -> Tensor:
        """[out, in]: ``code * scale`` rounded once, the numbers of ``StoredLinear.dequantized``."""
        grouped = self.codes.view(*self.scales.shape, -1)
        return grouped.to(self.scales.dtype).mul_(self.scales.unsqueeze(-1)).view(self.codes.shape)

    def few(self, rows: Tensor) -> Tensor:
        """rows [n, in] -> [n, out] on the kernel."""
        raise TypeError("WeightOnlyLinear names no kernel; use one of its subclasses")


class Int4Linear(WeightOnlyLinear):
    """Weight-only, 2 to 4 bits, groups along the input."""

    got = "int4 packed kernel" + ABOVE

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__(stored, dtype)
        group = stored.codes.shape[1] // self.scales.shape[1]
        self.group = kernel_group(group) or group
        unsigned = stored.codes.to(torch.int32) + 8  # the kernel computes (code - 8) * scale + zero
        self.packed = nn.Buffer(torch.ops.aten._convert_weight_to_int4pack_for_cpu(unsigned, 1))
        scales = self.scales.repeat_interleave(group // self.group, dim=1).t()  # [in / group, out]
        self.scales_and_zeros = nn.Buffer(torch.stack([scales, torch.zeros_like(scales)], dim=-1).contiguous())

    def few(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, self.group, self.scales_and_zeros)
        return out


class Int8Linear(WeightOnlyLinear):
    """Weight-only, 8 bits, one scale per output channel."""

    got = "int8 weight kernel" + ABOVE

    def few(self, rows: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(rows, self.codes, self.scales.view(-1))


class Int8DynamicLinear(RoundingLinear):
    """8-bit weights and activations, multiplied exactly as integers; one scale per token and one per output channel."""

    got = "int8 x int8 kernel"

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.codes = nn.Buffer(stored.codes.t().contiguous())  # [in, out]; as a view, 2 to 64 rows take twice as long
        self.scales = nn.Buffer(stored.scales.float().flatten())
        self.bias = _bias(stored, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        codes, scale = self.rounded.of(x, Int8DynamicLinear, lambda one: token_codes(one.reshape(-1, one.shape[-1])))
        out = integers(codes, self.codes).float().mul_(self.scales).mul_(scale)
        return _finish(out, x, self.bias)


def token_codes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes [tokens, in] and float32 scales [tokens, 1], rounded as ``quantize_activations`` does."""
    scale = rows.abs().amax(dim=-1, keepdim=True) / 127.5
    scale = torch.where(scale == 0, torch.finfo(scale.dtype).eps, scale)
    return (rows / scale).clamp_(-128, 127).round_().to(torch.int8), scale.float()


def kernel_group(columns: int) -> int | None:
    """The widest group of the int4 kernel that divides a group of ``columns``, or None.

    >>> kernel_group(768), kernel_group(96), kernel_group(16)
    (256, 32, None)
    """
    return next((size for size in INT4_GROUPS if columns % size == 0), None)


def _finish(out: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    out = out.to(x.dtype).reshape(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def _bias(stored: StoredLinear, dtype: torch.dtype) -> nn.Buffer | None:
    return None if stored.bias is None else nn.Buffer(stored.bias.to(dtype))


def build(
    stored: StoredLinear, dtype: torch.dtype, device: torch.device, kernels: str, rounded: Rounded | None = None
) -> tuple[nn.Module, str, str, str]:
    """The module that runs ``stored``, the path that was asked for, the one it got, and why they differ (or "").

    Layers that may read one input share ``rounded``.
    """
    kind, refusal = wanted(stored, dtype, device)
    if kernels == "dequantize" and kind is not DequantizedLinear:
        refusal = "kernels: dequantize was asked for"
    used = DequantizedLinear if refusal else kind
    module = used(stored, dtype)
    if rounded is not None and isinstance(module, RoundingLinear):
        module.rounded = rounded
    return module, _path(kind, stored), _path(used, stored), refusal


def _path(kind: Any, stored: StoredLinear) -> str:
    emulated = kind is DequantizedLinear and stored.activations is not None
    return f"{kind.got}, activations emulated" if emulated else str(kind.got)


def wanted(stored: StoredLinear, dtype: torch.dtype, device: torch.device) -> tuple[type[nn.Module], str]:
    """The fastest path for the scheme, and why it cannot take this layer (or "")."""
    grid, (out, columns) = stored.grid, stored.codes.shape
    if isinstance(stored, DecodedLinear) or isinstance(grid, BlockGrid):
        return DequantizedLinear, ""  # these kernels are llama.cpp's
    if isinstance(grid, FloatGrid | Fp4Grid):
        return DequantizedLinear, ""  # a CPU has no fp8 or fp4 units: emulated, and named so
    kind: type[nn.Module]
    refusal = ""
    per_channel = grid.strategy == "channel"
    if stored.activations is not None:
        kind = Int8DynamicLinear
        if grid.bits != 8 or not per_channel or isinstance(stored.activations, FloatGrid):
            refusal = f"{grid.bits}-bit {grid.strategy} weights; the kernel takes 8 bits with one scale per channel"
        elif stored.activations.bits != 8:
            refusal = f"{stored.activations.bits}-bit inputs; the kernel takes 8 bits"
    elif grid.bits <= 4:
        kind, group = Int4Linear, grid.group_size or columns
        if grid.strategy == "tensor":
            refusal = "one scale for all; the kernel takes groups or channels"
        elif kernel_group(group) is None:
            refusal = f"groups of {group} columns; the kernel takes multiples of {INT4_GROUPS[-1]}"
        elif out % 16:
            refusal = f"{out} outputs; the kernel takes multiples of 16"
    else:
        kind = Int8Linear
        if grid.bits != 8 or not per_channel:
            refusal = f"{grid.bits}-bit {grid.strategy} weights; the kernel takes 8 bits with one scale per channel"
        elif columns % 16:
            refusal = f"{columns} inputs; the kernel takes multiples of 16"
    if stored.group_of is not None:
        refusal = "columns grouped out of order; the kernel takes groups of columns side by side"
    elif stored.zeros is not None:
        refusal = "zero points; the kernel takes symmetric codes"
    elif dtype is not torch.bfloat16 and kind is not Int8DynamicLinear:
        refusal = f"activations in {str(dtype).removeprefix('torch.')}; the kernel takes bfloat16"
    elif device.type != "cpu":
        refusal = f"device {device.type}; the kernel is for CPUs"
    return kind, refusal
