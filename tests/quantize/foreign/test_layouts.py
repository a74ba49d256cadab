"""Every layout gives the numbers that its packing was made from, and what is ours comes back as it was."""

from __future__ import annotations

import shutil

import pytest
import torch

from quantgate.formats import FloatGrid, Grid, IntGrid
from quantgate.quantize import Recipe, load_dequantized
from quantgate.quantize.foreign import is_foreign, open_foreign
from quantgate.quantize.foreign.layers import scheme_of
from quantgate.quantize.sweep import sweep

from .conftest import LAYER

IDS = torch.arange(60).reshape(2, 30) * 7 % 300


def exact(artifact, folder):
    """Whether every layer decodes to the folder's numbers, and no other layer is quantized."""
    assert set(artifact.quantized) == set(folder.weights)
    return all(
        torch.equal(artifact.linear(name).dequantized(torch.float32), weight) for name, weight in folder.weights.items()
    )


def test_an_artifact_of_ours_without_manifest_is_the_same_again(each, tiny, tmp_path):
    shutil.copytree(each.path, tmp_path / "copy", ignore=shutil.ignore_patterns("manifest.json"))
    assert is_foreign(tmp_path / "copy") and not is_foreign(each.path)
    found = open_foreign(tmp_path / "copy", tiny)
    assert found.quantized == each.quantized
    for name in each.quantized:
        ours, theirs = each.linear(name), found.linear(name)
        assert torch.equal(theirs.dequantized(), ours.dequantized())
        assert theirs.activations == ours.activations
        assert (theirs.input_scale is None) == (ours.input_scale is None)
    assert torch.equal(load_dequantized(found)(IDS).logits, load_dequantized(each)(IDS).logits)
    assert found.manifest.bits_per_weight == each.manifest.bits_per_weight
    assert found.manifest.tensor_bytes == each.manifest.tensor_bytes
    assert found.name == "copy" and found.manifest.made_by == "compressed-tensors 0.20.0"


@pytest.mark.parametrize("symmetric", [True, False])
def test_our_other_containers_come_back_too(tiny, samples, tmp_path, symmetric):
    names = ["gptq_v2", "awq", *(["gptq"] if symmetric else [])]
    recipes = [
        Recipe(scheme="W4A16", group_size=32, symmetric=symmetric, method="rtn", container=name) for name in names
    ]
    for made in sweep(tiny, samples, recipes, tmp_path):
        (made.path / "manifest.json").unlink()
        found = open_foreign(made.path, tiny)
        assert found.manifest.checkpoint == made.manifest.checkpoint
        for name in made.quantized:
            assert torch.equal(found.linear(name).dequantized(), made.linear(name).dequantized())
            assert (found.linear(name).zeros is None) == symmetric


@pytest.mark.parametrize("desc_act", [False, True])
@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(gptq, tiny, bits, sym, v2, desc_act):
    folder = gptq(bits=bits, sym=sym, v2=v2, desc_act=desc_act)
    found = open_foreign(folder.path, tiny)
    assert exact(found, folder)
    layer = found.linear(LAYER)
    assert (layer.zeros is None) == sym and (layer.group_of is not None) == desc_act
    assert found.scheme.label == f"W{bits}A16-g32" + ("" if sym else "-asym")
    assert found.manifest.checkpoint == ("gptq_v2" if v2 else "gptq")
    assert found.manifest.made_by == "somebody:1.2"
    logits = load_dequantized(found, torch.float32)(IDS).logits
    assert logits.isfinite().all()


@pytest.mark.parametrize("group", [-1, 64, 96])
def test_gptq_with_one_group_or_a_last_one_that_is_smaller(gptq, tiny, group):
    folder = gptq(group=group)
    assert exact(open_foreign(folder.path, tiny), folder)


def test_gptq_without_g_idx_has_groups_side_by_side(gptq, tiny):
    folder = gptq()
    folder.change(**{name: None for name in folder.tensors if name.endswith(".g_idx")})
    assert exact(open_foreign(folder.path, tiny), folder)


def test_gptq_settings_of_single_layers(gptq, tiny):
    dynamic = {"-:.*layers\\.0\\.self_attn\\.k_proj": {}, "+:.*down_proj": {"bits": 8, "group_size": 64}}
    per_layer = {"model.layers.0.self_attn.k_proj": (16, 0)}
    per_layer |= {f"model.layers.{at}.mlp.down_proj": (8, 64) for at in (0, 1)}
    folder = gptq(per_layer=per_layer, dynamic=dynamic)
    found = open_foreign(folder.path, tiny)
    assert exact(found, folder)
    assert found.scheme.label == "W4A16-g32 + W8A16-g64"
    assert found.scheme_of(LAYER).label == "W8A16-g64"
    kept = {fate.name: fate.got for fate in found.manifest.fates if fate.asked == "keep"}
    assert kept["model.layers.0.self_attn.k_proj"] == "bf16"


@pytest.mark.parametrize(("sym", "group"), [(False, 32), (True, 32), (False, -1)])
def test_awq(awq, tiny, sym, group):
    folder = awq(sym=sym, group=group)
    found = open_foreign(folder.path, tiny)
    assert exact(found, folder)
    assert (found.linear(LAYER).zeros is None) == sym
    assert found.manifest.method == "awq"


def test_awq_settings_under_their_older_names(awq, tiny):
    folder = awq()
    config = {"quant_method": "awq", "w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"}
    folder.settings(config)
    assert exact(open_foreign(folder.path, tiny), folder)


@pytest.mark.parametrize(("packing", "v2"), [("auto_round:auto_gptq", False), ("auto_round", True)])
def test_autoround_packs_as_gptq(gptq, tiny, packing, v2):
    down = {f"model.layers.{at}.mlp.down_proj": (8, 32) for at in (0, 1)}
    kept = "model.layers.1.self_attn.q_proj"
    folder = gptq(sym=False, v2=v2, per_layer={**down, kept: (16, 0)})
    extra = {kept: {"bits": 16}, ".*down_proj": {"bits": 8}}
    settings = {"quant_method": "auto-round", "packing_format": packing, "bits": 4, "group_size": 32, "sym": False}
    folder.settings({**settings, "extra_config": extra, "data_type": "int", "autoround_version": "0.15.1"})
    found = open_foreign(folder.path, tiny)
    assert exact(found, folder)
    assert found.manifest.made_by == "auto-round 0.15.1" and found.manifest.method == "auto-round"


def test_autoround_packs_as_awq(awq, tiny):
    folder = awq()
    settings = {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4, "sym": False}
    folder.settings({**settings, "group_size": 32})
    assert exact(open_foreign(folder.path, tiny), folder)


def test_settings_in_a_file_of_their_own_are_found(gptq, tiny):
    import json

    folder = gptq()
    config = json.loads((folder.path / "config.json").read_text())
    settings = config.pop("quantization_config")
    (folder.path / "config.json").write_text(json.dumps(config))
    settings.pop("quant_method")  # AutoGPTQ did not name it
    (folder.path / "quantize_config.json").write_text(json.dumps(settings))
    assert exact(open_foreign(folder.path, tiny), folder)


def test_columns_out_of_order_in_compressed_tensors(stripped, tiny):
    """llm-compressor's actorder "group" stored the group of each column; the codes stand in the model's order."""
    folder = stripped("W4A16-g32")
    before = open_foreign(folder.path, tiny).linear(LAYER)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(3)) // 32
    folder.change(**{f"{LAYER}.weight_g_idx": order.to(torch.int32)})
    after = open_foreign(folder.path, tiny).linear(LAYER)
    scales = before.scales.float()
    wanted = torch.stack([before.codes[:, at].float() * scales[:, order[at]] for at in range(256)], dim=1)
    assert torch.equal(after.dequantized(torch.float32), wanted)
    folder.change(**{f"{LAYER}.weight_g_idx": torch.full([256], -1, dtype=torch.int32)})
    assert torch.equal(open_foreign(folder.path, tiny).linear(LAYER).dequantized(), before.dequantized())


def test_a_layer_takes_the_group_that_names_it_before_a_pattern_before_its_class(stripped, tiny):
    folder = stripped("W4A16-g64")
    (group,) = folder.told["config_groups"].values()
    wrong = {**group, "weights": {**group["weights"], "group_size": 32}}
    groups = {
        "class": {**wrong, "targets": ["Linear"]},
        "pattern": {**group, "targets": ["re:.*(self_attn|up_proj)", "re:.*gate_proj"]},
        "name": {**group, "targets": [f"model.layers.{at}.mlp.down_proj" for at in (0, 1)]},
    }
    folder.settings(config_groups=groups)
    found = open_foreign(folder.path, tiny)
    assert found.scheme.label == "W4A16-g64"


def test_an_output_layer_in_codes_runs(gptq, tmp_path):
    from quantgate.engines._products import widen
    from quantgate.engines.torch import open_engine
    from quantgate.models import open_model
    from quantgate.models.random import save_random

    model = open_model(save_random(tmp_path / "untied", tied=False, vocabulary=320))
    folder = gptq(model=model, more=("lm_head",))
    found = open_foreign(folder.path, model)
    assert "lm_head" in found.quantized and exact(found, folder)
    engine = open_engine(model, found, kernels="dequantize", device="cpu")
    assert sum(path.linears for path in engine.kernels) == 15
    network = load_dequantized(found, torch.bfloat16)
    widen(network, torch.bfloat16, torch.device("cpu"))  # as the engine multiplies here
    with torch.inference_mode():
        assert torch.equal(engine.logits(IDS), network(IDS).logits.float())


def test_what_programs_add_without_meaning_is_left_out_and_told(gptq, tiny):
    folder = gptq()
    copy = folder.tensors["model.embed_tokens.weight"].clone()
    added = {f"{LAYER}.bias": torch.zeros(128), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    folder.change(**added, **{"lm_head.weight": copy})
    found = open_foreign(folder.path, tiny)
    left = {fate.name: fate.because for fate in found.manifest.fates if fate.got == "left out"}
    assert left == {
        f"{LAYER}.bias": "a bias of zeros",
        "lm_head": "a second copy of the tied embeddings",
        "model.layers.0.self_attn.rotary_emb.inv_freq": "computed from the config",
    }
    assert load_dequantized(found)(IDS).logits.isfinite().all()


def test_kept_tensors_may_hold_other_numbers_and_that_is_told(awq, tiny):
    folder = awq()
    norm = "model.layers.0.input_layernorm.weight"
    folder.change(**{norm: (folder.tensors[norm] * 1.5).to(torch.float16)})
    found = open_foreign(folder.path, tiny)
    fates = {fate.name: fate for fate in found.manifest.fates if fate.asked == "keep"}
    assert fates[norm.removesuffix(".weight")].because.startswith("other numbers than the baseline's")
    assert fates[norm.removesuffix(".weight")].got == "f16"
    assert fates["model.norm"].because == "as the baseline has it"


def test_weights_unlike_the_baselines_are_told(awq, stripped, tiny):
    unlike = {note.tensor for note in open_foreign(awq().path, tiny).manifest.ledger if note.event == "unlike"}
    assert LAYER in unlike  # its codes are random
    ledger = open_foreign(stripped("W4A16").path, tiny).manifest.ledger
    assert [note.event for note in ledger] == ["made by", "calibration"]


def test_the_digest_is_that_of_the_bytes_and_not_of_the_place(stripped, tiny, tmp_path):
    folder = stripped("W8A8")
    shutil.copytree(folder.path, tmp_path / "elsewhere")
    first, second = open_foreign(folder.path, tiny), open_foreign(tmp_path / "elsewhere", tiny, name="W8A8")
    assert first.manifest.digest == second.manifest.digest
    settings = first.manifest.config
    assert settings["format"] == "int-quantized"
    folder.settings(global_compression_ratio=1.5)
    assert open_foreign(folder.path, tiny).manifest.digest != first.manifest.digest


def test_settings_of_the_architecture_that_differ_are_told(stripped, tiny):
    import json

    folder = stripped("W8A8")
    config = json.loads((folder.path / "config.json").read_text())
    (folder.path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    notes = [note.detail for note in open_foreign(folder.path, tiny).manifest.ledger if note.event == "config"]
    assert notes == ["rms_norm_eps is 0.5, the baseline has 1e-06"]


def test_schemes_are_named_as_the_field_does():
    tokens = IntGrid(bits=8, strategy="token")
    named: dict[str, tuple[Grid, Grid | None]] = {
        "W8A8": (IntGrid(bits=8), tokens),
        "W8A8_STATIC": (IntGrid(bits=8), IntGrid(bits=8, strategy="tensor")),
        "W4AFP8": (IntGrid(bits=4, strategy="group", group_size=128), FloatGrid(strategy="token")),
        "FP8_DYNAMIC": (FloatGrid(), FloatGrid(strategy="token")),
        "FP8A16-channel": (FloatGrid(), None),
    }
    assert {name: scheme_of(*grids).label for name, grids in named.items()} == {name: name for name in named}
