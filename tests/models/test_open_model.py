"""Opening: what is refused, and with which sentence."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantgate.errors import BadTensor, ModelError, PickleRefused
from quantgate.models import REFERENCE, REFERENCE_FOLDER, open_model
from quantgate.models.random import save_random

STORIES = Path(__file__).parents[2].parent / "shared" / "models" / "stories260K"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return save_random(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def broken(tiny, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(tiny, tmp_path / "broken"))


def test_a_missing_path_is_named_with_what_to_write_instead(tmp_path):
    with pytest.raises(ModelError) as error:
        open_model(tmp_path / "no" / "such" / "model")
    assert str(error.value) == (
        f"{tmp_path}/no/such/model: no such folder; name a model folder, a Hugging Face id (owner/name) "
        "or 'quantgate/reference'"
    )


def test_a_file_is_not_a_model(tiny):
    with pytest.raises(ModelError, match=r"config\.json: is a file; name the folder that holds config\.json"):
        open_model(tiny / "config.json")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json in this folder; expected a Hugging Face model folder"):
        open_model(tmp_path)


def test_a_broken_config_is_named(broken):
    (broken / "config.json").write_text('{"model_type": ')
    with pytest.raises(ModelError, match=r"config\.json: not valid JSON .*; download it again"):
        open_model(broken)


def test_pickled_weights_are_refused_unopened(broken):
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(PickleRefused, match=r"the weights are a pickle \(pytorch_model\.bin\), which can run code"):
        open_model(broken)


def test_a_folder_without_weights_is_refused(broken):
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors file; expected the weights"):
        open_model(broken)


@pytest.mark.parametrize("keep", [4, 100, -1000])
def test_a_truncated_file_is_found_before_any_weight_is_read(broken, keep):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors: (not a safetensors|truncated).*download it again"):
        open_model(broken)


def test_a_header_that_is_no_json_is_named(broken):
    (broken / "model.safetensors").write_bytes(struct.pack("<Q", 5) + b"hello")
    with pytest.raises(ModelError, match="its safetensors header cannot be read"):
        open_model(broken)


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("-inf"), "Inf")])
def test_check_names_the_tensor_that_is_not_finite(broken, value, kind):
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    model = open_model(broken)
    with pytest.raises(
        BadTensor, match=rf"tensor 'model\.layers\.1\.mlp\.up_proj\.weight' holds {kind} \(1 bad number"
    ):
        model.check()
    with pytest.raises(BadTensor, match=r"model\.layers\.1\.mlp\.up_proj\.weight"), model.block(1):
        pass
    with model.block(0):
        pass  # the sound block still opens


def test_check_passes_a_sound_model_and_reports_progress(tiny):
    seen = []
    model = open_model(tiny)
    model.check(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(model.files.entries), len(model.files.entries))


def test_a_missing_tensor_is_named(broken):
    tensors = load_file(broken / "model.safetensors")
    del tensors["model.layers.0.self_attn.k_proj.weight"]
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(ModelError, match=r"needs the tensor 'model\.layers\.0\.self_attn\.k_proj\.weight', which"):
        open_model(broken)


def test_a_shape_that_contradicts_the_config_is_named(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 512}))
    with pytest.raises(ModelError, match=r"has shape \[256, 128\], config\.json asks for \[512, 128\]"):
        open_model(broken)


def test_an_unknown_architecture_is_named(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "warp_drive", "architectures": ["Warp"]}))
    with pytest.raises(ModelError, match="transformers does not know the architecture 'warp_drive'"):
        open_model(broken)


def test_a_model_that_is_no_causal_decoder_is_refused_with_the_reason(broken):
    (broken / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    with pytest.raises(
        ModelError, match=r"ViTModel cannot be walked block by block: its config\.json names no max_pos"
    ):
        open_model(broken)
    (broken / "config.json").write_text(json.dumps({"model_type": "esm", "architectures": ["EsmModel"]}))
    with pytest.raises(ModelError, match="no causal language model"):
        open_model(broken)


def test_an_already_quantized_model_is_no_baseline(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ModelError, match=r"already quantized \(gptq\); name the full-precision baseline instead"):
        open_model(broken)


def test_a_hub_id_that_nobody_gives_is_one_sentence(tmp_path):
    with pytest.raises(ModelError) as error:
        open_model("nobody/nothing", hub="http://127.0.0.1:9", cache=tmp_path)
    assert str(error.value).startswith("nobody/nothing: neither a folder here nor in the local Hugging Face cache")
    assert "\n" not in str(error.value)


def test_a_hub_id_in_the_local_cache_opens_without_network(tiny, tmp_path):
    revision = "0" * 40
    home = tmp_path / "models--owner--tiny"
    shutil.copytree(tiny, home / "snapshots" / revision)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    model = open_model("owner/tiny", hub="http://127.0.0.1:9", cache=tmp_path)
    assert model.weights_digest == open_model(tiny).weights_digest


def test_a_missing_shard_is_named(tmp_path):
    folder = save_random(tmp_path / "sharded", shard="200KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(ModelError, match=rf"shard {shards[1].name}, which .* names, is missing"):
        open_model(folder)


def test_the_weights_digest_does_not_depend_on_sharding_and_depends_on_one_bit(tiny, broken, tmp_path):
    sharded = save_random(tmp_path / "sharded", shard="200KB")
    assert open_model(sharded).weights_digest == open_model(tiny).weights_digest
    raw = bytearray((broken / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (broken / "model.safetensors").write_bytes(raw)
    assert open_model(broken).weights_digest != open_model(tiny).weights_digest
    assert open_model(broken).tokenizer_digest == open_model(tiny).tokenizer_digest


def test_a_chat_is_rendered_by_the_template(tiny):
    model = open_model(tiny)
    chat = [{"role": "user", "content": "hi é"}]
    assert model.render(chat) == "<|user|>hi é<|end|><|assistant|>"
    ids = model.encode(chat)
    assert model.tokenizer.decode(ids) == model.render(chat)
    assert len(ids) == 3 + len("hi é".encode())


def test_without_a_template_a_chat_is_refused_and_plain_text_is_a_choice(broken):
    settings = json.loads((broken / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (broken / "tokenizer_config.json").write_text(json.dumps(settings))
    model = open_model(broken)
    with pytest.raises(ModelError, match="the tokenizer has no chat template; add 'chat_template'"):
        model.render([{"role": "user", "content": "hi"}])
    assert model.render([{"role": "user", "content": "hi"}], plain=True) == "hi\n"


def test_a_folder_without_tokenizer_opens_and_says_so_when_it_is_needed(broken):
    (broken / "tokenizer.json").unlink()
    (broken / "tokenizer_config.json").unlink()
    (broken / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"no tokenizer files; expected tokenizer\.json beside config\.json"):
        _ = open_model(broken).tokenizer


@pytest.mark.skipif(not STORIES.is_dir(), reason="the shared model stories260K is not beside this checkout")
def test_a_real_foreign_model_opens():
    model = open_model(STORIES)
    assert (model.depth, model.parameters, model.tied) == (5, 260_032, True)
    model.check()


@pytest.mark.skipif(not (REFERENCE_FOLDER / "config.json").is_file(), reason="the reference model is not trained yet")
def test_the_reference_model_opens_by_name():
    model = open_model(REFERENCE)
    model.check()
    assert model.tied
    assert model.render([{"role": "user", "content": "hi"}]).count("hi") == 1
    assert torch.bfloat16 == model.files.read("model.embed_tokens.weight").dtype
