"""A rotated model computes what the model computes; a rotated variant is an artifact like any other."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import JsonValue
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from quantgate.engines.torch import open_engine
from quantgate.errors import FormatError, ModelError
from quantgate.models import open_model
from quantgate.models.families import FAMILIES, MIXTURES, ROTATABLE, save_family
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, baseline, load_dequantized
from quantgate.quantize import rotate as rotating
from quantgate.quantize.depth import walk
from quantgate.quantize.hadamard import Rotation
from quantgate.quantize.methods import LayerStats
from quantgate.quantize.mix import mix, mixable
from quantgate.quantize.predict import predict
from quantgate.quantize.sensitivity import sensitivity
from quantgate.quantize.statistics import Statistics, batches
from quantgate.quantize.sweep import sweep

IDS = torch.arange(60).reshape(2, 30) * 7 % 300
NOTHING = ("layers",)  # a recipe that keeps all blocks only rotates
FED: dict[str, JsonValue] = {"min_expert_tokens": 20}


def uneven(folder, only: str = "", zero: bool = False):
    """The model of ``folder`` with gains between 0.5 and 2, as trained ones have; the first is 0 with ``zero``."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for at, name in enumerate(sorted(tensors)):
        if "norm" in name and only in name and tensors[name].dim() == 1:
            generator = torch.Generator().manual_seed(at)
            gains = 0.5 + 1.5 * torch.rand(tensors[name].shape, generator=generator)
            gains[: int(zero)] = 0
            tensors[name] = gains.to(tensors[name].dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def rotated(**told) -> Recipe:
    return Recipe(**{"scheme": "W4A16", "group_size": 32, "rotation": "hadamard", **told})


@pytest.fixture(scope="module", params=ROTATABLE)
def family(request, tmp_path_factory, samples):
    """Kind, model, and its artifacts: ``plain`` rotated and nothing else, ``rtn`` and ``gptq`` in groups of 32."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    model = open_model(uneven(save_family(folder / "model", kind)))
    fed = FED if kind in MIXTURES else {}
    recipes = [rotated(method="rtn", keep=NOTHING, label="plain")]
    recipes += [rotated(method=one, options=fed, label=one) for one in ("rtn", "gptq")]
    return kind, model, {one.name: one for one in sweep(model, samples, recipes, folder / "out")}


@torch.no_grad()
def test_a_rotated_model_computes_what_the_model_computes(family) -> None:
    _, model, made = family
    assert made["plain"].quantized == ()
    want = load_dequantized(baseline(model))(IDS).logits
    found = load_dequantized(made["plain"])(IDS).logits
    assert not torch.equal(found, want)
    assert (found - want).abs().max() < 2e-5 * want.abs().max()


@torch.no_grad()
def test_transformers_reads_a_rotated_artifact_as_we_do(family, quiet) -> None:
    kind, _, made = family
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if kind in MIXTURES else {}
    for name in ("rtn", "gptq"):
        theirs = AutoModelForCausalLM.from_pretrained(made[name].path, dtype=torch.float32, **how).eval()
        difference = (theirs(IDS).logits - load_dequantized(made[name])(IDS).logits).abs().max()
        assert difference <= (1e-4 if kind in MIXTURES else 0.0)  # its experts run in another order


@torch.no_grad()
def test_rounding_damages_a_rotated_model_as_little_as_others(family) -> None:
    _, model, made = family
    want = load_dequantized(baseline(model))(IDS).logits
    for name in ("rtn", "gptq"):
        assert (load_dequantized(made[name])(IDS).logits - want).abs().mean() < 0.5 * want.std()
        assert all(fate.error is None or fate.error < 0.1 for fate in made[name].manifest.quantized)


def test_every_tensor_that_changed_says_so_and_no_other(family) -> None:
    _, model, made = family
    told = set()
    for fate in made["gptq"].manifest.fates:
        changed = "rotated" in fate.facts or "rotated" in fate.because
        told |= {fate.name} if changed else set()
        stored = f"{fate.name}.weight" if f"{fate.name}.weight" in model.files.entries else fate.name
        if fate.name not in made["gptq"].quantized and stored in model.files.entries:
            same = torch.equal(made["gptq"].files.read(fate.tensors[0]), model.files.read(stored))
            assert same != changed, fate.name
    assert set(made["gptq"].quantized) <= told
    assert {"model.embed_tokens", "model.norm", "lm_head"} <= told


def test_what_is_predicted_is_what_is_written(family) -> None:
    kind, model, made = family
    recipe = rotated(options=FED if kind in MIXTURES else {}, label="gptq")
    (told,) = predict(model, [recipe], calibrated=True)
    assert told.tensor_bytes == made["gptq"].manifest.tensor_bytes


@torch.no_grad()
def test_statistics_are_those_of_the_rotated_models_own_inputs(family, samples) -> None:
    """The second forward pass that rotation does without, run once: the rotated artifact's inputs, counted anew."""
    _, model, _ = family
    with model.block(0) as block:
        groups = model.linears(0)
        cut = batches(samples, 300, model.context, 4096)
        tokens = sum(int(one.real.sum()) for one in cut)
        counted = Statistics(block, groups, tokens)
        hidden = model.embed([one.ids for one in cut])
        for one, batch in zip(hidden, cut, strict=True):
            counted.forward(one, batch)
        counted.close()
        rotation = Rotation.of(model.config.hidden_size, 0)
        turned = rotating.Turned(model, block, rotation)
        foreseen = {group[0]: turned.statistics(group[0], counted.take(group[0])) for group in groups}
        for name, tensor in turned.tensors.items():
            rotating._parameter(block, name).data = tensor
        again = Statistics(block, groups, tokens)
        for one, batch in zip(hidden, cut, strict=True):
            again.forward(rotation(one), batch)
        again.close()
        for group in groups:
            seen, told = again.take(group[0]), foreseen[group[0]]
            assert told is not None
            assert told.tokens == seen.tokens
            torch.testing.assert_close(told.hessian, seen.hessian, rtol=1e-3, atol=1e-4 * float(seen.hessian.max()))
            torch.testing.assert_close(told.sample, seen.sample, rtol=1e-3, atol=1e-4)
            assert (told.absmax is None) == (turned.roles[f"{group[0]}.weight"].kind == "reads")


def test_a_tied_head_is_untied_when_its_norm_weighs_channels_and_stays_when_it_does_not(tmp_path, samples) -> None:
    even = open_model(save_family(tmp_path / "even", "llama"))
    odd = open_model(uneven(save_family(tmp_path / "odd", "llama")))
    for model, untied in ((even, False), (odd, True)):
        (made,) = sweep(model, samples, [rotated()], tmp_path / f"out-{untied}")
        config = json.loads((made.path / "config.json").read_bytes())
        assert config["tie_word_embeddings"] is not untied
        assert ("lm_head.weight" in made.files.entries) is untied
        assert made.manifest.tensor_weights == model.parameters + (300 * 64 if untied else 0)
        (told,) = predict(model, [rotated()], calibrated=True)
        assert told.tensor_bytes == made.manifest.tensor_bytes
    (fate,) = (fate for fate in made.manifest.fates if fate.name == "lm_head")
    assert "stored by itself" in fate.because
    assert fate.because.endswith("; rotated: reads the rotated stream")


@torch.no_grad()
def test_a_copy_of_tied_embeddings_that_is_stored_is_no_head_of_its_own(tmp_path, samples, quiet) -> None:
    for even in (True, False):
        folder = save_family(tmp_path / f"copy-{even}", "llama")
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        model = open_model(folder if even else uneven(folder))
        (made,) = sweep(model, None, [rotated(method="rtn", keep=NOTHING)], tmp_path / f"out-{even}")
        want = load_dequantized(baseline(model))(IDS).logits
        assert (load_dequantized(made)(IDS).logits - want).abs().max() < 2e-5 * want.abs().max()


@torch.no_grad()
def test_biases_of_writing_layers_turn_too(tmp_path) -> None:
    folder = save_random(
        tmp_path / "model", hidden=96, dtype="float32", attention_bias=True, mlp_bias=True, tied=False
    )  # a width of 12 x 8
    model = open_model(uneven(folder))
    assert "model.layers.0.mlp.down_proj.bias" in model.files.entries
    (made,) = sweep(model, None, [rotated(method="rtn", keep=NOTHING)], tmp_path / "out")
    want = load_dequantized(baseline(model))(IDS).logits
    assert (load_dequantized(made)(IDS).logits - want).abs().max() < 2e-5 * want.abs().max()


@pytest.mark.parametrize(
    "told",
    [
        {"kv_cache": "fp8"},
        {"container": "gptq"},
        {"container": "gptq_v2"},
        {"container": "awq"},
        {"scheme": "W4A8"},
        {"scheme": "W3A16"},
        {"scheme": "W8A8", "group_size": None},
        {"scheme": "MXFP4", "group_size": None},
        {"scheme": "NVFP4A16", "group_size": None},
        {"scheme": "FP8_DYNAMIC", "group_size": None},
    ],
    ids=str,
)
@torch.no_grad()
def test_rotation_goes_with_every_container_cache_and_scheme_that_needs_no_largest_input(
    told, tiny, samples, tmp_path
) -> None:
    (made,) = sweep(tiny, samples, [rotated(**told)], tmp_path)
    want = load_dequantized(baseline(tiny), torch.float32)(IDS).logits
    found = load_dequantized(made, torch.float32)(IDS).logits
    assert (found - want).abs().mean() < 0.6 * want.std()
    engine = open_engine(tiny, made, dtype="float32", kernels="dequantize", device="cpu")
    assert (engine.logits(IDS) - found).abs().max() < (3 if "kv_cache" in told else 1e-3)
    assert "-rot" in made.name


def test_cached_ranges_are_those_of_the_model_that_is_not_rotated(tiny, samples, tmp_path) -> None:
    kinds = [Recipe(scheme="W8A16", kv_cache="fp8", rotation=one) for one in ("", "hadamard")]
    plain, turned = sweep(tiny, samples, kinds, tmp_path)
    scale = "model.layers.1.self_attn.k_scale"
    assert torch.equal(plain.files.read(scale), turned.files.read(scale))


def test_the_others_of_a_sweep_keep_their_bytes(tiny, samples, tmp_path) -> None:
    plain = Recipe(scheme="W4A16", group_size=32)
    (alone,) = sweep(tiny, samples, [plain], tmp_path / "alone")
    beside, _ = sweep(tiny, samples, [plain, rotated()], tmp_path / "beside")
    assert beside.manifest.digest == alone.manifest.digest


def test_the_seed_turns_otherwise(tiny, samples, tmp_path) -> None:
    one, two = (sweep(tiny, samples, [rotated()], tmp_path / str(seed), seed=seed)[0] for seed in (0, 1))
    name = "model.embed_tokens.weight"
    assert not torch.equal(one.files.read(name), two.files.read(name))


def test_a_starved_expert_that_is_kept_is_kept_rotated(tmp_path, samples) -> None:
    model = open_model(uneven(save_family(tmp_path / "model", "mixtral")))
    (made,) = sweep(model, samples, [rotated(options={"min_expert_tokens": 10**6, "starved": "keep"})], tmp_path / "o")
    name = "model.layers.0.block_sparse_moe.experts.0.w1"
    (fate,) = (fate for fate in made.manifest.fates if fate.name == name)
    assert fate.because.endswith("; rotated: reads the rotated stream")
    gain = model.files.read("model.layers.0.post_attention_layernorm.weight")
    want = Rotation.of(64, 0)(model.files.read(f"{name}.weight") * gain)
    torch.testing.assert_close(made.files.read(f"{name}.weight"), want)


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - set(ROTATABLE)))
def test_other_architectures_are_refused_by_name_with_the_reason(kind, tmp_path) -> None:
    model = open_model(save_family(tmp_path / "model", kind))
    with pytest.raises(FormatError, match=rf"a {kind} model cannot be rotated: its (norms behind|LayerNorm)"):
        sweep(model, None, [rotated(method="rtn")], tmp_path / "out")


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"method": "awq"}, "channel scales would be folded into the norms"),
        ({"method": "smoothquant", "scheme": "W8A8", "group_size": None}, "channel scales would be folded"),
        ({"scheme": "FP8", "group_size": None}, "FP8 needs the largest numbers of each input"),
        ({"scheme": "NVFP4", "group_size": None}, "NVFP4 needs the largest numbers of each input"),
    ],
)
def test_what_cannot_be_rotated_is_refused(told, sentence, tiny, samples, tmp_path) -> None:
    with pytest.raises(FormatError, match=sentence):
        sweep(tiny, samples, [rotated(**told)], tmp_path)


def test_a_width_without_a_hadamard_matrix_is_refused(tmp_path) -> None:
    model = open_model(save_random(tmp_path / "model", hidden=104))  # 2 x 52
    (made,) = sweep(model, None, [rotated(method="rtn", group_size="channel")], tmp_path / "made")
    assert made.quantized
    model = open_model(save_random(tmp_path / "odd", hidden=92, heads=2, kv_heads=1))
    with pytest.raises(
        FormatError, match="a width of 92 has no Hadamard matrix among those that can be made; expected"
    ):
        sweep(model, None, [rotated(method="rtn", group_size="channel")], tmp_path / "out")


@torch.no_grad()
def test_dead_gains_are_exact_without_a_calibration_set_and_refused_with_one(tmp_path, samples) -> None:
    model = open_model(uneven(save_family(tmp_path / "model", "llama"), zero=True))
    (made,) = sweep(model, None, [rotated(method="rtn", keep=NOTHING)], tmp_path / "out")
    want = load_dequantized(baseline(model))(IDS).logits
    assert (load_dequantized(made)(IDS).logits - want).abs().max() < 2e-5 * want.abs().max()
    with pytest.raises(FormatError, match=r"model\.layers\.0\.input_layernorm\.weight has 1 gains of 0"):
        sweep(model, samples, [rotated()], tmp_path / "out")


def test_a_block_that_computes_something_else_is_noticed(tiny, samples, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rotating, "WRITTEN_BY", ("o_proj",))  # down_proj would write what is not rotated
    with pytest.raises(ModelError, match="its block 0 computes something else in rotated channels"):
        sweep(tiny, samples, [rotated()], tmp_path)


def test_errors_that_grow_with_depth_are_counted_in_rotated_channels(family, samples) -> None:
    _, model, made = family
    cut = batches(samples, 300, model.context, 4096)
    _, growth = walk(model, [made["plain"], made["gptq"]], cut)
    assert max(growth[0].error) < 1e-9
    assert 1e-4 < max(growth[1].error) < 1


def test_nothing_is_foreseen_of_a_rotated_source(tiny, samples, tmp_path) -> None:
    (turned,) = sweep(tiny, samples, [rotated()], tmp_path)
    with pytest.raises(FormatError, match="its channels are rotated, which is no error; leave it out"):
        sensitivity(tiny, {"turned": turned}, {"chat": [([1, 2, 3], 1)]})


def test_rotated_layers_are_mixed_with_nothing(tiny, samples, tmp_path) -> None:
    turned, plain = sweep(tiny, samples, [rotated(), Recipe(scheme="W8A16")], tmp_path)
    assert mixable(tiny, turned.name, turned) == f"'{turned.name}' is rotated, so its layers expect another input"
    choice = {layer: turned.name for block in range(tiny.depth) for group in tiny.linears(block) for layer in group}
    with pytest.raises(FormatError, match="is rotated, so its layers expect another input; leave it out"):
        mix(tiny, {turned.name: turned, plain.name: plain}, choice, tmp_path / "mixed")


def test_recipes_without_rotation_are_what_they_were_before_there_was_any() -> None:
    assert "rotation" not in Recipe(scheme="W4A16").body()
    assert Recipe(scheme="W4A16").digest == "sha256:5e9fc3d342df8536087f3b00c96afb56eb6b75efd17a0288c8ad6d3db38dff2d"
    assert rotated().body()["rotation"] == "hadamard"
    assert Recipe.model_validate(rotated().body()) == rotated()


def test_largest_inputs_of_what_reads_are_unknown(tiny) -> None:
    with tiny.block(0) as block:
        turned = rotating.Turned(tiny, block, Rotation.of(128, 0))
    stats = LayerStats.of(torch.randn(40, 128))
    layer = "model.layers.0.self_attn.q_proj"
    found = turned.statistics(layer, stats)
    assert found is not None
    assert found.absmax is None
    assert turned.statistics(layer, None) is None
    assert turned.statistics("model.layers.0.self_attn.o_proj", stats) is stats


@torch.no_grad()
def test_channels_that_stand_out_cost_rounded_activations_less(tmp_path, samples) -> None:
    """Three channels of every norm are 40 times as large, as massive activations of trained models are."""
    folder = uneven(save_random(tmp_path / "model", hidden=128, dtype="float32", tied=False))
    tensors = load_file(folder / "model.safetensors")
    for name in (name for name in tensors if name.endswith("layernorm.weight")):
        tensors[name][[5, 40, 99]] *= 40
        for layer in rotating.READ[name.split(".")[-2]]:
            for reader in (one for one in tensors if one.startswith(name.rpartition(".")[0].rpartition(".")[0])):
                if reader.endswith(f".{layer}.weight"):
                    tensors[reader][:, [5, 40, 99]] /= 40
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = open_model(folder)
    recipes = [Recipe(scheme="W8A8", method="rtn", rotation=one) for one in ("", "hadamard")]
    want = load_dequantized(baseline(model))(IDS).logits
    plain, turned = (
        (load_dequantized(made)(IDS).logits - want).square().mean() for made in sweep(model, None, recipes, tmp_path)
    )
    assert turned < 0.1 * plain
