"""Tokenizers in GGUF's words: what is told, and what is refused because llama.cpp would split text otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.quantize.gguf.conftest import small

from quantgate.errors import ModelError
from quantgate.models import REFERENCE_FOLDER, open_model
from quantgate.quantize.gguf.pretokenizers import ALIKE, GPT2, KNOWN, LLAMA3, QWEN2, name_of, splits_of
from quantgate.quantize.gguf.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, vocabulary

SPACE = "\u2581"


def changed(folder: Path, change: Any) -> Any:
    """The built-in model with another tokenizer.json; ``change`` edits what is in it."""
    shutil.copytree(REFERENCE_FOLDER, folder)
    told = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    change(told)
    (folder / "tokenizer.json").write_text(json.dumps(told), "utf-8")
    return open_model(folder)


def pieces(model: Path, **settings: Any) -> Any:
    """Give a model folder a SentencePiece-like tokenizer of bytes and a few words."""
    words = [SPACE, "a", "b", "c", "ab", "abc", f"{SPACE}a", f"{SPACE}ab"]
    vocabulary = {
        text: at for at, text in enumerate(["<unk>", "<s>", "</s>", *(f"<0x{at:02X}>" for at in range(256)), *words])
    }
    merges = [["a", "b"], ["ab", "c"], [SPACE, "a"], [SPACE, "ab"], [f"{SPACE}a", "b"]]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    told: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": at, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for at, text in enumerate(["<unk>", "<s>", "</s>"])],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                  "ignore_merges": False, "vocab": vocabulary, "merges": merges},
    }  # fmt: skip
    for key, value in settings.items():
        (told["model"] if key in told["model"] else told)[key] = value
    (model / "tokenizer.json").write_text(json.dumps(told), "utf-8")
    (model / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
            }
        )
    )
    (model / "chat_template.jinja").unlink(missing_ok=True)
    return open_model(model)


def test_the_built_in_tokenizer_has_the_splitting_of_llama_3_without_its_whole_words() -> None:
    told = vocabulary(open_model(REFERENCE_FOLDER), "x").metadata
    assert told["tokenizer.ggml.model"] == ("string", "gpt2")
    assert told["tokenizer.ggml.pre"] == ("string", "smaug-bpe")
    assert told["tokenizer.ggml.tokens"][1][:2] == ["<|pad|>", "<|begin|>"]
    assert told["tokenizer.ggml.token_type"][1][:8] == [CONTROL] * 7 + [NORMAL]
    assert told["tokenizer.ggml.bos_token_id"] == ("uint32", 1) and told["tokenizer.ggml.eos_token_id"] == ("uint32", 2)
    assert told["tokenizer.ggml.add_bos_token"] == ("bool", False)
    assert "message['content']" in told["tokenizer.chat_template"][1]


def test_rows_of_the_model_without_a_token_are_unused_ones(tmp_path: Path) -> None:
    told = vocabulary(small(tmp_path / "m", vocabulary=1540), "x").metadata
    assert told["tokenizer.ggml.tokens"][1][1536:] == ["[PAD1536]", "[PAD1537]", "[PAD1538]", "[PAD1539]"]
    assert told["tokenizer.ggml.token_type"][1][1536:] == [UNUSED] * 4
    with pytest.raises(ModelError, match=r"has the id 1000, and the model has 1000 rows"):
        vocabulary(small(tmp_path / "short", vocabulary=1000), "x")


def test_every_known_splitting_has_one_name_and_its_aliases() -> None:
    assert name_of((LLAMA3,), True) == "llama-bpe" and name_of((QWEN2,), True) is None
    assert splits_of({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}) == (GPT2,)
    steps = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}]
    assert splits_of({"type": "Sequence", "pretokenizers": steps}) == (r"\p{N}", GPT2)
    assert set(ALIKE) <= set(KNOWN.values()) and all(name in names for name, names in ALIKE.items())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda told: told["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="[a-z]+|\\s+"),
         "llama.cpp has no pre-tokenizer that splits text by '[a-z]+"),
        (lambda told: told["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
         "it splits text by removed matches"),
        (lambda told: told.update(normalizer={"type": "Lowercase"}), r"it normalizes text \(Lowercase\)"),
        (lambda told: told["model"].update(dropout=0.1), "its BPE drops merges or marks the parts"),
        (lambda told: told["added_tokens"][2].update(lstrip=True), "'<\\|end\\|>' looks at what stands around it"),
        (lambda told: told["added_tokens"][2].update(rstrip=True), "the space behind the token '<\\|end\\|>' alike"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_llama_cpp_cannot_do_exactly_is_refused(tmp_path: Path, change: Any, why: str) -> None:
    model = changed(tmp_path / "m", change)
    with pytest.raises(
        ModelError, match=rf"tokenizer cannot be told in a GGUF file, because .*{why[:60].replace('[', chr(92) + '[')}"
    ):
        vocabulary(model, "x")


def test_a_word_piece_tokenizer_is_refused(tmp_path: Path) -> None:
    model = small(tmp_path / "m")
    told = json.loads((model.path / "tokenizer.json").read_text("utf-8"))
    words = {"[UNK]": 0, "a": 1, "##b": 2}
    told.update(model={"type": "WordPiece", "vocab": words, "unk_token": "[UNK]", "max_input_chars_per_word": 9,
                       "continuing_subword_prefix": "##"}, added_tokens=[], post_processor=None)  # fmt: skip
    (model.path / "tokenizer.json").write_text(json.dumps(told), "utf-8")
    with pytest.raises(ModelError, match=r"its model is WordPiece, and only BPE has a GGUF form here"):
        vocabulary(open_model(model.path), "x")


def test_unicode_normalization_is_told_and_not_refused(tmp_path: Path) -> None:
    found = vocabulary(changed(tmp_path / "m", lambda told: told.update(normalizer={"type": "NFC"})), "x")
    assert found.notes == ("llama.cpp leaves text as it is, where the tokenizer brings it to Unicode's form NFC",)


def test_pieces_score_by_the_place_of_their_first_pair(tmp_path: Path) -> None:
    told = vocabulary(pieces(small(tmp_path / "m", vocabulary=300).path), "x").metadata
    texts, scores = told["tokenizer.ggml.tokens"][1], told["tokenizer.ggml.scores"][1]
    score = dict(zip(texts, scores, strict=True))
    assert (score["ab"], score["abc"], score[f"{SPACE}a"], score[f"{SPACE}ab"]) == (0.0, -1.0, -2.0, -3.0)
    assert score["a"] == min(scores) and told["tokenizer.ggml.add_space_prefix"] == ("bool", True)
    types = dict(zip(texts, told["tokenizer.ggml.token_type"][1], strict=True))
    assert (types["<unk>"], types["<s>"], types["<0x0A>"], types["ab"]) == (UNKNOWN, CONTROL, BYTE, NORMAL)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"merges": [["a", "b"], ["ab", "c"], [SPACE, "a"], [SPACE, "ab"]]}, f"it does not join '{SPACE}a' and 'b'"),
        ({"byte_fallback": False}, "it has no byte for every character"),
        ({"ignore_merges": True}, "it takes whole pieces ahead of merges"),
        ({"normalizer": {"type": "NFKC"}}, r"it normalizes text in a way that llama.cpp does not \(NFKC\)"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False},
          "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}},
         "it splits text by a step of type Metaspace"),
    ],
)  # fmt: skip
def test_pieces_that_llama_cpp_would_join_otherwise_are_refused(tmp_path: Path, settings: Any, why: str) -> None:
    model = pieces(small(tmp_path / "m", vocabulary=300).path, **settings)
    with pytest.raises(ModelError, match=f"because {why}"):
        vocabulary(model, "x")
