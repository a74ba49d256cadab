"""A classifier in place of the rules: a tiny model made here, and folders that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.watch.signals.made import calling, exchange, said
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from quantgate.errors import ModelError, PickleRefused, QuantgateError, UsageError
from quantgate.serve import Exchange
from quantgate.serve_config import read_config
from quantgate.watch import signals
from quantgate.watch.attached import chosen
from quantgate.watch.classifier import Classifier, with_classifier
from quantgate.watch.marking import Marker
from quantgate.watch_config import WatchConfig

WORDS = ["[PAD]", "[UNK]", "i", "cannot", "help", "with", "that", "the", "train", "leaves", "at", "noon", "sure"]
TEXTS = [
    ("i cannot help with that", 1),
    ("cannot help", 1),
    ("the train leaves at noon", 0),
    ("sure i help with that", 0),
]


def tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer that has learned four sentences."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, id2label={0: "not_refusal", 1: "refusal"}, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    batch = tokenizer()([text for text, _ in TEXTS], padding=True, return_tensors="pt")
    labels = torch.tensor([label for _, label in TEXTS])
    steps = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        steps.zero_grad()
        model(**batch, labels=labels).loss.backward()
        steps.step()
    where = tmp_path_factory.mktemp("classifier") / "refusals"
    model.save_pretrained(where)
    tokenizer().save_pretrained(where)
    return where


def test_it_reads_words_and_believes_fields_more(folder: Path) -> None:
    made = Classifier(folder)
    assert made.label == "refusal"
    for text, label in TEXTS:
        assert (made(text) > 0.5) == bool(label) and 0 <= made(text) <= 1
        assert made.mark(said(text)) == float(label)
    assert made.mark(said("sure", finish="content_filter")) == 1.0
    assert made.mark(said({"role": "assistant", "content": "sure", "refusal": "i cannot"})) == 1.0
    assert made.mark(said(calling())) == 0.0
    assert made.mark(said()) is None and made.mark(said(" ")) is None


def test_a_long_text_is_cut_to_what_the_model_holds(folder: Path) -> None:
    assert 0 <= Classifier(folder)("the train leaves at noon " * 10_000) <= 1


class Kept:
    def __init__(self) -> None:
        self.all: list[Exchange] = []

    def put(self, one: Exchange) -> None:
        self.all.append(one)


def test_marking_reads_by_it_when_it_is_given(folder: Path) -> None:
    read = with_classifier([signals.get("refusal"), signals.get("empty")], folder)
    assert [one.name for one in read] == ["refusal", "empty"]
    kept = Kept()
    marker = Marker(kept, b"key", signals=read)
    text = {"prompt": [{"role": "user", "content": "a"}], "answer": [{"role": "assistant", "content": "cannot help"}]}
    marker.put(exchange(text=text))
    marker.close(wait_s=60)
    assert [one.marks for one in kept.all] == [{"refusal": 1.0, "empty": 0.0}]


def test_it_is_not_opened_where_refusals_are_off(tmp_path: Path) -> None:
    assert with_classifier([signals.get("empty")], tmp_path / "nowhere") == (signals.get("empty"),)


def test_serve_yaml_names_it_from_where_it_lies(folder: Path) -> None:
    told = folder.parent / "serve.yaml"
    told.write_text("target: laptop\nwatch:\n  classifier: refusals\n")
    config = read_config(told).watch
    assert config.classifier == str(folder)
    marks = {one.name: one.mark for one in chosen(config)}
    assert marks["refusal"] is not None and marks["refusal"](said("cannot help")) == 1.0
    assert {one.name for one in chosen(WatchConfig())} == set(marks)


def changed(folder: Path, where: Path, **config: Any) -> Path:
    shutil.copytree(folder, where)
    told = json.loads((where / "config.json").read_text())
    (where / "config.json").write_text(json.dumps(told | config))
    return where


def test_a_label_must_say_what_it_means(folder: Path, tmp_path: Path) -> None:
    plain = changed(folder, tmp_path / "plain", id2label={"0": "A", "1": "B"}, label2id={"A": 0, "B": 1})
    with pytest.raises(UsageError, match=r"none of its labels \(A, B\) alone says that an answer declines"):
        Classifier(plain)
    assert Classifier(plain, label="B")("cannot help") > 0.5
    with pytest.raises(UsageError, match="has no label 'C'; choose from A, B"):
        Classifier(plain, label="C")
    with pytest.raises(UsageError, match="no probability"):
        Classifier(folder, threshold=1.0)


@pytest.mark.parametrize("kind", ["empty", "pickled", "broken", "torn", "code", "headless"])
def test_what_is_no_such_folder_is_told_in_a_sentence(kind: str, folder: Path, tmp_path: Path) -> None:
    where = tmp_path / "given"
    if kind == "empty":
        where.mkdir()
    else:
        shutil.copytree(folder, where)
    if kind == "pickled":
        torch.save(torch.zeros(1), where / "pytorch_model.bin")
        (where / "model.safetensors").unlink()
    elif kind == "broken":
        (where / "config.json").write_text('{"model_type": "nobody-knows"}')
    elif kind == "torn":
        (where / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    elif kind == "code":
        told = {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}
        (where / "config.json").write_text(json.dumps(told))
        (where / "evil.py").write_text("raise SystemExit('ran')")
    elif kind == "headless":
        found = load_file(where / "model.safetensors")
        save_file({name: one for name, one in found.items() if "classifier" not in name}, where / "model.safetensors")
    with pytest.raises(PickleRefused if kind == "pickled" else QuantgateError) as told_so:
        Classifier(where)
    assert isinstance(told_so.value, ModelError)
    assert "classifier 'given'" in str(told_so.value) and str(tmp_path) not in str(told_so.value).split("(")[0]
