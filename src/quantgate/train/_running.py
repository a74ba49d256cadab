"""What all networks share: a transformers model in float32, run up to the logits that are asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from quantgate.hardware.products import wide
from quantgate.models import OpenedModel
from quantgate.train._cache import RoundedCache


class Running:
    """``model`` is transformers' own, ``paths`` tell where in it the modules are that a checkpoint names."""

    def __init__(self, model: OpenedModel, network: Any, paths: Mapping[str, str], device: Any, precision: str) -> None:
        self.device = torch.device(device)
        self.source, self.model, self.paths = model, network, dict(paths)
        self.cache: RoundedCache | None = None
        self.products = _products(precision, self.device)
        self._asked = threading.local()  # several batches may run at once, each in its thread
        self.model.to(self.device).requires_grad_(False)

    def logits(self, ids: Tensor, counted: Tensor) -> Tensor:
        """float32 [N, vocabulary] at the positions of ``ids`` [rows, length] where ``counted`` is True."""
        self._asked.counted = counted.to(self.device)
        try:
            with self.products_in():
                out = self.model(input_ids=ids.to(self.device), **self._caching()).logits
        finally:
            self._asked.counted = None
        return out[0].float()  # type: ignore[no-any-return]

    def _pick(self, _head: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        """The output layer is given the counted positions alone: [1, N, hidden]."""
        return (given[0][self._asked.counted].unsqueeze(0),)

    def _caching(self) -> dict[str, Any]:
        return {"use_cache": False} if self.cache is None else {"past_key_values": self.cache, "use_cache": True}

    def products_in(self) -> AbstractContextManager[Any]:
        """Where matrix products run in the precision that was chosen."""
        if self.products is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.products)

    def prepare(self, checkpointing: bool) -> None:
        """To be called once all modules stand. ``checkpointing``: of each block only what it is given is kept."""
        self.model.get_output_embeddings().register_forward_pre_hook(self._pick)
        if not checkpointing:
            return
        for block in self.model.get_submodule(self.source.walker.anatomy.blocks):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def _products(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products: "float32", "bfloat16", or "auto", which is bfloat16 where hardware multiplies it."""
    if precision == "auto":
        return torch.float32 if wide(torch.bfloat16, device) else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
