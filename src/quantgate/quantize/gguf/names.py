"""What a checkpoint's tensors are called in GGUF, and what llama.cpp expects of their rows.

Two tensors are not stored as the checkpoint has them. llama.cpp rotates neighbouring channels of a Llama's queries and
keys, transformers the two halves of a head, so their rows change places; and a Gemma's norms multiply by 1 + weight,
which is stored as one number.
Source: llama.cpp conversion/llama.py ``LlamaModel.permute``, conversion/gemma.py, gguf-py tensor_mapping.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantgate.errors import ModelError

TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
}
SANDWICH = {  # Gemma 2 and 3 have a norm behind each part of a block as well
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
COMPUTED = ("rotary_emb.inv_freq",)  # old checkpoints hold it; every runtime makes it itself


@dataclass(frozen=True)
class Place:
    """Where a checkpoint's tensor goes."""

    name: str  # in the file
    heads: int = 0  # the rows of so many heads change places; 0: they stay
    plus: float = 0.0  # added to every number

    def rows_in_file(self, tensor: Tensor) -> Tensor:
        """The checkpoint's rows as the file has them: channel pairs of a head side by side."""
        if not self.heads:
            return tensor
        rest = tensor.shape[1:]
        return tensor.reshape(self.heads, 2, -1, *rest).swapaxes(1, 2).reshape(tensor.shape)

    def rows_in_model(self, tensor: Tensor) -> Tensor:
        """The inverse of ``rows_in_file``."""
        if not self.heads:
            return tensor
        rest = tensor.shape[1:]
        return tensor.reshape(self.heads, -1, 2, *rest).swapaxes(1, 2).reshape(tensor.shape)


def places(config: Any, names: list[str], where: str) -> dict[str, Place]:
    """Every tensor of the checkpoint that a file holds -> where it goes.

    Raises ModelError for a tensor that llama.cpp has no place for.
    """
    kind = str(config.model_type)
    return {name: _place(config, kind, name, where) for name in names if not name.endswith(COMPUTED)}


def _place(config: Any, kind: str, name: str, where: str) -> Place:
    module, _, leaf = name.rpartition(".")
    found = TOP.get(module)
    block = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
    if block:
        table = BLOCK | (SANDWICH if kind in ("gemma2", "gemma3_text") else {})
        inner = table.get(block[2])
        found = inner and f"blk.{block[1]}.{inner}"
    if not found or leaf not in ("weight", "bias"):
        raise ModelError(
            f"{where}: llama.cpp has no place for the tensor '{name}' of a {kind}; it cannot be a GGUF file"
        )
    heads = 0
    if kind in ("llama", "mistral") and module.endswith((".q_proj", ".k_proj")):
        heads = config.num_attention_heads if module.endswith(".q_proj") else config.num_key_value_heads
    plus = 1.0 if kind.startswith("gemma") and module.endswith("norm") and leaf == "weight" else 0.0
    return Place(f"{found}.{leaf}", heads, plus)


def stored(place: Place, read: Callable[[], Tensor]) -> Tensor:
    """The numbers of one tensor as the file has them, float32."""
    tensor = place.rows_in_file(read()).to(torch.float32)
    return tensor + place.plus if place.plus else tensor
