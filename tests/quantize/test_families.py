"""Every proven architecture goes through a sweep and comes back: the same numbers, the kept tensors bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import JsonValue
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from quantgate.models import open_model
from quantgate.models.experts import expand, module_paths
from quantgate.models.families import FAMILIES, MIXTURES, save_family
from quantgate.models.folding import find_folds
from quantgate.quantize import Recipe, load_dequantized
from quantgate.quantize.artifact import baseline
from quantgate.quantize.sweep import sweep

IDS = torch.arange(60).reshape(2, 30) * 7 % 300
FED: dict[str, JsonValue] = {"min_expert_tokens": 20}  # so that no expert of these small sets goes without statistics
LLAMA = {
    "q_proj": "input_layernorm",
    "o_proj": "v_proj",
    "gate_proj": "post_attention_layernorm",
    "down_proj": "up_proj",
}
GEMMA = LLAMA | {"gate_proj": "pre_feedforward_layernorm"}
FOLDS = {  # where channel scales go in block 0: the layer's last name -> its source's
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "phi3": {"qkv_proj": "input_layernorm", "gate_up_proj": "post_attention_layernorm"},
    "gpt_neox": {"query_key_value": "input_layernorm", "dense_h_to_4h": "post_attention_layernorm"},
    "opt": {"q_proj": "self_attn_layer_norm", "out_proj": "v_proj", "fc1": "final_layer_norm", "fc2": "fc1"},
    "mixtral": {"q_proj": "input_layernorm", "o_proj": "v_proj", "w2": "w3"},
    "qwen3_moe": {"q_proj": "input_layernorm", "o_proj": "v_proj", "down_proj": "up_proj"},
}


@torch.no_grad()
def test_tensors_that_the_architecture_does_not_have_are_carried_along(samples, tmp_path):
    """Old GPT-NeoX checkpoints store their causal masks, and the number that masks scores became -inf in 16 bits."""
    folder = save_family(tmp_path / "model", "gpt_neox")
    tensors = load_file(folder / "model.safetensors")
    at = "gpt_neox.layers.0.attention"
    extra = {f"{at}.bias": torch.ones(1, 1, 8, 8).tril().bool(), f"{at}.masked_bias": torch.tensor(-torch.inf)}
    save_file(tensors | extra, folder / "model.safetensors", metadata={"format": "pt"})
    (artifact,) = sweep(open_model(folder), samples, [Recipe(scheme="W4A16", group_size=32)], tmp_path / "out")
    assert all(torch.equal(artifact.files.read(name), tensor) for name, tensor in extra.items())
    assert load_dequantized(artifact)(IDS).logits.isfinite().all()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory, samples):
    """The kind, its model, and its artifacts by method: rtn, gptq, awq; W4A16 in groups of 32, stored in float32."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    model = open_model(save_family(folder / "model", kind))
    fed: dict[str, JsonValue] = FED if kind in MIXTURES else {}
    recipes = [
        Recipe(scheme="W4A16", group_size=32, method=method, options=fed, label=method)
        for method in ("rtn", "gptq", "awq")
    ]
    return kind, model, {one.name: one for one in sweep(model, samples, recipes, folder / "out")}


def layers_of(model):
    return [layer for index in range(model.depth) for group in model.linears(index) for layer in group]


def test_all_linear_layers_of_the_blocks_are_quantized_and_nothing_else(family):
    _, model, made = family
    assert set(made["gptq"].quantized) == set(layers_of(model))
    fates = made["gptq"].manifest.fates
    assert {fate.name for fate in fates} == {name.removesuffix(".weight") for name in model.files.entries}


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_kept_tensors_are_the_models_own_bit_for_bit(family, method):
    _, model, made = family
    kept = [fate.tensors for fate in made[method].manifest.fates if fate.name not in made[method].quantized]
    assert kept
    for (tensor,) in kept:
        assert torch.equal(made[method].files.read(tensor), model.files.read(tensor))


@pytest.mark.parametrize("method", ["rtn", "gptq"])
@torch.no_grad()
def test_the_artifact_loads_as_the_model_with_its_layers_decoded(family, method):
    _, model, made = family
    by_hand = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    plain = by_hand(IDS).logits
    paths = module_paths(expand(by_hand, "here"))
    assert torch.allclose(by_hand(IDS).logits, plain, atol=1e-4)
    for layer in layers_of(model):
        by_hand.get_submodule(paths[layer]).weight.copy_(made[method].linear(layer).dequantized(torch.float32))
    loaded = load_dequantized(made[method])(IDS).logits
    assert torch.equal(loaded, by_hand(IDS).logits)
    assert 0.01 < (loaded - plain).abs().mean() < 0.5 * plain.std()


def test_gptq_loses_less_on_the_calibration_set_than_rounding(family):
    _, _, made = family
    errors = {
        method: {fate.name: fate.error for fate in made[method].manifest.quantized if fate.error is not None}
        for method in ("rtn", "gptq")
    }
    assert set(errors["rtn"]) <= set(errors["gptq"])
    assert all(errors["gptq"][layer] < error for layer, error in errors["rtn"].items())


def test_channel_scales_find_their_folds_or_the_ledger_says_that_there_is_none(family):
    kind, model, made = family
    with model.block(0) as block:
        probe = model.embed([torch.arange(32)[None] * 7 % 256])[0]
        folds = find_folds(block, model.linears(0), probe)
    found = {fold.group[0].rpartition(".")[2]: fold.source.rpartition(".")[2] for fold in folds}
    assert found == FOLDS[kind]
    without = {note.tensor for note in made["awq"].manifest.ledger if note.event == "not_scaled"}
    first = {group[0] for group in model.linears(0)}
    assert without & first == first - {fold.group[0] for fold in folds}


@torch.no_grad()
def test_folded_scales_change_nothing_but_the_rounding(family):
    _, model, made = family
    plain = load_dequantized(baseline(model))(IDS).logits
    damage = {method: (load_dequantized(made[method])(IDS).logits - plain).square().mean() for method in made}
    assert damage["awq"] < 1.5 * damage["rtn"]


@torch.no_grad()
def test_transformers_reads_the_container(family, quiet):
    """Mixtures load where transformers 5.23 decodes while it loads; its other path has no packed experts."""
    kind, _, made = family
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if kind in MIXTURES else {}
    theirs = AutoModelForCausalLM.from_pretrained(made["gptq"].path, dtype=torch.float32, **how).eval()
    difference = (theirs(IDS).logits - load_dequantized(made["gptq"])(IDS).logits).abs().max()
    assert difference <= (1e-4 if kind in MIXTURES else 0.0)  # its experts run in another order


def test_the_container_names_what_runtimes_must_leave_alone(family):
    kind, model, made = family
    told = json.loads((made["rtn"].path / "config.json").read_text())["quantization_config"]
    assert set(told["ignore"]) == {"lm_head", *model.unquantized}
    routers = {name for name in told["ignore"] if name.endswith("gate")}
    assert bool(routers) == (kind in MIXTURES)
