"""What cannot be judged is refused with one sentence that names the file, what was found and what to do."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from quantgate.errors import ArtifactError, BadTensor, ModelError, PickleRefused, QuantgateError, UsageError
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize.foreign import open_foreign

from .conftest import LAYER


def refusal(folder, model):
    """The one sentence."""
    with pytest.raises(QuantgateError) as told:
        open_foreign(folder.path, model)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"quant_method": "bitsandbytes"},
         "name 'bitsandbytes'; supported are auto-round, awq, compressed-tensors, gptq"),
        ({"bits": 4}, "the quantization settings name no quant_method; supported are auto-round"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "marlin"},
         "checkpoint_format 'marlin'; supported are gptq and gptq_v2"),
        ({"quant_method": "gptq", "bits": 5, "group_size": 32}, "GPTQ of 5 bits; supported are 2, 3, 4, 8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": "x"}, "group_size is 'x', expected a whole number"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"+:(": {}}},
         "'(' is no regular expression"),
        ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"},
         "AWQ version 'gemv'; supported is gemm"),
        ({"quant_method": "awq", "bits": 8, "group_size": 32}, "AWQ of 8 bits; supported are 4"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 32, "packing_format": "auto_round:fp8"},
         "packing_format 'auto_round:fp8'; supported are auto_round, auto_round:auto_awq"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 32, "packing_format": "auto_round",
          "data_type": "mx_fp"},
         "data_type 'mx_fp'; supported are integer weights alone"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 32, "packing_format": "auto_round", "act_bits": 8},
         "data_type 'int' with inputs of 8 bits; supported are integer weights alone"),
    ],
)  # fmt: skip
def test_settings_of_a_layout_that_is_not_read(gptq, tiny, settings, sentence):
    folder = gptq()
    folder.settings(settings)
    told = refusal(folder, tiny)
    assert told.startswith(f"{folder.path / 'config.json'}: ") and sentence in told


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kv_cache_scheme": {"num_bits": 8}}, "asks for a quantized KV cache, which quantgate does not run"),
        ({"transform_config": {"config_groups": {"R1": {}}}}, "transform_config is not empty"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config is not empty"),
        ({"quantization_status": "frozen"}, "quantization_status is 'frozen'; supported is compressed"),
        ({"config_groups": {}}, "config_groups is missing or empty"),
        ({"ignore": []}, None),  # lm_head is tied and never asked
        ({"ignore": ["lm_head", LAYER]}, f"'{LAYER}' is stored as codes, and config.json leaves it alone"),
    ],
)
def test_settings_of_compressed_tensors_that_are_not_run(stripped, tiny, change, sentence):
    folder = stripped("W4A16")
    folder.settings(**change)
    if sentence is None:
        assert open_foreign(folder.path, tiny).scheme.label == "W4A16"
    else:
        assert sentence in refusal(folder, tiny)


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("weights", {"num_bits": 1}, "weights: int1, strategy 'group', group_size 64"),
        ("weights", {"type": "float", "num_bits": 6}, "weights: float6, strategy 'group', group_size 64, scales plain"),
        ("weights", {"type": "float", "num_bits": 8, "scale_dtype": "torch.uint8"}, "scales uint8; supported are int"),
        ("weights", {"type": "float", "num_bits": 8}, "has the format 'pack-quantized', which its weights contradict"),
        (None, {"format": "marlin-24"}, "has the format 'marlin-24'; supported are float-quantized, int-quantized"),
        (None, {"format": None, "whole": "mixed-precision"}, "has the format 'mixed-precision'; supported are"),
        (None, {"output_activations": {"num_bits": 8}}, "rounds outputs (output_activations)"),
        (None, {"targets": []}, "has no targets or no weights"),
        (None, {"input_activations": {"num_bits": 8, "strategy": "token", "symmetric": False, "dynamic": True}},
         "input_activations: asymmetric with strategy 'token'"),
        (None, {"input_activations": {"num_bits": 8, "strategy": "tensor", "dynamic": True}},
         "input_activations: dynamic with strategy 'tensor'"),
    ],
)  # fmt: skip
def test_groups_of_compressed_tensors_that_are_not_read(stripped, tiny, part, change, sentence):
    folder = stripped("W4A16-g64")
    (group,) = folder.told["config_groups"].values()
    whole = {"format": change["whole"]} if "whole" in change else {}
    change = {key: value for key, value in change.items() if key != "whole"}
    group = {**group, part: {**group[part], **change}} if part else {**group, **change}
    folder.settings(config_groups={"group_0": group}, **whole)
    assert sentence in refusal(folder, tiny)


def test_two_groups_for_one_target(stripped, tiny):
    folder = stripped("W4A16-g64")
    (group,) = folder.told["config_groups"].values()
    other = {**group, "weights": {**group["weights"], "group_size": 32}}
    folder.settings(config_groups={"a": group, "b": other})
    assert "two groups ask different formats of 'Linear'; keep one of them" in refusal(folder, tiny)


def test_a_layer_that_the_settings_ask_for_and_the_files_do_not_have(stripped, tiny):
    folder = stripped("mixed")
    folder.settings(ignore=["lm_head"])
    assert "'model.layers.0.self_attn.q_proj' is not stored as codes, and config.json asks for int4 g128" in refusal(
        folder, tiny
    )


def test_no_settings_at_all(tiny):
    with pytest.raises(
        ArtifactError, match=r"config\.json: no quantization_config in it, and no quantize_config\.json"
    ):
        open_foreign(tiny.path, tiny)


def test_two_settings_that_differ(gptq, tiny):
    folder = gptq()
    (folder.path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 32, "sym": True}))
    open_foreign(folder.path, tiny)
    (folder.path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 128, "sym": True}))
    told = refusal(folder, tiny)
    assert "says group_size is 32, quantize_config.json beside it says 128; keep the one that is true" in told


def test_settings_that_are_no_json(gptq, tiny):
    folder = gptq()
    (folder.path / "config.json").write_text("{")
    assert "config.json: not valid JSON" in refusal(folder, tiny)


def test_pickles_are_refused(gptq, tiny):
    folder = gptq()
    (folder.path / "model.safetensors").unlink()
    (folder.path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(PickleRefused, match=r"the weights are a pickle \(pytorch_model\.bin\)"):
        open_foreign(folder.path, tiny)


def test_code_in_the_folder_is_not_run(gptq, tiny):
    folder = gptq()
    config = json.loads((folder.path / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "run.Config"}}
    (folder.path / "config.json").write_text(json.dumps(config))
    (folder.path / "run.py").write_text("raise SystemExit('it ran')\n")
    assert "transformers does not open it without running code from it" in refusal(folder, tiny)


def test_a_truncated_file(gptq, tiny):
    folder = gptq()
    raw = (folder.path / "model.safetensors").read_bytes()
    (folder.path / "model.safetensors").write_bytes(raw[:-100])
    with pytest.raises(ModelError, match="truncated: its header promises"):
        open_foreign(folder.path, tiny)


@pytest.mark.parametrize("leaf", ["scales", "qzeros"])
def test_a_missing_tensor(gptq, tiny, leaf):
    folder = gptq()
    folder.change(**{f"{LAYER}.{leaf}": None})
    assert f"'{LAYER}.{leaf}' is missing, though other tensors of the layer are there" in refusal(folder, tiny)


@pytest.mark.parametrize("leaf", ["qweight", "scales", "qzeros", "g_idx"])
def test_a_wrong_shape(gptq, tiny, leaf):
    folder = gptq()
    folder.change(**{f"{LAYER}.{leaf}": folder.tensors[f"{LAYER}.{leaf}"][:-1].clone()})
    told = refusal(folder, tiny)
    assert f"'{LAYER}.{leaf}' is " in told and "they do not belong together" in told


def test_settings_that_are_not_those_of_the_tensors(gptq, tiny):
    folder = gptq()
    folder.settings(bits=8)
    assert "I32 [16, 128], where the config and the baseline ask for I32 [32, 128]" in refusal(folder, tiny)
    folder.settings(bits=4, group_size=64)
    assert "F16 [4, 128], where the config and the baseline ask for F16 or BF16 or F32 [2, 128]" in refusal(
        folder, tiny
    )


def test_numbers_that_are_none(gptq, tiny):
    folder = gptq()
    scales = folder.tensors[f"{LAYER}.scales"].clone()
    scales[1, 2] = float("nan")
    folder.change(**{f"{LAYER}.scales": scales})
    with pytest.raises(BadTensor, match=rf"tensor '{LAYER}\.scales' holds NaN"):
        open_foreign(folder.path, tiny)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda g: g.index_fill(0, torch.tensor([5]), 8), "g_idx names the groups 0 to 8; there are 8, from 0"),
        (lambda g: g.index_fill(0, torch.tensor([5]), -1), "g_idx names the groups -1 to 7"),
        (lambda g: g.index_fill(0, torch.tensor([5]), 3), "g_idx does not give every group 32 columns"),
        (lambda g: g.flip(0), "the config says desc_act is false, and g_idx is in another order"),
    ],
)
def test_groups_that_cannot_be(gptq, tiny, change, sentence):
    folder = gptq()
    folder.change(**{f"{LAYER}.g_idx": change(folder.tensors[f"{LAYER}.g_idx"]).contiguous()})
    told = refusal(folder, tiny)
    assert f"{LAYER}: {sentence}" in told


def test_layout_two_that_calls_itself_layout_one(gptq, tiny):
    folder = gptq(v2=True)
    folder.settings(checkpoint_format="gptq")
    told = refusal(folder, tiny)
    assert "the config says sym, and a zero point is 9 instead of 8, so runtimes would disagree" in told
    assert "checkpoint_format to gptq_v2 if that is what wrote it" in told


def test_layout_one_that_calls_itself_layout_two(gptq, tiny):
    folder = gptq()
    folder.settings(checkpoint_format="gptq_v2")
    assert "a zero point is 7 instead of 8" in refusal(folder, tiny)


def test_a_zero_point_that_layout_one_cannot_say(gptq, tiny):
    folder = gptq(sym=False)
    words = folder.tensors[f"{LAYER}.qzeros"].clone()
    words[0, 0] |= 15
    folder.change(**{f"{LAYER}.qzeros": words})
    told = refusal(folder, tiny)
    assert (
        "a zero point is stored as 15 in layout 1, which runtimes read as 0 or as 16; save it again as gptq_v2" in told
    )


def test_zero_points_where_awq_says_there_are_none(awq, tiny):
    folder = awq()
    folder.settings(zero_point=False)
    assert "the config says zero_point is false, and qzeros holds others than 8" in refusal(folder, tiny)


def test_a_kept_layer_that_is_stored_as_codes(awq, tiny):
    folder = awq(modules_to_not_convert=["down_proj"])
    assert "down_proj' is stored as codes, and config.json leaves it alone" in refusal(folder, tiny)


def test_zero_points_where_compressed_tensors_says_there_are_none(stripped, tiny):
    folder = stripped("W8A8")
    folder.change(**{f"{LAYER}.weight_zero_point": torch.zeros(128, 1, dtype=torch.int8)})
    assert open_foreign(folder.path, tiny).linear(LAYER).zeros is None
    folder.change(**{f"{LAYER}.weight_zero_point": torch.ones(128, 1, dtype=torch.int8)})
    assert "the config says symmetric, and weight_zero_point is not all 0" in refusal(folder, tiny)


def test_three_bits_packed_as_before(stripped, tiny):
    folder = stripped("W3A16-g32")
    folder.change(**{f"{LAYER}.weight_packed": torch.zeros(128, 26, dtype=torch.int32)})
    assert "3-bit codes with 10 in a word, as compressed-tensors packed before" in refusal(folder, tiny)


def test_a_calibrated_scale_that_cannot_be(stripped, tiny):
    folder = stripped("FP8")
    scale = folder.tensors[f"{LAYER}.input_scale"]
    folder.change(**{f"{LAYER}.input_scale": torch.zeros_like(scale)})
    assert "input_scale is 0, expected a number above 0" in refusal(folder, tiny)
    folder.change(**{f"{LAYER}.input_scale": None})
    assert f"'{LAYER}.input_scale' is missing" in refusal(folder, tiny)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        (f"{LAYER}.bias", torch.ones(128)),
        (f"{LAYER}.input_scale", torch.ones(1)),
        ("model.layers.0.self_attn.k_scale", torch.ones(1)),
        ("lm_head.weight", torch.ones(300, 128)),
        (f"{LAYER}.weight", torch.ones(128, 256)),
    ],
)
def test_a_tensor_that_nobody_expects(gptq, tiny, name, tensor):
    folder = gptq()
    folder.change(**{name: tensor})
    assert f"'{name}' is no tensor of the baseline" in refusal(folder, tiny)


def test_an_artifact_of_another_model(gptq, tiny, tmp_path):
    folder = gptq()
    wider = open_model(save_random(tmp_path / "wider", feed_forward=320))
    assert "where the config and the baseline ask for" in refusal(folder, wider)
    deeper = open_model(save_random(tmp_path / "deeper", layers=3))
    assert "'model.layers.2.input_layernorm.weight' of the baseline" in refusal(folder, deeper)
    more = open_model(save_random(tmp_path / "more", vocabulary=320))
    assert "'model.embed_tokens.weight' is BF16 [300, 128], the baseline" in refusal(folder, more)
    other = open_model(save_random(tmp_path / "other", kind="mistral"))
    assert "the architecture is llama, the baseline" in refusal(folder, other)


def test_nothing_is_quantized(tiny, tmp_path):
    shutil.copytree(tiny.path, tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    (tmp_path / "plain" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"no linear layer of .* is stored as codes in it; it is not quantized"):
        open_foreign(tmp_path / "plain", tiny)


def test_another_chat_template_or_tokenizer(stripped, tiny):
    folder = stripped("W8A8")
    file = folder.path / "tokenizer.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps(written))  # other bytes, the same tokenizer
    assert open_foreign(folder.path, tiny).quantized
    written["model"]["vocab"] = {word: 255 - at for word, at in written["model"]["vocab"].items()}
    file.write_text(json.dumps(written))
    assert "its tokenizer differs from that of" in refusal(folder, tiny)
    settings = json.loads((folder.path / "tokenizer_config.json").read_text())
    settings["chat_template"] += " "
    (folder.path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "its chat template differs from that of" in refusal(folder, tiny)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder.path / name).unlink()
    assert "no tokenizer files; expected tokenizer.json beside config.json" in refusal(folder, tiny)


def test_a_name_that_no_variant_can_have(gptq, tiny):
    with pytest.raises(UsageError, match=r"'my awq' cannot name a variant"):
        open_foreign(gptq().path, tiny, name="my awq")
