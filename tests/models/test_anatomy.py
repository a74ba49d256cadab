"""What cannot be walked block by block is refused when the model is opened, in one sentence that names the obstacle."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, LlamaConfig

from quantgate.errors import ModelError
from quantgate.models import open_model
from quantgate.models.anatomy import _blocks
from quantgate.models.families import SUPPORTED
from quantgate.models.random import save_random

ONE_TENSOR = "quantgate quantizes mixtures of experts that are stored one tensor per expert"
OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {  # configuration class -> settings, what is in the way
    "gpt2": ({"n_layer": 2}, "'transformer.h.0.attn.c_attn' is a Conv1D, which stores its weight transposed; "),
    "gptj": ({"n_layer": 2}, "its block 0 holds buffers, which change as it runs or are not stored; "),
    "mamba": ({"num_hidden_layers": 2}, "its config.json names no num_attention_heads; "),
    "rwkv": ({"num_hidden_layers": 2}, "its config.json names no num_attention_heads; "),
    "qwen3_next": ({"num_hidden_layers": 4}, "'model.layers.0.linear_attn.conv1d.weight' has 3 dimensions; "),
    "bart": ({}, "it is an encoder-decoder; "),
    "t5": ({}, "it is an encoder-decoder; "),
    "gemma3": ({}, "its text model is a part of a larger one; "),
    "gemma3n_text": (
        {"num_hidden_layers": 4, "num_kv_shared_layers": 0},
        "the numbers it computes for itself cannot be set ",
    ),
    "gpt_oss": ({"num_hidden_layers": 2}, ONE_TENSOR),
    "llama4_text": ({"num_hidden_layers": 2}, ONE_TENSOR),
    "granitemoe": ({"num_hidden_layers": 2}, ONE_TENSOR),
}


@pytest.fixture
def folder(tmp_path):
    """A folder with some weights: refusals come before their names are looked at."""
    save_file({"some.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_in_the_way_is_told_in_one_sentence(kind, folder):
    settings, obstacle = OBSTACLES[kind]
    AutoConfig.for_model(kind, **settings).save_pretrained(folder)
    with pytest.raises(ModelError, match=re.escape(obstacle)) as refused:
        open_model(folder)
    assert str(refused.value).startswith(f"{folder}: ")
    assert "\n" not in str(refused.value)


def test_blocks_that_another_module_than_their_owner_feeds_are_refused(tmp_path):
    """BERT's list of blocks belongs to an encoder that takes hidden states, not tokens."""
    folder = save_random(tmp_path, kind="bert", is_decoder=True, tied=False, dtype="float32")
    with pytest.raises(
        ModelError, match=r"BertLMHeadModel cannot be walked block by block: .*hidden_states"
    ) as refused:
        open_model(folder)
    assert str(refused.value).endswith("; expected blocks that hand on one tensor [batch, tokens, hidden]")


def test_a_refusal_says_what_is_supported(folder):
    AutoConfig.for_model("gpt2").save_pretrained(folder)
    with pytest.raises(ModelError, match=re.escape(SUPPORTED)):
        open_model(folder)


@pytest.mark.parametrize(("blocks", "many"), [(0, "no list of its 2"), (2, "2 lists of 2")])
def test_without_exactly_one_list_of_blocks_none_is_guessed(blocks, many):
    model = torch.nn.Module()
    for at in range(blocks):
        model.add_module(f"stack{at}", torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]))
    with pytest.raises(ModelError, match=f"x: it has {many} decoder blocks"):
        _blocks(model, LlamaConfig(num_hidden_layers=2), "x: ")
