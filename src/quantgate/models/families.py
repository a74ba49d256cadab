"""The architectures that the tests prove, each with what makes a small model of it show its peculiarities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantgate.models.random import save_random

SUPPORTED = (
    "supported are decoder models like Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen3-MoE, Gemma 2 and 3, Phi-3, "
    "GPT-NeoX and OPT"
)
FAMILIES: dict[str, dict[str, Any]] = {  # transformers' name of the configuration -> settings
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {"tied": False},
    "qwen3": {"head_dim": 32},
    "gemma2": {"head_dim": 32, "sliding_window": 8},
    "gemma3_text": {"head_dim": 32, "sliding_window": 8, "sliding_window_pattern": 2},
    "phi3": {"tied": False},
    "gpt_neox": {"kv_heads": 4, "tied": False},
    "opt": {"kv_heads": 4, "ffn_dim": 96, "word_embed_proj_dim": 32},
    "mixtral": {"num_local_experts": 4, "tied": False},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "mlp_only_layers": [1]},
}
ROTATABLE = ("llama", "mistral", "qwen2", "qwen3", "phi3", "mixtral", "qwen3_moe")  # by an orthogonal matrix, exactly
MIXTURES = ("mixtral", "qwen3_moe")  # of experts


def save_family(folder: Path, kind: str, **settings: Any) -> Path:
    """A random model of ``kind`` with two blocks, hidden 64, feed-forward 96, in float32 unless told otherwise."""
    return save_random(
        folder,
        kind=kind,
        **{"hidden": 64, "feed_forward": 96, "dtype": "float32", **FAMILIES.get(kind, {}), **settings},
    )
