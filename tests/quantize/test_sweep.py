"""The sweep: complete fates, refusals before anything slow, and what the statistics must be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantgate.errors import ArtifactError, BadTensor, DataError, FormatError, UnknownName, UsageError
from quantgate.formats import stored_bytes
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, load_dequantized, open_artifact
from quantgate.quantize.statistics import Statistics, batches
from quantgate.quantize.sweep import sweep

STORIES = Path(__file__).parents[2].parent / "shared" / "models" / "stories260K"


def test_every_tensor_of_the_model_has_exactly_one_fate(each, tiny):
    fates = each.manifest.fates
    assert {fate.name for fate in fates} == {name.removesuffix(".weight") for name in tiny.files.entries}
    assert len(fates) == len(tiny.files.entries)
    assert sorted(tensor for fate in fates for tensor in fate.tensors) == sorted(each.files.entries)
    assert all(fate.because for fate in fates if fate.asked != fate.got)


def test_bytes_are_counted_exactly(each, tiny):
    linears = [each.linear(name) for name in each.quantized]
    packed = each.scheme.packed
    sizes = [stored_bytes(one.codes.shape[0], one.codes.shape[1], one.grid, packed=packed) for one in linears]
    calibrated = sum(one.input_scale.nbytes for one in linears if one.input_scale is not None)
    counted = sum(one.total_bytes - one.shape_bytes for one in sizes) + calibrated
    assert each.manifest.bits_per_weight == 8 * counted / sum(one.weights for one in sizes)
    kept = sum(fate.bytes for fate in each.manifest.fates if fate.name not in each.quantized)
    assert each.manifest.tensor_bytes == sum(one.total_bytes for one in sizes) + calibrated + kept
    assert each.manifest.tensor_weights == tiny.parameters
    on_disk = sum(file.stat().st_size for file in each.path.iterdir() if file.name != "manifest.json")
    assert each.manifest.total_bytes == on_disk


def test_known_sizes(swept):
    bits = {name: artifact.manifest.bits_per_weight for name, artifact in swept.items()}
    assert (bits["W4A16"], bits["W3A16-g32"], bits["W4A16-g32-asym-rtn"]) == (4.125, 3.5, 4.625)


def test_the_reported_error_is_the_output_error_on_the_calibration_set(swept, tiny, samples):
    (batch,) = batches(samples, 300, 512, 10**6)
    (hidden,) = tiny.embed([batch.ids])
    layer = "model.layers.0.self_attn.q_proj"
    with tiny.block(0) as block:
        given = []
        hook = block.linear(layer).register_forward_pre_hook(lambda _layer, args: given.append(args[0]))
        block(hidden)
        hook.remove()
        weight, rows = block.linear(layer).weight, given[0][batch.real].double()
    for name in ("W4A16", "W8A8", "W2A16-g32"):
        lost = (rows @ (swept[name].linear(layer).dequantized().double() - weight.double()).T).square().sum()
        error = lost / (rows @ weight.double().T).square().sum()
        fate = next(fate for fate in swept[name].manifest.fates if fate.name == layer)
        assert fate.error == pytest.approx(float(error), rel=1e-3)


def test_lower_bits_lose_more(swept):
    errors = [swept[name].manifest.mean_error for name in ("W8A16", "W4A16-g32", "W3A16-g32", "W2A16-g32")]
    assert errors == sorted(errors)


def test_one_sweep_gives_the_codes_that_separate_sweeps_give(swept, tiny, samples, tmp_path):
    for recipe in (Recipe(scheme="W4A16"), Recipe(scheme="W3A16", group_size=32), Recipe(scheme="W8A8")):
        (alone,) = sweep(tiny, samples, [recipe], tmp_path)
        for layer in alone.quantized:
            assert torch.equal(alone.linear(layer).codes.float(), swept[alone.name].linear(layer).codes.float())


def test_statistics_do_not_depend_on_batching_and_padding(tiny, samples):
    found = []
    for batch_tokens in (1, 100, 10**6):
        cut = batches(samples, 300, 512, batch_tokens)
        with tiny.block(0) as block:
            statistics = Statistics(block, tiny.linears(0))
            for hidden, batch in zip(tiny.embed([one.ids for one in cut]), cut, strict=True):
                statistics.forward(hidden, batch)
            statistics.close()
        found.append([statistics.take(group[0]) for group in tiny.linears(0)])
    for one in found[1:]:
        for stats, first in zip(one, found[0], strict=True):
            assert stats.tokens == first.tokens == sum(map(len, samples))
            assert torch.allclose(stats.hessian, first.hessian, rtol=1e-3, atol=1e-5)
            assert stats.absmax is not None and first.absmax is not None
            assert torch.allclose(stats.absmax, first.absmax, rtol=1e-4)


def test_keep_leaves_layers_alone_and_whom_runtimes_fuse_with_them(swept):
    mixed = swept["mixed"]
    fates = {fate.name: fate for fate in mixed.manifest.fates}
    assert fates["model.layers.0.mlp.up_proj"].got == "bf16"
    assert fates["model.layers.0.mlp.up_proj"].because == "'layers.0' is on the keep list"
    assert fates["model.layers.1.self_attn.q_proj"].because == (
        "shares its input with model.layers.1.self_attn.k_proj, which is kept, and runtimes fuse the two"
    )
    assert fates["model.layers.1.mlp.up_proj"].got == "int4 g128"
    assert fates["model.embed_tokens"].because.startswith(
        "by the rule 'embeddings: keep', also read as the output layer (tied); 0.08 MB, "
    )
    assert {note.event for note in mixed.manifest.ledger} == {"kept", "fused"}
    ignored = json.loads((mixed.path / "config.json").read_text())["quantization_config"]["ignore"]
    assert set(ignored) == {"lm_head"} | {
        name for name in fates if name.endswith("_proj") and name not in mixed.quantized
    }


def test_the_baseline_is_the_model_itself(tiny, tmp_path):
    base, named = sweep(tiny, None, [Recipe(scheme="BF16"), Recipe(scheme="bf16", label="base")], tmp_path / "out")
    assert base.path == tiny.path
    assert base.is_baseline
    assert named.is_baseline
    assert (base.name, named.name) == ("BF16", "base")
    assert not (tmp_path / "out").exists()
    assert base.manifest.bits_per_weight_whole == 16
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert load_dequantized(base)(ids).logits.shape == (1, 10, 300)


def test_data_free_methods_work_without_samples(tiny, tmp_path):
    (made,) = sweep(tiny, None, [Recipe(scheme="W8A8")], tmp_path)
    assert made.manifest.calibration is None
    assert made.manifest.mean_error is None


def test_a_large_model_is_written_as_shards_with_an_index(swept, tiny, samples, tmp_path):
    (made,) = sweep(tiny, samples, [Recipe(scheme="W4A16")], tmp_path, shard_bytes=100_000)
    shards = sorted(made.path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert (made.path / "model.safetensors.index.json").is_file()
    assert set(made.files.entries) == set(swept["W4A16"].files.entries)
    assert all(torch.equal(made.files.read(name), swept["W4A16"].files.read(name)) for name in made.files.entries)


def test_the_same_sweep_again_is_taken_from_disk(tiny, samples, tmp_path):
    recipes, events = [Recipe(scheme="W4A16"), Recipe(scheme="W8A8")], []
    first = sweep(tiny, samples, recipes, tmp_path)
    stamps = [file.stat().st_mtime_ns for one in first for file in sorted(one.path.iterdir())]
    again = sweep(tiny, samples, recipes, tmp_path, progress=lambda *event: events.append(event))
    assert [one.manifest.digest for one in again] == [one.manifest.digest for one in first]
    assert stamps == [file.stat().st_mtime_ns for one in again for file in sorted(one.path.iterdir())]
    assert events == []


def test_a_changed_input_makes_the_artifact_again(tiny, samples, tmp_path):
    (first,) = sweep(tiny, samples, [Recipe(scheme="W4A16")], tmp_path)
    (second,) = sweep(tiny, samples[1:], [Recipe(scheme="W4A16")], tmp_path)
    assert second.path == first.path
    assert second.manifest.inputs != first.manifest.inputs
    assert open_artifact(first.path).manifest.calibration == second.manifest.calibration


def test_a_damaged_artifact_is_made_again(tiny, samples, tmp_path):
    (first,) = sweep(tiny, samples, [Recipe(scheme="W8A8")], tmp_path)
    (first.path / "config.json").write_text("{}")
    (second,) = sweep(tiny, samples, [Recipe(scheme="W8A8")], tmp_path)
    assert second.manifest.digest == first.manifest.digest
    open_artifact(second.path)


@pytest.mark.skipif(not STORIES.is_dir(), reason="the shared model stories260K is not beside this checkout")
def test_a_real_foreign_model_shows_its_known_damage_curve(tmp_path):
    model = open_model(STORIES)  # float32, 172 feed-forward columns: only per-channel scales divide them
    ids = model.encode("Once upon a time there was a little girl who liked to play with her dog in the park.")
    recipes = [Recipe(scheme=f"W{bits}A16", group_size="channel", method="rtn") for bits in (8, 4, 3, 2)]
    losses = []
    for artifact in sweep(model, [ids], [Recipe(scheme="BF16"), *recipes], tmp_path):
        with torch.no_grad():
            losses.append(float(load_dequantized(artifact)(torch.tensor([ids]), labels=torch.tensor([ids])).loss))
    base, eight, four, three, two = losses
    assert eight == pytest.approx(base, abs=0.02)
    assert base < four < three < two
    assert two > base + 3  # perplexity in the thousands, as measured beside the model


# ---------------------------------------------------------------------------------------------------- what is refused


def refused(error, tiny, recipes, out, samples=None):
    with pytest.raises(error) as caught:
        sweep(tiny, samples, recipes, out, progress=lambda *_: pytest.fail("something slow had started"))
    assert not list(out.glob("*")) or error is ArtifactError
    return str(caught.value)


def test_gptq_without_samples_is_refused(tiny, tmp_path):
    assert refused(UsageError, tiny, [Recipe(scheme="W4A16")], tmp_path) == (
        "recipe 'W4A16': method gptq needs a calibration set; give one, or say method: rtn"
    )


def test_the_sample_of_an_input_is_spread_over_all_samples(tiny):
    """200 batches of one sample each: what is kept comes from early and late ones, and from all positions."""
    many = [[at, *((7 * at + place) % 256 for place in range(5))] for at in range(200)]
    cut = batches(many, 300, 1024, 6)
    assert len(cut) == 200
    with tiny.block(0, torch.device("cpu")) as block:
        statistics = Statistics(block, tiny.linears(0), tokens=1200)
        given: list[torch.Tensor] = []
        name = tiny.linears(0)[1][0]  # behind attention, where each position is its own
        hook = block.linear(name).register_forward_pre_hook(lambda _layer, args: given.append(args[0][0]))
        for hidden, batch in zip(tiny.embed([one.ids for one in cut]), cut, strict=True):
            statistics.forward(hidden, batch)
        hook.remove()
        statistics.close()
        sample = statistics.take(name).sample
    assert sample is not None and 200 <= len(sample) <= 256
    rows = torch.cat(given)
    places = [int((rows == row).all(dim=1).nonzero()[0]) for row in sample]
    assert {place % 6 for place in places} == set(range(6))
    assert min(places) < 30 and max(places) > 1170


def test_blocks_that_do_not_divide_the_outputs_are_refused(tiny, tmp_path):
    assert refused(FormatError, tiny, [Recipe(scheme="FP8_BLOCK")], tmp_path) == (
        "recipe 'FP8_BLOCK': the outputs of k_proj (64 outputs, 2 layers), v_proj (64 outputs, 2 layers) do not divide "
        "into blocks of 128; list 'k_proj', 'v_proj' under keep"
    )


@pytest.mark.parametrize("name", ["FP8", "NVFP4"])
def test_calibrated_activations_without_samples_are_refused(tiny, tmp_path, name):
    assert refused(UsageError, tiny, [Recipe(scheme=name, method="rtn")], tmp_path) == (
        f"recipe '{name}-rtn': {name} rounds activations with numbers from a calibration set; give one, or choose "
        "FP8_DYNAMIC, W8A8 or MXFP4, which need none"
    )


@pytest.mark.parametrize(("name", "top"), [("FP8", 448.0), ("NVFP4", 448.0 * 6)])
def test_layers_that_share_an_input_share_its_calibrated_scale(swept, tiny, samples, name, top):
    layers = [f"model.layers.0.self_attn.{one}_proj" for one in "qkv"]
    scales = [swept[name].linear(layer).input_scale for layer in layers]
    assert all(torch.equal(one, scales[0]) for one in scales)
    cut = batches(samples, 300, 1024, 4096)
    with tiny.block(0) as block:
        statistics = Statistics(block, tiny.linears(0))
        for hidden, batch in zip(tiny.embed([one.ids for one in cut]), cut, strict=True):
            statistics.forward(hidden, batch)
        statistics.close()
        absmax = statistics.take(layers[0]).absmax
        assert absmax is not None
        largest = float(absmax.max())
    expected = top / largest if name == "NVFP4" else largest / top
    assert float(scales[0]) == pytest.approx(expected, rel=1 / 256)


def test_two_recipes_with_one_name_are_refused(tiny, tmp_path):
    recipes = [Recipe(scheme="W8A8"), Recipe(scheme="W8A8", options={"clip": "mse"})]
    assert refused(UsageError, tiny, recipes, tmp_path) == (
        "recipe 'W8A8': 2 recipes have this name; give them different labels"
    )


def test_groups_that_do_not_divide_name_every_kind_of_layer(tmp_path):
    model = open_model(save_random(tmp_path / "odd", hidden=96, feed_forward=160))
    recipe = Recipe(scheme="W4A16", group_size=64, method="rtn")
    told = refused(FormatError, model, [recipe], tmp_path / "out")
    assert told.startswith(
        "recipe 'W4A16-g64-rtn': the input columns of down_proj (160 columns, 2 layers), gate_proj (96 "
    )
    assert told.endswith(
        "v_proj (96 columns, 2 layers) do not divide into groups of 64; choose a group that divides them, or list "
        "'down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj', 'v_proj' under keep"
    )
    kept = Recipe(scheme="W4A16", group_size=96, method="rtn", keep=("down_proj",))
    (made,) = sweep(model, None, [kept], tmp_path / "out")
    assert made.manifest.bits_per_weight == pytest.approx(4 + 16 / 96)


def test_unknown_names_are_named_with_the_nearest(tiny, tmp_path):
    assert "did you mean 'W4A16'?" in refused(UnknownName, tiny, [Recipe(scheme="W4A15")], tmp_path)
    assert "did you mean 'gptq'?" in refused(UnknownName, tiny, [Recipe(scheme="W4A16", method="gtpq")], tmp_path)
    recipe = Recipe(scheme="W8A8", options={"clpi": "mse"})
    assert "unknown key 'clpi'; did you mean 'clip'?" in refused(UsageError, tiny, [recipe], tmp_path)
    assert refused(UsageError, tiny, [Recipe(scheme="W8A8", keep=("up_porj",))], tmp_path).startswith(
        f"recipe 'W8A8': keep: 'up_porj' matches no linear layer of {tiny.ref}; did you mean 'up_proj'?"
    )


def test_a_label_that_cannot_be_a_folder_is_refused():
    with pytest.raises(ValueError, match="cannot name a folder"):
        Recipe(scheme="W8A8", label="../elsewhere")


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        ([], "calibration: no samples; give at least one, or use a method that needs none (rtn)"),
        ([[1], []], "calibration sample 1: is empty; remove it"),
        ([[1] * 513], "calibration sample 0: 513 tokens, the model takes 512; cut it there"),
        (
            [[1, 300]],
            "calibration sample 0: token id 300 is outside the vocabulary of 300; tokenize with this model's tokenizer",
        ),
    ],
)
def test_unusable_samples_are_refused(tiny, tmp_path, samples, sentence):
    assert refused(DataError, tiny, [Recipe(scheme="W4A16")], tmp_path, samples) == sentence


def test_a_foreign_folder_in_the_way_is_left_alone(tiny, tmp_path):
    (tmp_path / "W8A8").mkdir()
    (tmp_path / "W8A8" / "thesis.tex").write_text("years of work")
    assert refused(ArtifactError, tiny, [Recipe(scheme="W8A8")], tmp_path) == (
        f"{tmp_path}/W8A8: exists and is not an artifact; move it away or choose another output folder"
    )
    assert (tmp_path / "W8A8" / "thesis.tex").read_text() == "years of work"


def test_a_nan_in_the_model_is_found_before_the_walk(tiny, samples, tmp_path):
    folder = shutil.copytree(tiny.path, tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    stages = []
    with pytest.raises(BadTensor, match=r"tensor 'model\.layers\.1\.mlp\.down_proj\.weight' holds NaN"):
        sweep(
            open_model(folder),
            samples,
            [Recipe(scheme="W4A16")],
            tmp_path / "out",
            progress=lambda *e: stages.append(e[0]),
        )
    assert set(stages) == {"check"}
    assert not (tmp_path / "out" / "W4A16").exists()


def test_activations_that_overflow_are_named(tiny, samples, tmp_path):
    folder = shutil.copytree(tiny.path, tmp_path / "loud")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.input_layernorm.weight"][:] = 3e38
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(BadTensor, match=r"q_proj: its input holds NaN or Inf on the calibration samples"):
        sweep(open_model(folder), samples, [Recipe(scheme="W4A16")], tmp_path / "out")


def test_layers_that_runtimes_fuse_share_nvfp4s_global_scale(swept):
    files = swept["NVFP4A16"].files
    shared = {
        name: float(files.read(f"model.layers.0.{name}.weight_global_scale"))
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
    }
    assert len({shared[f"self_attn.{one}_proj"] for one in "qkv"}) == 1
    assert shared["mlp.gate_proj"] == shared["mlp.up_proj"] != shared["self_attn.q_proj"]
