"""Walking block by block gives what the whole model gives, for every architecture that claims to work."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from quantgate.models import open_model
from quantgate.models.random import save_random

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "gemma2": {"head_dim": 32, "sliding_window": 8},
    "phi3": {},
    "granite": {"embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "olmo2": {},
}


def whole_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_walk_gives_the_whole_models_hidden_states(kind, tmp_path):
    folder = save_random(tmp_path / kind, kind=kind, hidden=64, feed_forward=96, **KINDS[kind])
    model, whole = open_model(folder), whole_model(folder)
    ids = torch.arange(40).reshape(2, 20) * 7 % 300
    (hidden,) = model.embed([ids])
    for index in range(model.depth):
        with model.block(index) as block:
            hidden = block(hidden)
    assert torch.allclose(whole.model.norm(hidden), whole.model(ids).last_hidden_state, atol=1e-5)


@torch.no_grad()
def test_right_padding_changes_nothing_for_the_real_tokens(tmp_path):
    model = open_model(save_random(tmp_path / "m"))
    short = torch.arange(10)[None]
    padded = torch.cat([short, torch.full((1, 6), 256)], dim=1)
    alone, beside = model.embed([short, padded])
    with model.block(0) as block:
        assert torch.allclose(block(alone), block(beside)[:, :10], atol=1e-5)


def test_linears_that_read_the_same_input_stand_together(tmp_path):
    model = open_model(save_random(tmp_path / "m"))
    at = "model.layers.1."
    assert model.linears(1) == [
        [at + "self_attn.q_proj", at + "self_attn.k_proj", at + "self_attn.v_proj"],
        [at + "self_attn.o_proj"],
        [at + "mlp.gate_proj", at + "mlp.up_proj"],
        [at + "mlp.down_proj"],
    ]


@torch.no_grad()
def test_a_sharded_model_walks_like_one_file(tmp_path):
    ids = [torch.arange(12)[None]]
    outs = []
    for shard in ("5GB", "150KB"):
        model = open_model(save_random(tmp_path / shard, shard=shard))
        hidden = model.embed(ids)[0]
        with model.block(0) as block:
            outs.append(block(hidden))
    assert torch.equal(*outs)


def test_only_one_block_is_in_memory_at_a_time(tmp_path):
    model = open_model(save_random(tmp_path / "m", layers=3))
    hidden = model.embed([torch.arange(4)[None]])[0]
    per_block = sum(t.numel() for t in model.walker.layers[0].state_dict().values())

    def held():
        gc.collect()
        live = [one for one in gc.get_objects() if type(one) is torch.nn.Parameter and one.device.type != "meta"]
        return sum(one.numel() for one in live)

    before = held()
    for index in range(3):
        with model.block(index) as block:
            hidden = block(hidden)
            assert held() - before == per_block
        del block
    assert held() == before
