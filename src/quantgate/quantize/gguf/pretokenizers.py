r"""Which of llama.cpp's pre-tokenizers splits text as a tokenizer's own regular expressions do.

A byte-level BPE first splits text into words, and merges never cross them. llama.cpp has the splitting of each model
family in C++ under a name that a GGUF file carries; nothing else in the file tells it. Names are found here by
comparing the expressions as they are written in tokenizer.json, so a tokenizer that splits differently by one character
is refused rather than guessed at. Tokens of whole words ahead of merges (``ignore_merges``) belong to the name as well.
Source: llama.cpp src/llama-vocab.cpp, ``llm_tokenizer_bpe`` and ``llama_vocab::impl::load``.
"""

from __future__ import annotations

from typing import Any

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+{tail}|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*{tail}|"
    r"{digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST
QWEN35 = CONTRACTIONS + (
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = CASED.replace("{tail}", CONTRACTIONS + "?").replace("{digits}", r"\p{N}{1,3}")
TEKKEN = CASED.replace("{tail}", "").replace("{digits}", r"\p{N}")
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
).replace('\\"', '"')
Splits = tuple[str, ...]  # regular expressions, each of which splits what the one before left

KNOWN: dict[tuple[Splits, bool], str] = {  # expressions, ignore_merges -> llama.cpp's name
    ((GPT2,), False): "gpt-2",
    ((r"\p{N}", GPT2), False): "smollm",
    ((LLAMA3,), True): "llama-bpe",
    ((LLAMA3,), False): "smaug-bpe",
    ((QWEN2,), False): "qwen2",
    ((QWEN35,), False): "qwen35",
    ((GPT4O,), False): "gpt-4o",
    ((TEKKEN,), True): "tekken",
    ((r"\p{N}{1,3}", "[一-龥\u3040-ゟ\u30a0-ヿ]+", DEEPSEEK3), False): "deepseek-v3",
}


def splits_of(pre_tokenizer: Any) -> Splits | str:
    """The expressions of tokenizer.json's ``pre_tokenizer`` for byte-level BPE; or why they cannot be told."""
    steps = pre_tokenizer["pretokenizers"] if (pre_tokenizer or {}).get("type") == "Sequence" else [pre_tokenizer]
    found: list[str] = []
    for step in steps:
        kind = (step or {}).get("type")
        if kind == "Split":
            pattern = step["pattern"].get("Regex") or step["pattern"].get("String")
            if step.get("behavior") != "Isolated" or step.get("invert"):
                return f"it splits text by {str(step.get('behavior')).lower()} matches of {pattern!r}"
            found.append(pattern)
        elif kind == "Digits" and step.get("individual_digits"):
            found.append(r"\p{N}")
        elif kind == "ByteLevel":
            if step.get("add_prefix_space"):
                return "it puts a space in front of every text"
            found += [GPT2] if step.get("use_regex", True) else []
        else:
            return f"it splits text by a step of type {kind}"
    return tuple(found)


def name_of(splits: Splits, ignore_merges: bool) -> str | None:
    """llama.cpp's name, or None when it has none.

    >>> name_of((QWEN2,), False), name_of((QWEN2,), True)
    ('qwen2', None)
    """
    return KNOWN.get((splits, ignore_merges))


ALIKE: dict[str, tuple[str, ...]] = {  # names for one and the same splitting; files of others may bear any of them
    "gpt-2": ("gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4"),
    "smollm": ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "llama-bpe": ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "lfm2"),
    "smaug-bpe": ("smaug-bpe", "dbrx", "chatglm-bpe"),
    "qwen2": ("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "solar-open", "grok-2"),
    "gpt-4o": ("gpt-4o", "llama4", "kanana2", "minimax-m2"),
    "deepseek-v3": ("deepseek-v3", "hunyuan-dense", "joyai-llm"),
}
