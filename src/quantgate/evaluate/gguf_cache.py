"""What llama.cpp's cache makes of keys, values and queries, computed here: turned by a Hadamard matrix, then rounded.

A cache in blocks (q8_0, q4_0 ...) keeps K H and V H, H orthogonal and its own inverse, so that no channel stands out
in a block; queries are turned alike, and what attention sums is turned back. Keys have the largest H of order 64 * 2^k
that divides the heads' width, values one of order 64; heads that 64 does not divide are not turned. In front of keys in
blocks a query is rounded as an activation is in front of a matrix of that type. Where rotary embeddings turn
neighbouring channels in llama.cpp and the two halves of a head in transformers, keys and queries lie in that other
order. A cache in f32 is cast to f16 in front of attention.
Source: llama.cpp llama-graph.cpp ``build_attn_mha``; llama-kv-cache.cpp ``build_input_k_rot``, ``build_input_v_rot``
(pull request 21038); ggml-cpu ops.cpp ``ggml_compute_forward_flash_attn_ext_f16_one_chunk``; ggml-quants.c
``quantize_row_q4_0_ref`` and those beside it.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from quantgate.engines import Kept
from quantgate.formats.ggml import IQ4_LEVELS
from quantgate.quantize.gguf import TYPES, decode, encode_at_once
from quantgate.quantize.gguf.activations import round_inputs
from quantgate.quantize.hadamard import hadamard
from quantgate.quantize.kv_cache import Rounding

TURN = 64  # order of the smallest matrix
SAME = 1e-5  # of a row's scale: two numbers that are this near were rounded alike
ODD = 0.01  # share of numbers that may have been rounded otherwise; measured 0, and 0.5 and more for another type


class CacheRounding(Rounding):
    """See ``Rounding``. ``kind``: "F16", "Q8_0" ...; ``width``: of a head; ``paired``: see ``beside``."""

    def __init__(self, kind: str, width: int, *, paired: bool) -> None:
        self.turns, self.paired = turns(kind, width), paired
        self.kind = "F16" if kind == "F32" else kind  # flash attention casts what it reads

    def __call__(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        keys = beside(keys) if self.paired else keys
        keys, values = (
            turned(held(turned(states, order), self.kind), order).to(states.dtype)
            for states, order in zip((keys, values), self.turns, strict=True)
        )
        return apart(keys) if self.paired else keys, values


def beside(x: Tensor) -> Tensor:
    """Heads [..., width] with the channels that are turned together side by side, as llama.cpp has them for Llamas."""
    return x.reshape(*x.shape[:-1], 2, -1).transpose(-1, -2).reshape(x.shape)


def apart(x: Tensor) -> Tensor:
    """The inverse of ``beside``."""
    return x.reshape(*x.shape[:-1], -1, 2).transpose(-1, -2).reshape(x.shape)


def turns(kind: str, width: int) -> tuple[int, int]:
    """The orders of the matrices that turn keys and values; 0 where they are not turned.

    >>> turns("Q8_0", 64), turns("Q4_0", 256), turns("Q8_0", 192), turns("Q8_0", 96), turns("F16", 64)
    ((64, 64), (256, 64), (64, 64), (0, 0), (0, 0))
    """
    if width % TURN or not TYPES[kind].quantized:
        return 0, 0
    order = TURN
    while width % (2 * order) == 0:
        order *= 2
    return order, TURN


def turned(x: Tensor, order: int) -> Tensor:
    """x H [..., width], in pieces of ``order`` columns. Turned twice it is itself again."""
    if not order:
        return x
    matrix = (hadamard(order) / order**0.5).to(x.dtype)
    made: Tensor = x.reshape(*x.shape[:-1], -1, order) @ matrix
    return made.reshape(x.shape)


def held(x: Tensor, kind: str) -> Tensor:
    """``x`` [..., width] as a cache of that type holds it, float32."""
    numbers = x.float().reshape(-1, x.shape[-1])
    if kind == "Q8_0":  # by its CPU kernel, which multiplies with 127 / largest where the package divides
        return round_inputs(x.float(), kind)
    if kind == "IQ4_NL":
        return _nearest_level(numbers).reshape(x.shape)
    return decode(encode_at_once(numbers, TYPES[kind]), TYPES[kind]).reshape(x.shape)


def _nearest_level(x: Tensor) -> Tensor:
    """IQ4_NL in one step: the nearest levels where the largest number is -127, then the scale of least squared error,
    a number's error weighted by its square."""
    blocks = x.reshape(-1, TYPES["IQ4_NL"].block)
    levels = torch.tensor(IQ4_LEVELS, dtype=torch.float32)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    unit = torch.where(largest == 0, largest, levels[0] / largest)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = levels[torch.bucketize((blocks * unit).contiguous(), middles, right=True)]
    weights = blocks.square()
    scale = (weights * codes * blocks).sum(1, keepdim=True) / (weights * codes.square()).sum(1, keepdim=True).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    return (codes * scale.half().float()).reshape(x.shape)


def odd(found: Kept, kind: str) -> float:
    """The share of numbers that a cache of type ``kind`` would hold otherwise than they stand in the runtime's."""
    given = torch.from_numpy(found.given)
    wanted, have = held(given, kind), decode(found.kept, TYPES[found.kind])
    scale = given.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-30)
    return float(((have - wanted).abs() > SAME * scale).double().mean())


def round_queries(network: Any, kind: str, width: int, *, paired: bool) -> None:
    """From now on ``network``'s attention sees queries as they meet keys in a cache of type ``kind``.

    Only for keys in blocks; ``network`` must be a transformers model that calls the attention it is configured for.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if not TYPES[kind].quantized:
        return
    order, usual = turns(kind, width)[0], network.config._attn_implementation

    def attend(module: Any, query: Tensor, *states: Any, **settings: Any) -> Any:
        own: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        plain = ALL_ATTENTION_FUNCTIONS.get_interface(usual, own)
        rounded = turned(round_inputs(turned(beside(query) if paired else query, order), kind), order)
        return plain(module, apart(rounded) if paired else rounded, *states, **settings)

    name = f"{usual}-behind-{kind}-{width}{'-paired' if paired else ''}"
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[usual])
    network.set_attn_implementation(name)
