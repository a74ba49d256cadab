"""A rounded KV cache: scales from the calibration set, stored where runtimes look, and rounding as theirs."""

from __future__ import annotations

import json

import pytest
import torch

from quantgate.engines import Completion, Prompt
from quantgate.engines.torch import open_engine
from quantgate.errors import ArtifactError, FormatError, UnknownName, UsageError
from quantgate.formats.grids import FP8_MAX
from quantgate.models import open_model
from quantgate.models.families import FAMILIES, save_family
from quantgate.quantize import Recipe, baseline, load_dequantized
from quantgate.quantize.kv_cache import Ranges, Rounding
from quantgate.quantize.mix import mixable
from quantgate.quantize.sweep import sweep

IDS = torch.tensor([[3, 17, 200, 45, 9, 77, 130, 21, 64, 5, 33, 101]])


@pytest.fixture(scope="module")
def made(tiny, samples, tmp_path_factory):
    recipes = [Recipe(scheme="W8A16", kv_cache=kind) for kind in ("", "fp8", "int8", "int4")]
    return dict(
        zip(("", "fp8", "int8", "int4"), sweep(tiny, samples, recipes, tmp_path_factory.mktemp("kv")), strict=True)
    )


def largest_cached(model, samples) -> list[list[float]]:
    """Per layer the largest |k| and |v| as transformers caches them, keys rotated, one sample at a time."""
    network = load_dequantized(baseline(model), torch.float32)
    found = [[0.0, 0.0] for _ in range(model.depth)]
    with torch.inference_mode():
        for sample in samples:
            cache = network(torch.tensor([sample]), use_cache=True).past_key_values
            for layer, seen in zip(cache.layers, found, strict=True):
                seen[:] = [
                    max(old, float(one.abs().max())) for old, one in zip(seen, (layer.keys, layer.values), strict=True)
                ]
    return found


def assert_scales(artifact, largest) -> None:
    for attention, sides in zip(artifact.manifest.kv_cache.attentions, largest, strict=True):
        for side, reach in zip("kv", sides, strict=True):
            stored = artifact.files.read(f"{attention}.{side}_scale")
            assert stored.shape == (1,)
            assert float(stored) == pytest.approx(reach / FP8_MAX, rel=0.005)  # stored as bfloat16


def test_scales_are_the_largest_key_and_value_of_the_calibration_set(tiny, samples, made) -> None:
    assert_scales(made["fp8"], largest_cached(tiny, samples))


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - {"llama"}))
def test_every_architecture_hands_its_keys_and_values_to_the_cache(kind, tmp_path) -> None:
    model = open_model(save_family(tmp_path / "model", kind))
    samples = [[3, 17, 100, 45, 9, 77], [120, 21, 64, 5, 33, 101]]
    (artifact,) = sweep(model, samples, [Recipe(scheme="W8A16", kv_cache="fp8")], tmp_path / "out")
    assert_scales(artifact, largest_cached(model, samples))


def test_the_config_says_what_runtimes_read(made) -> None:
    told = {
        kind: json.loads((one.path / "config.json").read_text())["quantization_config"] for kind, one in made.items()
    }
    assert told["fp8"]["kv_cache_scheme"] == {
        "num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False, "observer": "minmax",
    }  # fmt: skip
    assert [told[kind]["kv_cache_scheme"] for kind in ("", "int8", "int4")] == [None, None, None]
    assert [one.name for one in made.values()] == ["W8A16", "W8A16-kv-fp8", "W8A16-kv-int8", "W8A16-kv-int4"]


def test_transformers_rounds_the_cache_as_our_engine_does(tiny, made) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(made["fp8"].path, dtype=torch.float32).eval()
    scale = made["fp8"].files.read("model.layers.0.self_attn.k_scale")
    assert torch.equal(theirs.model.layers[0].self_attn.k_scale.float(), scale.float())
    engine = open_engine(tiny, made["fp8"], dtype="float32", kernels="dequantize", device="cpu")
    plain = open_engine(tiny, made[""], dtype="float32", kernels="dequantize", device="cpu")
    with torch.inference_mode():
        wanted = theirs(IDS, use_cache=True).logits.float()
    ours, unrounded = engine.logits(IDS), plain.logits(IDS)
    assert (unrounded - wanted).abs().max() > 20 * (ours - wanted).abs().max()
    torch.testing.assert_close(ours, wanted, atol=2e-4, rtol=2e-4)


def test_fewer_bits_move_the_logits_further_and_answers_come_from_the_same_cache(tiny, made) -> None:
    engines = {kind: open_engine(tiny, one, dtype="float32", device="cpu") for kind, one in made.items()}
    moved = {kind: float((one.logits(IDS) - engines[""].logits(IDS)).norm()) for kind, one in engines.items()}
    assert 0 == moved[""] < moved["int8"] < moved["fp8"] < moved["int4"]
    assert len({one.identity.key for one in engines.values()}) == 4
    for engine in engines.values():
        prompt = Prompt(turns=(("user", "tell me about 7"),), max_tokens=6)
        (answer,) = engine.generate([prompt])
        assert isinstance(answer, Completion)
        ids = engine.encode(prompt.turns)
        for _ in range(6):  # one token after the other, each from the whole text
            ids.append(int(engine.logits(torch.tensor([ids]))[0, -1].argmax()))
        made_by_hand = ids[-6:]
        stop = next((at for at, one in enumerate(made_by_hand) if one in engine.stops), 6)
        assert engine.tokenizer.decode(made_by_hand[:stop], skip_special_tokens=True) == answer.text


def test_a_token_and_head_has_its_own_scale() -> None:
    states = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    keys, values = Rounding("int8", None)(states, states * 128)
    torch.testing.assert_close(values, keys * 128)
    one = states[1, 2, 4]
    scale = one.abs().max() / 127.5
    torch.testing.assert_close(keys[1, 2, 4], (one / scale).clamp(-128, 127).round() * scale)


def test_padding_is_not_measured() -> None:
    ranges, states = Ranges(), torch.ones(1, 2, 3, 4)
    states[:, :, 2] = 50
    ranges.real = torch.tensor([[True, True, False]])
    keys, _ = ranges.update(states, states)
    assert keys is states
    assert ranges.largest == {"k": 1.0, "v": 1.0}


@pytest.mark.parametrize(
    ("recipe", "error", "sentence"),
    [
        ({"kv_cache": "fp9"}, UnknownName, "fp9"),
        ({"kv_cache": "fp8", "container": "gptq"}, FormatError, "has no place for a KV cache"),
        ({"kv_cache": "fp8", "method": "awq"}, FormatError, "folded channel scales move the values"),
    ],
)
def test_what_cannot_be_is_refused(tiny, samples, tmp_path, recipe, error, sentence) -> None:
    with pytest.raises(error, match=sentence):
        sweep(tiny, samples, [Recipe(scheme="W4A16", **recipe)], tmp_path)


def test_fp8_needs_a_calibration_set_and_int8_none(tiny, tmp_path) -> None:
    with pytest.raises(UsageError, match="needs a calibration set; give one, or choose int8"):
        sweep(tiny, None, [Recipe(scheme="W8A16", kv_cache="fp8")], tmp_path)
    (made,) = sweep(tiny, None, [Recipe(scheme="W8A16", kv_cache="int8")], tmp_path)
    assert made.manifest.kv_cache is not None
    assert made.manifest.kv_cache.format == "int8"
    assert "KV cache in int8" in mixable(tiny, "W8A16-kv-int8", made)


def test_scales_that_are_gone_are_missed(made) -> None:
    from quantgate.quantize.kv_cache import roundings

    with pytest.raises(ArtifactError, match=r"self_attn\.k_scale: is not stored"):
        roundings(made["int8"].files, ["model.layers.0.self_attn"], "fp8")
