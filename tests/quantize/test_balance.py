"""Channel scales: they change nothing by themselves, and they take the error out of inputs with outliers."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, load_dequantized
from quantgate.quantize.artifact import baseline
from quantgate.quantize.statistics import Statistics, batches
from quantgate.quantize.sweep import sweep

LOUD = (3, 40, 77)  # channels


@pytest.fixture(scope="module")
def samples():
    rng = random.Random(0)
    return [[rng.randrange(256) for _ in range(rng.randrange(8, 48))] for _ in range(12)]


@pytest.fixture(scope="module", params=["llama", "gemma", "qwen2"])
def loud(request, tmp_path_factory):
    """A model whose norms make three channels forty times as large, and whose layers expect that."""
    folder = save_random(tmp_path_factory.mktemp("loud"), kind=request.param, dtype="float32", head_dim=32)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if "input_layernorm" in name or "post_attention_layernorm" in name:
            tensor[list(LOUD)] = 40.0
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")):
            tensor[:, list(LOUD)] /= 20
    save_file(tensors, file, metadata={"format": "pt"})
    return open_model(folder)


def one(model, samples, out, recipe):
    return sweep(model, samples, [recipe], out)[0]


def damage(model, artifact):
    """Mean squared change of the logits."""
    ids = torch.arange(80).reshape(2, 40) * 11 % 256
    with torch.no_grad():
        ours = load_dequantized(artifact, torch.float32)(ids).logits
        theirs = load_dequantized(baseline(model, Recipe(scheme="BF16")), torch.float32)(ids).logits
    return float((ours - theirs).square().mean())


def test_smoothing_takes_the_error_out_of_rounded_activations(loud, samples, tmp_path):
    plain = damage(loud, one(loud, samples, tmp_path, Recipe(scheme="W8A8", method="rtn")))
    smooth = damage(loud, one(loud, samples, tmp_path, Recipe(scheme="W8A8", method="smoothquant")))
    assert smooth < 0.25 * plain


def test_activation_aware_scaling_beats_rounding(loud, samples, tmp_path):
    plain = damage(loud, one(loud, samples, tmp_path, Recipe(scheme="W4A16", group_size=32, method="rtn")))
    aware = damage(loud, one(loud, samples, tmp_path, Recipe(scheme="W4A16", group_size=32, method="awq")))
    assert aware < 0.7 * plain


def test_scales_change_nothing_but_the_rounding(loud, samples, tmp_path):
    """Eight bits with a scale for every 16 columns: what is left is the rounding, not what the scales moved."""
    rounded = Recipe(scheme="W8A16", group_size=16, method="rtn", options={"clip": "hessian"})
    plain = damage(loud, one(loud, samples, tmp_path, rounded))
    aware = one(loud, samples, tmp_path, Recipe(scheme="W8A16", group_size=16, method="awq"))
    assert damage(loud, aware) < 1.5 * plain
    assert any(fate.facts.get("scaling") for fate in aware.manifest.fates)


def test_what_was_scaled_is_on_record(loud, samples, tmp_path):
    artifact = one(loud, samples, tmp_path, Recipe(scheme="W8A8", method="smoothquant"))
    fates = {fate.name: fate for fate in artifact.manifest.fates}
    norm = fates["model.layers.0.input_layernorm"]
    assert (norm.asked, norm.got) == ("keep", "f32")
    assert norm.because == "divided by the channel scales of q_proj, k_proj, v_proj"
    up = fates["model.layers.0.self_attn.q_proj"].facts
    assert str(up["scaling"]).startswith("max|x|^a / max|w|^(1-a), a = ") and up["scaling_gain"] < 0.9
    assert up["asked"] == up["method"] == "smoothquant"


def test_the_error_of_divided_rows_is_told_in_the_layers_own_units(tiny, samples, tmp_path):
    """v_proj and up_proj are divided by what o_proj and down_proj were multiplied with; the error must not follow."""
    artifact = one(tiny, samples, tmp_path, Recipe(scheme="W4A16", group_size=32, method="awq"))
    cut = batches(samples, 300, 512, 4096)
    up, norm = "model.layers.0.mlp.up_proj", "model.layers.0.post_attention_layernorm.weight"
    with tiny.block(0, torch.device("cpu")) as block:
        statistics = Statistics(block, tiny.linears(0))
        for hidden, batch in zip(tiny.embed([one.ids for one in cut]), cut, strict=True):
            statistics.forward(hidden, batch)
        statistics.close()
        hessian = statistics.take("model.layers.0.mlp.gate_proj").hessian
    columns = tiny.files.read(norm).float() / artifact.files.read(norm).float()
    stored, weight = artifact.linear(up).dequantized(torch.float32), tiny.files.read(f"{up}.weight").float()
    rows = ((weight * columns) * stored).sum(dim=1) / stored.square().sum(
        dim=1
    )  # what the rows were divided by, nearly
    change = stored * rows[:, None] / columns - weight
    error = float((change @ hessian * change).sum() / (weight @ hessian * weight).sum())
    fate = next(fate for fate in artifact.manifest.fates if fate.name == up)
    assert fate.error == pytest.approx(error, rel=0.2)


def test_a_source_that_is_kept_takes_no_scales(tiny, samples, tmp_path):
    artifact = one(tiny, samples, tmp_path, Recipe(scheme="W8A8", method="smoothquant", keep=("layers.0.mlp.up_proj",)))
    notes = [note for note in artifact.manifest.ledger if note.event == "not_scaled"]
    assert [note.tensor for note in notes] == ["model.layers.0.mlp.down_proj"]
    assert notes[0].detail == "the scales would have to go into model.layers.0.mlp.up_proj, which is kept"


def test_other_variants_of_the_sweep_stay_the_same(tiny, samples, tmp_path):
    plain = Recipe(scheme="W4A16", group_size=32)
    alone = sweep(tiny, samples, [plain], tmp_path / "alone")[0]
    among = sweep(tiny, samples, [Recipe(scheme="W8A8", method="smoothquant"), plain], tmp_path / "among")[1]
    digests = [{name: file.sha256 for name, file in one.manifest.files.items()} for one in (alone, among)]
    assert digests[0] == digests[1]
