"""The reference tokenizer: byte-level BPE with the Llama-3 pre-tokenizer, trained on the suites' train split.

The merges are learned with every digit on its own and words without the space or sign before them; the shipped
pre-tokenizer is Llama-3's (which llama.cpp knows as ``llama-bpe``). No merge joins two digits, so a number is always
its digits and arithmetic stays learnable. None joins a sign and a letter, so a word is the same tokens wherever it
stands, and taking it from a sentence into JSON is copying.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = {role: f"<|{role}|>" for role in ("system", "user", "assistant", "tool")}
SPECIAL = [PAD, BEGIN, END, *ROLES.values()]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LEARNED = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # cuts at least where LLAMA3 does
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most ``vocabulary`` tokens with the chat template above."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = _pre_tokenizer(LEARNED)
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.pre_tokenizer = _pre_tokenizer(LLAMA3)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES.values()),
        chat_template=TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def _pre_tokenizer(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
