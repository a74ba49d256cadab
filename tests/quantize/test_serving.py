"""Bytes that are counted by formula are those that a sweep writes, and a config.json alone tells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantgate.errors import ModelError
from quantgate.formats import scheme
from quantgate.hardware import Support, profile, support
from quantgate.models import REFERENCE, REFERENCE_FOLDER, OpenedModel, open_model
from quantgate.models.families import FAMILIES, save_family
from quantgate.models.outline import open_or_outline, outline
from quantgate.quantize import Recipe
from quantgate.quantize.predict import predict
from quantgate.quantize.serving import serve

RECIPES: list[dict[str, Any]] = [
    {"scheme": "W4A16"}, {"scheme": "W4A16", "group_size": 32, "symmetric": False}, {"scheme": "W8A16"},
    {"scheme": "W8A8"}, {"scheme": "W3A16", "group_size": 64}, {"scheme": "FP8"}, {"scheme": "FP8_DYNAMIC"},
    {"scheme": "NVFP4"}, {"scheme": "MXFP4"}, {"scheme": "W4A16", "container": "gptq"},
    {"scheme": "W4A16", "container": "gptq_v2", "group_size": 64}, {"scheme": "W4A16", "container": "awq"},
    {"scheme": "W4A16", "keep": ("down_proj",)}, {"scheme": "Q4_K_M"}, {"scheme": "Q8_0"}, {"scheme": "Q3_K_S"},
    {"scheme": "Q4_K", "keep": ("v_proj",)},
]  # fmt: skip


def torch_on_x86(label: str) -> Support:
    from quantgate.hardware import Geometry

    return support("torch", scheme(label), "compressed_tensors", profile("cpu-avx512"), Geometry((), 1, 1))


@pytest.fixture
def config_70b(tmp_path: Path) -> Path:
    """Llama-2-70B as published."""
    told = {
        "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 28672,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 4096,
        "tie_word_embeddings": False, "torch_dtype": "float16",
    }  # fmt: skip
    path = tmp_path / "llama-70b.json"
    path.write_text(json.dumps(told), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def built_in() -> OpenedModel:
    if not (REFERENCE_FOLDER / "config.json").is_file():
        pytest.skip("the built-in model's files are not installed")
    return open_model(REFERENCE)


@pytest.mark.parametrize("asked", RECIPES, ids=lambda asked: Recipe(**asked).name)
def test_bytes_by_formula_are_the_bytes_of_the_tensors(built_in: OpenedModel, asked: dict[str, Any]) -> None:
    recipe = Recipe(**asked)
    assert serve(built_in, recipe).stored_bytes == predict(built_in, [recipe], calibrated=True)[0].tensor_bytes


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in ("opt",)])
def test_a_config_alone_tells_what_the_files_tell(tmp_path: Path, kind: str) -> None:
    model = open_model(save_family(tmp_path / kind, kind, dtype="bfloat16"))
    known = outline(tmp_path / kind / "config.json")
    assert known.parameters == model.parameters
    recipe = Recipe(scheme="W8A8")
    assert serve(known, recipe).stored_bytes == serve(model, recipe).stored_bytes


def test_seventy_billion_parameters_take_140_gb_in_16_bits_and_35_with_scales_in_4(config_70b: Path) -> None:
    model = open_or_outline(config_70b)
    assert model.parameters == 68_976_648_192
    plain, four = serve(model, Recipe(scheme="BF16")), serve(model, Recipe(scheme="W4A16"))
    assert plain.stored_bytes == pytest.approx(140e9, rel=0.02)
    scales, ends = 68_451_041_280 // 128 * 2, 2 * 2 * 32000 * 8192
    assert four.stored_bytes == pytest.approx(68_451_041_280 / 2 + scales + ends, rel=1e-4)
    assert 34e9 < four.stored_bytes - ends < 36e9


def test_embeddings_are_looked_up_and_not_read(config_70b: Path) -> None:
    served = serve(outline(config_70b), Recipe(scheme="BF16")).served(torch_on_x86("BF16"))
    assert served.resident_bytes - served.read_bytes == 2 * 32000 * 8192
    assert served.active == served.parameters - 32000 * 8192 - 161 * 8192  # the table and the norms


def test_what_is_decoded_on_load_takes_16_bits(built_in: OpenedModel) -> None:
    variant = serve(built_in, Recipe(scheme="FP8_DYNAMIC"))
    plain = serve(built_in, Recipe(scheme="BF16")).stored_bytes
    assert variant.served(torch_on_x86("FP8_DYNAMIC")).resident_bytes == plain
    assert variant.stored_bytes < plain


def test_experts_are_counted_apart(tmp_path: Path) -> None:
    model = open_model(save_family(tmp_path, "mixtral", dtype="bfloat16"))
    served = serve(model, Recipe(scheme="BF16")).served(torch_on_x86("BF16"))
    assert (served.experts, served.chosen) == (4, 2)
    assert served.expert_bytes == 2 * 4 * 3 * 64 * 96 * 2  # layers, experts, matrices, shape, bytes
    assert served.step_bytes(1) == served.read_bytes + served.expert_bytes / 2


WRONG = {
    "no JSON": ("{", "not a config.json that can be read"),
    "no model_type": ("{}", "names no model_type"),
    "a list": ("[]", "names no model_type"),
    "an unknown architecture": ('{"model_type": "nonesuch"}', "does not know the architecture 'nonesuch'"),
    "an encoder-decoder": ('{"model_type": "t5"}', "encoder-decoder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_config_that_is_none_is_one_sentence(tmp_path: Path, case: str) -> None:
    text, sentence = WRONG[case]
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=sentence) as told:
        outline(path)
    assert "\n" not in str(told.value)


def test_a_folder_without_weights_is_outlined(tmp_path: Path) -> None:
    save_family(tmp_path / "whole", "llama", dtype="bfloat16")
    (tmp_path / "bare").mkdir()
    text = (tmp_path / "whole" / "config.json").read_text()
    (tmp_path / "bare" / "config.json").write_text(text)
    assert json.loads(text)["model_type"] == "llama"
    assert open_or_outline(tmp_path / "bare").parameters == open_or_outline(tmp_path / "whole").parameters


def test_trained_codes_take_what_rounded_ones_take() -> None:
    model = open_model(REFERENCE)
    rounded, trained = (serve(model, Recipe(scheme="W4A16", method=method)) for method in ("gptq", "qat"))
    assert trained.method == "qat"
    assert trained.stored_bytes == rounded.stored_bytes
