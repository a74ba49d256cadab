"""What llama.cpp must know of an architecture to compute what transformers computes; and what it cannot compute.

Each architecture is written only as far as llama.cpp's graph is the same function. Where it would quietly compute
something else (a sliding window that it ignores, attention scaled by another number), the model is refused.
Source: llama.cpp src/models/*.cpp (``load_arch_hparams``), conversion/*.py, gguf-py constants.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from quantgate.errors import ModelError

Kind = Literal["uint32", "float32", "bool", "string", "strings", "int32s", "float32s", "bools"]
Metadata = dict[str, tuple[Kind, Any]]
ARCHITECTURES = {  # transformers' model_type -> llama.cpp's name
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
}
SILU, GELU = ("silu", "swish"), ("gelu_pytorch_tanh",)
GEMMA_27B = {"gemma2": 46, "gemma3_text": 62}  # blocks; these alone scale attention by hidden / heads
BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}  # YaRN's, where a config does not tell


@dataclass(frozen=True)
class Described:
    """Metadata of an architecture, and the tensors that no checkpoint holds."""

    architecture: str
    metadata: Metadata
    extra: dict[str, Tensor] = field(default_factory=dict)  # float32, by the file's name


def describe(config: Any, where: str) -> Described:
    """``config`` is transformers'. Raises ModelError when llama.cpp does not compute the same function."""
    kind = str(config.model_type)

    def refuse(why: str) -> ModelError:
        return ModelError(f"{where}: cannot be a GGUF file, because {why}")

    if kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise refuse(f"its architecture '{kind}' is not among those written here ({known})")
    name, heads = ARCHITECTURES[kind], int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    activation = str(getattr(config, "hidden_activation", None) or config.hidden_act)
    if activation not in (GELU if kind.startswith("gemma") else SILU):
        raise refuse(f"llama.cpp's {name} has another activation than {activation}")
    if kind in ("qwen2", "phi3") and width * heads != config.hidden_size:
        raise refuse(f"llama.cpp's {name} has no heads of {width} x {heads} in a hidden size of {config.hidden_size}")
    if kind.startswith("gemma") and not config.tie_word_embeddings and kind != "gemma3_text":
        raise refuse(f"llama.cpp's {name} has no output layer apart from the embeddings")
    if getattr(config, "use_bidirectional_attention", None):
        raise refuse("its attention looks ahead")
    found: Metadata = {
        f"{name}.block_count": ("uint32", int(config.num_hidden_layers)),
        f"{name}.context_length": ("uint32", int(config.max_position_embeddings)),
        f"{name}.embedding_length": ("uint32", int(config.hidden_size)),
        f"{name}.feed_forward_length": ("uint32", int(config.intermediate_size)),
        f"{name}.attention.head_count": ("uint32", heads),
        f"{name}.attention.head_count_kv": ("uint32", int(config.num_key_value_heads or heads)),
        f"{name}.attention.key_length": ("uint32", width),
        f"{name}.attention.value_length": ("uint32", width),
        f"{name}.attention.layer_norm_rms_epsilon": ("float32", float(config.rms_norm_eps)),
        f"{name}.vocab_size": ("uint32", int(config.vocab_size)),
    }
    extra = _rope(config, name, width, found, refuse)
    _windows(config, kind, name, found, refuse)
    if kind in GEMMA_27B:
        _gemma(config, kind, name, width, found, refuse)
    return Described(name, found, extra)


Refuse = Callable[[str], ModelError]


def _rope(config: Any, name: str, width: int, found: Metadata, refuse: Refuse) -> dict[str, Tensor]:
    """Rotary embeddings: their base, their scaling, and the factors of Llama 3 as a tensor."""
    told: dict[str, Any] = dict(config.rope_parameters)
    rope: dict[str, Any] = told.get("full_attention", told)
    local: dict[str, Any] = told.get("sliding_attention", {})
    share = float(rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None) or 1.0))
    if share != 1.0 and name != "phi3":
        raise refuse(f"llama.cpp's {name} rotates whole heads, and this one rotates {share:g} of each")
    found[f"{name}.rope.dimension_count"] = ("uint32", int(width * share))
    found[f"{name}.rope.freq_base"] = ("float32", float(rope.get("rope_theta", 10000.0)))
    if local:
        if local.get("rope_type", "default") != "default":
            raise refuse("the rotary embeddings of its sliding layers are scaled")
        found[f"{name}.rope.freq_base_swa"] = ("float32", float(local["rope_theta"]))
    if name == "phi3":
        found[f"{name}.rope.scaling.original_context_length"] = ("uint32", int(config.max_position_embeddings))
    kind = str(rope.get("rope_type", "default"))
    if kind == "llama3" and name == "llama":
        return {"rope_freqs.weight": llama3_factors(rope, width)}
    if kind == "linear":
        found[f"{name}.rope.scaling.type"] = ("string", "linear")
        found[f"{name}.rope.scaling.factor"] = ("float32", float(rope["factor"]))
    elif kind == "yarn":
        _yarn(rope, name, found, refuse)
    elif kind != "default":
        raise refuse(f"rotary embeddings of type '{kind}' depend on the prompt's length or are unknown to llama.cpp")
    return {}


def _yarn(rope: dict[str, Any], name: str, found: Metadata, refuse: Refuse) -> None:
    factor = float(rope["factor"])
    usual = 0.1 * math.log(factor) + 1.0
    if not math.isclose(float(rope.get("attention_factor") or usual), usual, rel_tol=1e-6) or rope.get("mscale"):
        raise refuse("llama.cpp scales the attention of YaRN by 0.1 ln(factor) + 1, and this one otherwise")
    if any(float(rope.get(key) or usual) != usual for key, usual in BETAS.items()) or not rope.get("truncate", True):
        raise refuse("its YaRN has other bounds than 32 and 1")
    found[f"{name}.rope.scaling.type"] = ("string", "yarn")
    found[f"{name}.rope.scaling.factor"] = ("float32", factor)
    found[f"{name}.rope.scaling.original_context_length"] = ("uint32", int(rope["original_max_position_embeddings"]))


def llama3_factors(rope: dict[str, Any], width: int) -> Tensor:
    """float32 [width / 2]: what each frequency is divided by.

    Source: Llama 3.1's ``apply_scaling``; transformers ``_compute_llama3_parameters``.
    """
    base, factor = float(rope["rope_theta"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    context = float(rope["original_max_position_embeddings"])
    frequencies = base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    turns = context * frequencies / (2 * math.pi)  # how often a frequency turns within the original context
    smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / factor + smooth)).float()


def _windows(config: Any, kind: str, name: str, found: Metadata, refuse: Refuse) -> None:
    """Sliding windows: told where llama.cpp has them, refused where it would look further back."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or (["sliding_attention" if window else "full_attention"])
    if kind in GEMMA_27B:
        if set(kinds) - {"sliding_attention", "full_attention"}:
            raise refuse(f"llama.cpp's {name} has no layers of {sorted(set(kinds))[0]}")
        if window:
            found[f"{name}.attention.sliding_window"] = ("uint32", int(window))
            found[f"{name}.attention.sliding_window_pattern"] = ("bools", [one == "sliding_attention" for one in kinds])
    elif "sliding_attention" in kinds and window and window < config.max_position_embeddings:
        raise refuse(
            f"llama.cpp's {name} attends to everything, and this model to the last {window} tokens "
            f"of {config.max_position_embeddings}"
        )
    elif name == "phi3":
        found[f"{name}.attention.sliding_window"] = ("uint32", 0)


def _gemma(config: Any, kind: str, name: str, width: int, found: Metadata, refuse: Refuse) -> None:
    large = config.num_hidden_layers == GEMMA_27B[kind]
    scaled = config.hidden_size // config.num_attention_heads if large else width
    if config.query_pre_attn_scalar != scaled:
        raise refuse(
            f"llama.cpp's {name} scales attention by 1 / sqrt({scaled}), and this model by "
            f"1 / sqrt({config.query_pre_attn_scalar})"
        )
    for key, setting in (("attn_logit_softcapping", "attn"), ("final_logit_softcapping", "final")):
        cap = getattr(config, key, None)
        if cap:
            found[f"{name}.{setting}_logit_softcapping"] = ("float32", float(cap))
        elif kind == "gemma2":
            raise refuse(f"llama.cpp's {name} always has a {key}")
    if kind == "gemma3_text" and getattr(config, "attn_logit_softcapping", None):
        raise refuse("llama.cpp's gemma3 caps no attention logits")
