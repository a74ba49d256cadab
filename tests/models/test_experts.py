"""Experts taken apart compute what transformers computes, and bear the names that the checkpoint has."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from quantgate.models import open_model
from quantgate.models.experts import Experts, expand, module_paths, stored_names
from quantgate.models.families import MIXTURES, save_family

IDS = torch.arange(60).reshape(2, 30) * 7 % 300
LEAVES = {"mixtral": ("w1", "w3", "w2"), "qwen3_moe": ("gate_proj", "up_proj", "down_proj")}


@pytest.fixture(params=MIXTURES)
def kind(request):
    return request.param


def whole_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def test_a_block_taken_apart_gives_what_transformers_block_gives(kind, tmp_path):
    folder = save_family(tmp_path, kind)
    model, whole = open_model(folder), whole_model(folder)
    (hidden,) = model.embed([IDS])
    seen = []
    whole.model.layers[0].register_forward_hook(lambda _block, _given, made: seen.append(made))
    whole(IDS)
    with model.block(0) as block:
        assert any(isinstance(module, Experts) for module in block.module.modules())
        assert torch.allclose(block(hidden), seen[0], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_whole_model_taken_apart_computes_the_same(kind, dtype, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_family(tmp_path, kind), dtype=dtype).eval()
    before = model(IDS).logits
    expand(model, "here")
    near = 1e-5 if dtype == torch.float32 else 0.1  # bfloat16 sums of the shares round in another order
    assert torch.allclose(model(IDS).logits, before, atol=near)


def test_no_weight_is_copied(kind, tmp_path):
    model = whole_model(save_family(tmp_path, kind))
    fused = model.model.layers[0].mlp.experts.gate_up_proj
    expand(model, "here")
    gate, up, _ = LEAVES[kind]
    expert = model.get_submodule("model.layers.0.mlp.experts.1")
    inner = fused.shape[1] // 2
    assert expert.get_submodule(gate).weight.data_ptr() == fused[1].data_ptr()
    assert torch.equal(expert.get_submodule(up).weight, fused[1, inner:])


def test_the_names_are_those_of_the_checkpoint(kind, tmp_path):
    folder = save_family(tmp_path, kind)
    model, files = whole_model(folder), open_model(folder).files
    names = expand(model, "here")
    assert set(names.values()) == set(files.entries) | {"lm_head.weight"}  # not stored where it is tied
    state = model.state_dict()
    assert set(state) == set(names)
    stored_ones = {name: stored for name, stored in names.items() if stored in files.entries}
    assert all(torch.equal(state[name], files.read(stored)) for name, stored in stored_ones.items())
    block = {"mixtral": "block_sparse_moe", "qwen3_moe": "mlp"}[kind]
    leaf = LEAVES[kind][2]
    assert module_paths(names)[f"model.layers.0.{block}.experts.3.{leaf}"] == f"model.layers.0.mlp.experts.3.{leaf}"


def test_a_dense_models_tensors_are_called_what_they_are_called_in_memory(tmp_path):
    model = whole_model(save_family(tmp_path, "llama"))
    assert stored_names(model) == {name: [name] for name in model.state_dict()}


@torch.no_grad()
def test_every_token_visits_as_many_experts_as_the_router_chose(kind, tmp_path):
    model = open_model(save_family(tmp_path, kind))
    (hidden,) = model.embed([IDS])
    with model.block(0) as block:
        homes = {group[0]: home for group in model.linears(0) if (home := block.experts(group[0]))}
        counts = []
        for layer, (_, experts) in list(homes.items())[::2]:  # the first of each expert's two inputs
            block.linear(layer).register_forward_pre_hook(lambda _m, args, at=experts: counts.append(len(at.routed)))
        block(hidden)
    assert sum(counts) == 2 * IDS.numel()
    assert min(counts) > 0
