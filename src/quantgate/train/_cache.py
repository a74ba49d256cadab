"""A KV cache that keeps nothing and rounds everything, as a runtime's cache would have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from quantgate.quantize.kv_cache import SIDES, Rounding
from quantgate.quantize.manifest import StoredCache
from quantgate.train.fake import round_input, stored_number


class _Layer(CacheLayerMixin):
    """One attention's keys and values [rows, heads, tokens, width], each rounded, with gradients."""

    def __init__(self, rounding: Rounding, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.grid = rounding.grid
        self.scales = [None if scale is None else scale.to(device) for scale in rounding.scales]
        self.logs = [None if scale is None else nn.Parameter(torch.zeros(1, device=device)) for scale in self.scales]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        keys, values = (
            round_input(states, self.grid, scale, log)
            for states, scale, log in zip((key_states, value_states), self.scales, self.logs, strict=True)
        )
        return keys, values

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class RoundedCache(Cache):
    """One for all batches, since it keeps nothing. Scales of fp8 are trained; those of int8 and int4 are made anew."""

    def __init__(self, roundings: Sequence[Rounding], stored: StoredCache, device: torch.device) -> None:
        self.rounded = [_Layer(rounding, device) for rounding in roundings]
        self.names = [f"{attention}.{{}}_scale" for attention in stored.attentions]
        super().__init__(layers=list(self.rounded))

    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            name.format(side) + ".log": log
            for name, layer in zip(self.names, self.rounded, strict=True)
            for side, log in zip(SIDES, layer.logs, strict=True)
            if log is not None
        }

    @torch.no_grad()
    def stored(self) -> dict[str, Tensor]:
        """The scales by their tensors' names, as they are stored."""
        return {
            name.format(side): stored_number(scale, log).cpu()
            for name, layer in zip(self.names, self.rounded, strict=True)
            for side, scale, log in zip(SIDES, layer.scales, layer.logs, strict=True)
            if scale is not None and log is not None
        }
