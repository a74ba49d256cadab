"""A model as a runtime holds it: bytes that stay, bytes that each token reads, and the cache of a sequence."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from quantgate.records import Record

LATENT = ("vllm", "sglang", "tensorrt-llm", "llama.cpp")  # cache DeepSeek's latent vector, not the keys made from it


class CachePart(Record):
    """Layers that cache alike."""

    layers: int = Field(ge=1)
    numbers: int = Field(ge=1)  # cached by a layer for a token, keys and values together
    ops: int = Field(ge=0)  # of a layer's attention, for a token and a cached token
    window: int | None = None  # tokens that are looked back on; None: all

    def tokens(self, length: int) -> int:
        return length if self.window is None else min(length, self.window)


class Served(Record):
    """One variant in one runtime. Bytes are over all devices; numbers of weights are parameters."""

    parameters: int
    resident_bytes: int  # weights that stay in memory
    mapped_bytes: int = 0  # of them, pages of the file beside a copy that is read: the system may take them back
    plain_bytes: int  # all weights in 16 bits
    read_bytes: int  # that every step reads whatever it decodes, experts left out
    active: int  # weights that a token is multiplied by, chosen experts included
    expert_bytes: int = 0  # of all experts of all layers
    experts: int = 0  # of a layer
    chosen: int = 0  # of them, by a token
    parts: tuple[CachePart, ...]
    layers: int
    hidden: int
    widest: int  # outputs of the widest layer of a block
    vocabulary: int

    def step_bytes(self, tokens: int) -> float:
        """Weights that a step of ``tokens`` tokens reads: of the experts, as many as they choose on average."""
        if not self.experts:
            return self.read_bytes
        met = 1 - (1 - self.chosen / self.experts) ** tokens
        return self.read_bytes + self.expert_bytes * met

    def cache_bytes(self, length: int, bits: float) -> float:
        """Of one sequence of ``length`` tokens, ``bits`` a number."""
        return sum(part.layers * part.numbers * part.tokens(length) for part in self.parts) * bits / 8

    def attention_ops(self, length: int) -> float:
        """Of one token that looks back on ``length`` tokens."""
        return float(sum(part.layers * part.ops * part.tokens(length) for part in self.parts))


def cache_parts(config: Any, runtime: str) -> tuple[CachePart, ...]:
    """What the layers of a transformers configuration cache: grouped heads, windows, DeepSeek's latent vectors.

    Source of the latent vector: DeepSeek-V2 (arXiv 2405.04434), section 2.1: kv_lora_rank numbers and the rotary key.
    """
    depth, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    if latent := getattr(config, "kv_lora_rank", None):
        rope, nope, value = (
            int(getattr(config, name)) for name in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
        )
        numbers = int(latent) + rope if runtime in LATENT else heads * (nope + rope + value)
        return (CachePart(layers=depth, numbers=numbers, ops=2 * heads * (nope + rope + value)),)
    windows = _windows(config, depth)
    return tuple(
        CachePart(layers=windows.count(window), numbers=2 * key_heads * width, ops=4 * heads * width, window=window)
        for window in dict.fromkeys(windows)
    )


def _windows(config: Any, depth: int) -> list[int | None]:
    """Of each layer, how far it looks back."""
    window = getattr(config, "sliding_window", None)
    if not window:
        return [None] * depth
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * depth
    return [int(window) if kind == "sliding_attention" else None for kind in kinds]
