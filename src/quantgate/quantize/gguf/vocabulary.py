"""A tokenizer as a GGUF file carries it: pieces with types and scores, merges, special tokens, the chat template.

Two kinds can be told. Byte-level BPE ("gpt2") has merges and the name of a pre-tokenizer. SentencePiece's BPE with byte
fallback ("llama") has a score per piece instead of merges: llama.cpp joins the neighbours whose union scores highest,
where tokenizer.json joins the pair that stands first in the list, so a piece's score is minus the place of its first
pair. Both orders are the same when every pair whose union is a piece is listed, which is checked.
Source: llama.cpp conversion/base.py ``get_vocab_base``, ``_set_vocab_llama_hf``; src/llama-vocab.cpp.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.errors import ModelError
from quantgate.models import OpenedModel
from quantgate.quantize.gguf.metadata import Metadata
from quantgate.quantize.gguf.pretokenizers import name_of, splits_of

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's token types
SPACE = "\u2581"
PHI3 = ("phi-3", "phi3")  # in a model's name, and llama.cpp strips the space behind special tokens
PHI3_KEEPS = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True)
class Vocabulary:
    """``metadata`` of the tokenizer, and what a reader must know that the file does not say."""

    metadata: Metadata
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pieces:
    texts: list[str]
    types: list[int]


def vocabulary(model: OpenedModel, name: str) -> Vocabulary:
    """The tokenizer of ``model``, in a file whose general.name is ``name``.

    Raises ModelError for one that llama.cpp cannot do exactly.
    """
    where, told = model.path / "tokenizer.json", _json(model)
    kind = told["model"]
    if kind.get("type") != "BPE":
        raise refusal(where, f"its model is {kind.get('type')}, and only BPE has a GGUF form here")
    if kind.get("dropout") or kind.get("continuing_subword_prefix") or kind.get("end_of_word_suffix"):
        raise refusal(where, "its BPE drops merges or marks the parts of words")
    pieces = _pieces(told, int(model.config.vocab_size), where)
    _check_added(told["added_tokens"], name, where)
    byte_level = "ByteLevel" in json.dumps(told["pre_tokenizer"])
    found, notes = _byte_level(told, where) if byte_level else _sentence_pieces(told, pieces, where)
    found |= {
        "tokenizer.ggml.tokens": ("strings", pieces.texts),
        "tokenizer.ggml.token_type": ("int32s", pieces.types),
        **_specials(model),
    }
    if model.tokenizer.chat_template:
        if not isinstance(model.tokenizer.chat_template, str):
            raise refusal(where, "it has several chat templates")
        found["tokenizer.chat_template"] = ("string", model.tokenizer.chat_template)
    return Vocabulary(found, tuple(notes))


def refusal(where: Path, why: str) -> ModelError:
    return ModelError(
        f"{where}: the tokenizer cannot be told in a GGUF file, because {why}; serve it by another runtime"
    )


def _json(model: OpenedModel) -> dict[str, Any]:
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise refusal(model.path, "it has no tokenizer.json")
    told: dict[str, Any] = json.loads(backend.to_str())
    return told


def _pieces(told: dict[str, Any], size: int, where: Path) -> _Pieces:
    """Every id's piece and type; ids that no piece has are unused ones."""
    texts = [f"[PAD{at}]" for at in range(size)]
    types = [UNUSED] * size
    entries = [(at, text, NORMAL) for text, at in told["model"]["vocab"].items()]
    entries += [
        (one["id"], one["content"], CONTROL if one["special"] else USER_DEFINED) for one in told["added_tokens"]
    ]
    for at, text, kind in entries:
        if at >= size:
            raise refusal(where, f"the token {text!r} has the id {at}, and the model has {size} rows")
        texts[at], types[at] = text, kind
    if len(set(texts)) != size:
        twice = next(text for text in texts if texts.count(text) > 1)
        raise refusal(where, f"two of its ids are {twice!r}")
    return _Pieces(texts, types)


def _check_added(added: list[dict[str, Any]], name: str, where: Path) -> None:
    """Added tokens are found in a text as they stand; only a Phi-3's may swallow the space behind them."""
    stripping = [one["content"] for one in added if one["rstrip"]]
    of_phi = any(part in name.lower() for part in PHI3)
    wanted = [one["content"] for one in added if one["content"] not in PHI3_KEEPS] if of_phi else []
    if sorted(stripping) != sorted(wanted):
        token = next(iter(set(stripping) ^ set(wanted)))
        raise refusal(where, f"llama.cpp does not treat the space behind the token {token!r} alike")
    for one in added:
        if one["lstrip"] or one["single_word"]:
            raise refusal(where, f"the token {one['content']!r} looks at what stands around it")


def _byte_level(told: dict[str, Any], where: Path) -> tuple[Metadata, list[str]]:
    splits = splits_of(told["pre_tokenizer"])
    if isinstance(splits, str):
        raise refusal(where, splits)
    merges, whole = told["model"]["merges"], bool(told["model"].get("ignore_merges"))
    name = name_of(splits, whole) if merges else "gpt-2"  # without merges it does not matter where text is split
    if name is None:
        pattern = splits[-1] if splits else "(nothing)"
        first = " with whole words ahead of merges" if whole else ""
        raise refusal(where, f"llama.cpp has no pre-tokenizer that splits text by {pattern[:90]!r}{first}")
    notes = []
    normalizer = told["normalizer"]
    if normalizer and normalizer.get("type") != "NFC":
        raise refusal(where, f"it normalizes text ({normalizer.get('type')})")
    if normalizer:
        notes.append("llama.cpp leaves text as it is, where the tokenizer brings it to Unicode's form NFC")
    listed = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    found: Metadata = {"tokenizer.ggml.model": ("string", "gpt2"), "tokenizer.ggml.pre": ("string", name)}
    # llama.cpp wants the array and GGUF has no empty ones: a pair that byte-level text never holds stands for none
    found["tokenizer.ggml.merges"] = ("strings", listed or [f"{SPACE} {SPACE}"])
    return found, notes


def _sentence_pieces(told: dict[str, Any], pieces: _Pieces, where: Path) -> tuple[Metadata, list[str]]:
    kind, vocabulary = told["model"], told["model"]["vocab"]
    bytes_ = [f"<0x{at:02X}>" for at in range(256)]
    if not kind.get("byte_fallback") or any(one not in vocabulary for one in bytes_):
        raise refusal(where, "it has no byte for every character that it does not know")
    if kind.get("ignore_merges"):
        raise refusal(where, "it takes whole pieces ahead of merges")
    for one in bytes_:
        pieces.types[vocabulary[one]] = BYTE
    if kind.get("unk_token"):
        pieces.types[vocabulary[kind["unk_token"]]] = UNKNOWN
    scores: dict[str, int] = {}
    listed = {tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in kind["merges"]}
    for rank, pair in enumerate(kind["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        scores.setdefault(left + right, -rank)
    fixed = {*bytes_, *(one["content"] for one in told["added_tokens"])}
    for piece in vocabulary:
        for at in range(1, len(piece) if piece not in fixed else 0):
            halves = piece[:at], piece[at:]
            if halves not in listed and halves[0] in vocabulary and halves[1] in vocabulary:
                raise refusal(where, f"it does not join {halves[0]!r} and {halves[1]!r}, and llama.cpp would")
    prefix = _prefix(told, where)
    lowest = -len(kind["merges"])
    return {
        "tokenizer.ggml.model": ("string", "llama"),
        "tokenizer.ggml.pre": ("string", "default"),
        "tokenizer.ggml.scores": ("float32s", [float(scores.get(text, lowest)) for text in pieces.texts]),
        "tokenizer.ggml.add_space_prefix": ("bool", prefix),
    }, []


def _prefix(told: dict[str, Any], where: Path) -> bool:
    """Whether a space goes in front of text, at its beginning and behind every special token, as llama.cpp does it."""
    normalizer = told["normalizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    if steps not in ([prepend, replace], [replace]):
        kinds = ", ".join(str(one.get("type")) for one in steps)
        raise refusal(where, f"it normalizes text in a way that llama.cpp does not ({kinds})")
    pre = told["pre_tokenizer"]
    harmless = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if pre not in (None, harmless):  # behind Replace there is no space left to split at
        raise refusal(where, f"it splits text by a step of type {pre.get('type')}")
    return bool(steps[0] == prepend)


def _specials(model: OpenedModel) -> Metadata:
    tokenizer = model.tokenizer
    found: Metadata = {}
    for key in ("bos", "eos", "unk", "pad"):
        at = getattr(tokenizer, f"{key}_token_id", None)
        if at is not None:
            spelled = {"unk": "unknown", "pad": "padding"}.get(key, key)
            found[f"tokenizer.ggml.{spelled}_token_id"] = ("uint32", int(at))
    some = [int(one) for one in tokenizer("a")["input_ids"]]
    bare = [int(one) for one in tokenizer("a", add_special_tokens=False)["input_ids"]]
    before = some[: len(some) - len(bare)] if some[-len(bare) :] == bare else some[: some.index(bare[0])]
    found["tokenizer.ggml.add_bos_token"] = ("bool", bool(before))
    found["tokenizer.ggml.add_eos_token"] = ("bool", some[-1] != bare[-1])
    return found
