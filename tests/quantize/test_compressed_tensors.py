"""What we write is what transformers and the compressed-tensors package read: the same logits, bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from quantgate.formats import scheme
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, load_dequantized
from quantgate.quantize.checkpoints.compressed_tensors import CHECKPOINT
from quantgate.quantize.sweep import sweep

IDS = torch.arange(60).reshape(2, 30) * 7 % 300
ALLOWED = 0.0  # largest difference of any logit; the logits reach about 70


def theirs(artifact, dtype):
    how = {}
    if artifact.scheme.weights.symmetric is False:
        # transformers 5.23 with compressed-tensors 0.20 builds unpacked zero points on its default path and then meets
        # packed ones; the path that dequantizes while loading reads them
        how = {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    return AutoModelForCausalLM.from_pretrained(artifact.path, dtype=dtype, **how).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_transformers_computes_the_same_logits(each, dtype, quiet):
    if each.scheme.weights.type == "fp4" and dtype == torch.float32:
        pytest.skip(
            "compressed-tensors 0.20 decodes fp4 to bfloat16 whatever is asked for, and stops in a float32 model"
        )
    # the path for zero points decodes in the type that is stored, bfloat16, whatever type is asked for
    ours = load_dequantized(each, dtype if each.scheme.weights.symmetric else torch.bfloat16)
    if dtype == torch.float32:
        ours = ours.float()
    assert (theirs(each, dtype)(IDS).logits - ours(IDS).logits).abs().max() <= ALLOWED


@pytest.mark.parametrize("name", ["W4A16", "W8A8"])
@torch.no_grad()
def test_the_comparison_would_notice_one_wrong_code(swept, name, quiet):
    ours = load_dequantized(swept[name], torch.float32)
    weight = ours.get_submodule(swept[name].quantized[0]).weight
    weight[3, 5] += swept[name].linear(swept[name].quantized[0]).scales[3, 0]
    assert (theirs(swept[name], torch.float32)(IDS).logits - ours(IDS).logits).abs().max() > ALLOWED


@torch.no_grad()
def test_untied_float32_models_with_biases_are_stored_too(tmp_path, samples, quiet):
    folder = save_random(tmp_path / "qwen", kind="qwen2", tied=False, dtype="float32")
    model = open_model(folder)
    assert "model.layers.0.self_attn.q_proj.bias" in model.files.entries
    for artifact in sweep(model, samples, [Recipe(scheme="W4A16"), Recipe(scheme="FP8_DYNAMIC")], tmp_path / "out"):
        assert "lm_head.weight" in artifact.files.entries
        layer = artifact.linear("model.layers.0.self_attn.q_proj")
        assert layer.bias is not None
        assert layer.scales.dtype == torch.float32
        loaded = theirs(artifact, torch.float32)(IDS).logits
        assert (loaded - load_dequantized(artifact)(IDS).logits).abs().max() <= ALLOWED


def test_tied_embeddings_stay_tied(swept, quiet):
    assert "lm_head.weight" not in swept["W4A16"].files.entries
    loaded = theirs(swept["W4A16"], torch.float32)
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()


def test_the_config_says_what_a_runtime_must_know(swept):
    told = json.loads((swept["W4A16-g64"].path / "config.json").read_text())["quantization_config"]
    assert told == {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {
                    "num_bits": 4,
                    "type": "int",
                    "symmetric": True,
                    "strategy": "group",
                    "group_size": 64,
                    "dynamic": False,
                    "observer": "minmax",
                },
                "input_activations": None,
                "output_activations": None,
                "format": "pack-quantized",
            }
        },
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "version": "0.20.0",
    }
    activations = json.loads((swept["W8A8"].path / "config.json").read_text())["quantization_config"]["config_groups"]
    assert activations["group_0"]["input_activations"]["strategy"] == "token"
    assert activations["group_0"]["input_activations"]["dynamic"] is True


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        (
            "W4A16",
            {"weight_packed": ("I32", (256, 16)), "weight_scale": ("BF16", (256, 1)), "weight_shape": ("I64", (2,))},
        ),
        (
            "W3A16-g32",
            {"weight_packed": ("I32", (256, 12)), "weight_scale": ("BF16", (256, 4)), "weight_shape": ("I64", (2,))},
        ),
        (
            "W4A16-g32-asym-rtn",
            {
                "weight_packed": ("I32", (256, 16)),
                "weight_scale": ("BF16", (256, 4)),
                "weight_shape": ("I64", (2,)),
                "weight_zero_point": ("I32", (32, 4)),
            },
        ),
        ("W8A8", {"weight": ("I8", (256, 128)), "weight_scale": ("BF16", (256, 1))}),
        ("W4A8-g32", {"weight": ("I8", (256, 128)), "weight_scale": ("BF16", (256, 4))}),
        (
            "W4A4-g32",
            {"weight_packed": ("I32", (256, 16)), "weight_scale": ("BF16", (256, 4)), "weight_shape": ("I64", (2,))},
        ),
        ("FP8_DYNAMIC", {"weight": ("F8_E4M3", (256, 128)), "weight_scale": ("BF16", (256, 1))}),
        (
            "FP8",
            {"weight": ("F8_E4M3", (256, 128)), "weight_scale": ("BF16", (1,)), "input_scale": ("BF16", (1,))},
        ),
        ("FP8_BLOCK", {"weight": ("F8_E4M3", (256, 128)), "weight_scale": ("BF16", (2, 1))}),
        (
            "NVFP4",
            {
                "weight_packed": ("U8", (256, 64)),
                "weight_scale": ("F8_E4M3", (256, 8)),
                "weight_global_scale": ("F32", (1,)),
                "input_global_scale": ("F32", (1,)),
            },
        ),
        (
            "NVFP4A16",
            {
                "weight_packed": ("U8", (256, 64)),
                "weight_scale": ("F8_E4M3", (256, 8)),
                "weight_global_scale": ("F32", (1,)),
            },
        ),
        ("MXFP4", {"weight_packed": ("U8", (256, 64)), "weight_scale": ("U8", (256, 4))}),
    ],
)  # fmt: skip
def test_the_tensors_have_the_documented_names_types_and_shapes(swept, name, stored):
    layer = "model.layers.1.mlp.up_proj."
    entries = swept[name].files.entries
    found = {
        key.removeprefix(layer): (entries[key].dtype, entries[key].shape) for key in entries if key.startswith(layer)
    }
    assert found == stored


@pytest.mark.parametrize(
    "name",
    [
        "W4A16",
        "W3A16-g32-asym-rtn",
        "W8A8",
        "W4A8-g32",
        "W4A4-g32",
        "FP8_DYNAMIC",
        "FP8",
        "FP8_BLOCK",
        "NVFP4",
        "MXFP4A16",
    ],
)
def test_reading_back_gives_what_was_packed(swept, name):
    layer = swept[name].linear("model.layers.0.mlp.up_proj")
    again = CHECKPOINT.pack(layer)
    assert all(torch.equal(again[key], swept[name].files.read(key)) for key in again)


def test_what_the_container_cannot_hold_is_said():
    assert CHECKPOINT.refuse(scheme("BF16")) == "it quantizes nothing"
    assert CHECKPOINT.refuse(scheme("W4A16")) is None
