"""Walking block by block gives what the whole model gives, for every architecture that claims to work."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from quantgate.models import open_model
from quantgate.models.families import FAMILIES, save_family
from quantgate.models.random import save_random

OTHERS: dict[str, dict[str, Any]] = {  # beyond the families: embedding scales, shared experts, blocks that give tuples
    "granite": {"embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "olmo2": {},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64},
    "bloom": {"kv_heads": 4},
    "falcon": {"kv_heads": 4},
}
QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]


def experts(parent: str, *inputs: tuple[str, ...]) -> list[list[str]]:
    """Of four experts, the layers that read each of their inputs."""
    return [[f"{parent}.experts.{at}.{leaf}" for leaf in leaves] for at in range(4) for leaves in inputs]


LLAMA = [QKV, ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]
GROUPS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"), LLAMA),
    "phi3": [["self_attn.qkv_proj"], ["self_attn.o_proj"], ["mlp.gate_up_proj"], ["mlp.down_proj"]],
    "gpt_neox": [["attention.query_key_value"], ["attention.dense"], ["mlp.dense_h_to_4h"], ["mlp.dense_4h_to_h"]],
    "opt": [QKV, ["self_attn.out_proj"], ["fc1"], ["fc2"]],
    "mixtral": [QKV, ["self_attn.o_proj"], *experts("block_sparse_moe", ("w1", "w3"), ("w2",))],
    "qwen3_moe": [QKV, ["self_attn.o_proj"], *experts("mlp", ("gate_proj", "up_proj"), ("down_proj",))],
}


WALKED = [
    *((kind, {}) for kind in FAMILIES),
    *OTHERS.items(),
    ("opt", {"do_layer_norm_before": False}),
    ("gpt_neox", {"use_parallel_residual": False}),
]


@pytest.mark.parametrize(("kind", "settings"), WALKED)
@torch.no_grad()
def test_the_walk_gives_the_whole_models_hidden_states(kind, settings, tmp_path):
    folder = save_family(tmp_path / kind, kind, **settings)
    model = open_model(folder)
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(40).reshape(2, 20) * 7 % 300
    (hidden,) = model.embed([ids])
    for index in range(model.depth):
        with model.block(index) as block:
            hidden = block(hidden)
    last = model.walker.finish(hidden)
    assert torch.allclose(last, whole.base_model(ids).last_hidden_state, atol=1e-5)
    assert last.std() > 0.1  # something was computed
    head = model.files.entries.get(f"{model.walker.head}.weight")
    assert (head is None) == model.tied


@pytest.mark.parametrize("kind", FAMILIES)
def test_groups_are_the_layers_that_share_an_input(kind, tmp_path):
    model = open_model(save_family(tmp_path, kind))
    blocks = {"gpt_neox": "gpt_neox.layers", "opt": "model.decoder.layers"}.get(kind, "model.layers")
    assert model.linears(0) == [[f"{blocks}.0.{layer}" for layer in group] for group in GROUPS[kind]]
    stored = {f"{layer}.weight" for index in range(2) for group in model.linears(index) for layer in group}
    assert stored <= set(model.files.entries)


def test_what_is_never_quantized_is_named_with_the_reason(tmp_path):
    found = {
        kind: open_model(save_family(tmp_path / kind, kind)).unquantized for kind in ("opt", "gpt_neox", "qwen3_moe")
    }
    outside = "is in no decoder block"
    assert found["opt"] == dict.fromkeys(["lm_head", "model.decoder.project_in", "model.decoder.project_out"], outside)
    assert found["gpt_neox"] == {"embed_out": outside}
    assert found["qwen3_moe"] == {"lm_head": outside, "model.layers.0.mlp.gate": "chooses or weighs experts"}


@torch.no_grad()
def test_right_padding_changes_nothing_for_the_real_tokens(tmp_path):
    model = open_model(save_random(tmp_path / "m"))
    short = torch.arange(10)[None]
    padded = torch.cat([short, torch.full((1, 6), 256)], dim=1)
    alone, beside = model.embed([short, padded])
    with model.block(0) as block:
        assert torch.allclose(block(alone), block(beside)[:, :10], atol=1e-5)


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
