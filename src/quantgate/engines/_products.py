"""Products of 16-bit numbers on a CPU that has no instructions for them: in float32, rounded once.

Such CPUs (no AVX-512, no AMX) take ten times as long for them in torch 2.13, which falls back to a plain loop. Decoding
the weight costs about what four rows cost, so fewer rows stay with torch. One core with AVX2, 768 x 256, in ms:

    rows        1     4     16     64    512
    bfloat16  0.05  0.19   0.74   2.98   24.0
    here      0.05  0.11   0.16   0.37    2.5
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantgate.hardware.products import wide

ROWS = 4  # from so many on


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in], weight [out, in], both of one type -> [..., out] of that type."""
    if x.numel() < ROWS * x.shape[-1] or not wide(x.dtype, x.device):
        return F.linear(x, weight, bias)
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


class WideLinear(nn.Linear):
    """A linear layer whose products are ``linear``'s."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def widen(network: nn.Module, dtype: torch.dtype, device: torch.device) -> bool:
    """Make the plain linear layers of ``network`` wide ones, in place, where that is faster; whether they are."""
    if not wide(dtype, device):
        return False
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = WideLinear  # its weights stay, which a tied table shares
    return True
