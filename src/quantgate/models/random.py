"""Models with random weights, written like real ones: what tests and timings open when no trained one is at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")


def save_random(
    folder: Path,
    *,
    kind: str = "llama",
    hidden: int = 128,
    layers: int = 2,
    feed_forward: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    vocabulary: int = 300,
    tied: bool = True,
    dtype: str = "bfloat16",
    shard: str = "5GB",
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a model of transformers' configuration class ``kind``, weights and biases normal, beside a byte tokenizer.

    ``shard`` is the largest file that transformers may write, so a small one gives a sharded checkpoint.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made = AutoConfig.for_model(
        kind,
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=feed_forward,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        **{"max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 256, "pad_token_id": 256, **config},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(made, dtype=getattr(torch, dtype))
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:  # larger than the usual start, so that logits differ and damage is measurable
                torch.nn.init.normal_(parameter, std=0.6 / parameter.shape[-1] ** 0.5 if "embed" not in name else 0.5)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder, max_shard_size=shard)
    save_byte_tokenizer(folder)
    return folder


def save_byte_tokenizer(folder: Path) -> None:
    """Ids 0-255 are the bytes, then the special tokens of a small chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
