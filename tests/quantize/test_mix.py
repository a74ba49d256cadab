"""A mixture has its sources' codes and bytes, layer by layer, and other programs read it as we do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quantgate.errors import FormatError, UsageError
from quantgate.models import OpenedModel, open_model
from quantgate.models.random import save_random
from quantgate.quantize import BASELINE, Artifact, load_dequantized, open_artifact
from quantgate.quantize.mix import cost, linears, mix, mixable

SOURCES = ("W4A16-g32", "W3A16-g32", "W8A16", "W8A8", "FP8_DYNAMIC", "NVFP4A16")


@pytest.fixture(scope="module")
def sources(swept: dict[str, Artifact]) -> dict[str, Artifact]:
    return {
        name: next(one for key, one in swept.items() if key == name or key.startswith(f"{name}-")) for name in SOURCES
    }


def chosen(tiny: OpenedModel, pick: Callable[[int], str]) -> dict[str, str]:
    return {layer: pick(at) for at, group in enumerate(linears(tiny)) for layer in group}


@pytest.fixture(scope="module")
def mixed(tiny, sources, tmp_path_factory) -> Artifact:
    names = [*SOURCES, BASELINE]
    choice = chosen(tiny, lambda at: names[at % len(names)])
    return mix(tiny, sources, choice, tmp_path_factory.mktemp("mixed") / "W4A16-repaired")


def test_every_layer_has_the_codes_and_numbers_of_its_source(tiny, sources, mixed) -> None:
    names = [*SOURCES, BASELINE]
    for at, group in enumerate(linears(tiny)):
        for layer in group:
            name = names[at % len(names)]
            if name == BASELINE:
                assert layer not in mixed.quantized
                assert torch.equal(mixed.files.read(f"{layer}.weight"), tiny.files.read(f"{layer}.weight"))
                continue
            ours, theirs = mixed.linear(layer), sources[name].linear(layer)
            assert ours.grid == theirs.grid
            assert ours.activations == theirs.activations
            assert torch.equal(ours.dequantized(), theirs.dequantized())
    assert {mixed.scheme_of(layer).label for layer in mixed.quantized} == {
        sources[name].label for name in names if name != BASELINE
    }


def test_a_mixture_is_an_artifact_like_any_other(tiny, sources, mixed) -> None:
    opened = open_artifact(mixed.path)  # every byte and every tensor
    assert opened.manifest.recipe.options["parts"] == {name: sources[name].manifest.digest for name in SOURCES}
    assert opened.label.count("(") == len(SOURCES)
    told = sum(cost(tiny, sources.get(name), layer) for layer, name in _choice_of(tiny).items())
    stored = sum(fate.bytes for fate in opened.manifest.fates if fate.name in _choice_of(tiny))
    assert told == stored
    with pytest.raises(Exception, match="several schemes"):
        _ = opened.scheme


def _choice_of(tiny) -> dict[str, str]:
    names = [*SOURCES, BASELINE]
    return chosen(tiny, lambda at: names[at % len(names)])


def test_the_same_choice_gives_the_same_bytes(tiny, sources, mixed, tmp_path) -> None:
    again = mix(tiny, sources, _choice_of(tiny), tmp_path / "W4A16-repaired")
    assert again.manifest.digest == mixed.manifest.digest


def test_a_mixture_that_is_there_is_taken_and_a_damaged_one_made_again(tiny, sources, tmp_path) -> None:
    made = mix(tiny, sources, _choice_of(tiny), tmp_path / "out")
    file = made.path / "model.safetensors"
    before, whole = file.stat().st_ino, file.read_bytes()
    assert mix(tiny, sources, _choice_of(tiny), tmp_path / "out").manifest.digest == made.manifest.digest
    assert file.stat().st_ino == before
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    mix(tiny, sources, _choice_of(tiny), tmp_path / "out")
    assert file.read_bytes() == whole
    other = mix(tiny, sources, chosen(tiny, lambda _: "W8A16"), tmp_path / "out")
    assert other.manifest.digest != made.manifest.digest


def test_transformers_reads_a_weight_only_mixture_as_we_do(tiny, sources, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    names = ("W4A16-g32", "W8A16", BASELINE)
    made = mix(tiny, sources, chosen(tiny, lambda at: names[at % 3]), tmp_path / "mixed")
    theirs = AutoModelForCausalLM.from_pretrained(made.path, dtype=torch.bfloat16).eval()
    ours = load_dequantized(made, torch.bfloat16)
    ids = torch.arange(1, 25)[None]
    with torch.inference_mode():
        assert torch.equal(theirs(ids).logits, ours(ids).logits)
    config = json.loads((made.path / "config.json").read_text())["quantization_config"]
    assert config["format"] == "pack-quantized"
    assert len(config["config_groups"]) == 2


def test_the_engine_runs_a_mixture_and_names_each_layers_scheme(tiny, sources, mixed) -> None:
    from quantgate.engines.torch import open_engine

    engine = open_engine(tiny, mixed, dtype="float32", kernels="dequantize", device="cpu")
    assert {path.scheme for path in engine.kernels} == {sources[name].label for name in SOURCES}
    reference = load_dequantized(mixed, torch.float32)
    ids = torch.arange(1, 25)[None]
    with torch.inference_mode():
        torch.testing.assert_close(engine.logits(ids), reference(ids).logits.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model.layers.0.self_attn.q_proj": "W8A16"}, "read one input and runtimes fuse them; choose one source"),
        ({"model.layers.0.self_attn.o_proj": "W5"}, "is to come from 'W5'"),
        ({"model.layers.0.self_attn.x_proj": "W8A16"}, "'model.layers.0.self_attn.x_proj' is not a linear layer"),
        ({"model.layers.0.self_attn.o_proj": None}, "nothing is chosen for 'model.layers.0.self_attn.o_proj'"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(tiny, sources, tmp_path, change, sentence) -> None:
    choice = {**chosen(tiny, lambda _: "W4A16-g32"), **change}
    with pytest.raises(UsageError, match=sentence):
        mix(tiny, sources, {layer: name for layer, name in choice.items() if name}, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_all_layers_from_the_model_is_no_mixture(tiny, sources, tmp_path) -> None:
    with pytest.raises(UsageError, match="that is the model itself"):
        mix(tiny, sources, chosen(tiny, lambda _: BASELINE), tmp_path / "out")


def test_sources_that_do_not_fit_are_refused(tiny, swept, sources, tmp_path) -> None:
    awq = next(one for one in swept.values() if any(fate.facts.get("scaling") for fate in one.manifest.quantized))
    with pytest.raises(FormatError, match=r"channel scales of .* folded in, so its layers expect another input"):
        mix(tiny, {"folded": awq}, chosen(tiny, lambda _: "folded"), tmp_path / "out")
    other = open_model(save_random(tmp_path / "other", seed=7))
    assert "which is another model" in mixable(other, "W8A16", sources["W8A16"])
    assert mixable(tiny, "W8A16", sources["W8A16"]) == ""


def test_a_full_disk_leaves_nothing(tiny, sources, tmp_path, monkeypatch) -> None:
    from quantgate.errors import DiskFull

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DiskFull):
        mix(tiny, sources, _choice_of(tiny), tmp_path / "out")
    assert not list(Path(tmp_path).iterdir())
