"""Trained numbers become an artifact that decodes to exactly them, in every container, or no artifact at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from quantgate.errors import ArtifactError, BadTensor, DiskFull, FormatError, UnknownName, UsageError
from quantgate.formats import BlockGrid, FloatGrid, Fp4Grid, Grid, IntGrid, scheme
from quantgate.formats.codec import decode, encode, fp4_scales, global_scale, scales_for
from quantgate.formats.schemes import scheme_names
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Manifest, Note, Recipe, checkpoints, load_dequantized, open_artifact
from quantgate.quantize.given import packed, trained_variant, write_given
from quantgate.quantize.manifest import Calibration, Training
from quantgate.quantize.mix import mix, mixable, unforeseen
from quantgate.quantize.sweep import sweep

IDS = torch.arange(60).reshape(2, 30) * 7 % 300
DIGEST = "sha256:" + "5" * 64
TRAINING = Training(
    method="qat", teacher=DIGEST, data=DIGEST, sources={"math": 3, "traffic": 2}, options={"steps": 40}, steps=40,
    best=30, tokens=9000, before=0.5, after=0.2,
)  # fmt: skip
GAIN = "model.layers.0.input_layernorm.weight"


@dataclass(frozen=True, eq=False)
class Layer:
    """A trained layer, as ``write_given`` is handed it."""

    weight: torch.Tensor
    grid: Grid
    scales: torch.Tensor
    zeros: torch.Tensor | None = None
    global_scale: float = 1.0
    input_scale: torch.Tensor | None = None

    def rounded(self) -> torch.Tensor:
        """What training computed with."""
        return decode(encode(self.weight, self.grid, self.scales, self.zeros), self.grid, self.scales, self.zeros)


def linears(model: Any) -> list[str]:
    return [layer for block in range(model.depth) for group in model.linears(block) for layer in group]


def moved(model: Any, start: Any, seed: int = 0) -> dict[str, Layer]:
    """Every quantized layer of ``start`` with weights and scales moved a little, as the container stores them."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name in (one for one in linears(model) if one in start.coded):
        was = start.linear(name)
        weight = was.dequantized(torch.float32)
        weight = weight + torch.randn(weight.shape, generator=generator) * weight.abs().mean() * 0.3
        scales = was.scales
        if isinstance(was.grid, Fp4Grid) and was.grid.scales == "fp8":
            scales = fp4_scales(scales * 6 * 1.25, was.grid, 448 * 6 / was.global_scale)
        elif not isinstance(was.grid, BlockGrid):
            scales = scales * 2 if isinstance(was.grid, Fp4Grid) else (scales.float() * 1.3).to(scales.dtype)
        found[name] = Layer(weight, was.grid, scales, was.zeros, was.global_scale, was.input_scale)
    return found


def export(model: Any, recipe: Recipe, layers: Any, out: Path, others: Any = None, **how: Any) -> Any:
    told: dict[str, Any] = {"training": TRAINING, "inputs": DIGEST} | how
    return write_given(model, recipe, layers, others or {}, out, **told)


# --------------------------------------------------------------------------------------------- the numbers themselves

CONTAINERS = ("compressed_tensors", "gptq_v2", "awq", "gguf")


@st.composite
def layers(draw: st.DrawFn) -> tuple[str, str, Layer]:
    """A container, a scheme that it holds, and a random layer whose shape suits both."""
    label = draw(st.sampled_from([name for name in scheme_names() if name != "BF16"]))
    sized = scheme(label).sized and draw(st.booleans())
    if sized:
        label += draw(st.sampled_from(["-g32", "-g8", "-channel"]))
        asymmetric = scheme(label).activations is None and not label.startswith("W1")
        label += "-asym" if asymmetric and draw(st.booleans()) else ""
    found = scheme(label)
    grid = found.weights
    assert grid is not None
    holding = [name for name in CONTAINERS if checkpoints.get(name).refuse(found) is None]
    step = grid.layout.block if isinstance(grid, BlockGrid) else grid.group_size or 1
    columns = step * draw(st.integers(1, 3)) if step > 1 else draw(st.integers(1, 70))
    out = draw(st.integers(1, 40)) if grid.strategy != "block" else (grid.group_size or 1) * draw(st.integers(1, 2))
    fits = [name for name in holding if checkpoints.get(name).refuse_layer(found, out, columns) is None]
    if not fits:
        out, columns = 32, -(-columns // 128) * 128
        fits = holding
    container = draw(st.sampled_from(fits))
    seed = draw(st.integers(0, 2**20))
    weight = torch.randn(out, columns, generator=torch.Generator().manual_seed(seed)) * 10.0 ** draw(st.integers(-3, 2))
    weight[:, draw(st.integers(0, columns - 1))] = 0.0
    stored = (
        torch.float16 if container in ("gptq_v2", "awq") else draw(st.sampled_from([torch.bfloat16, torch.float32]))
    )
    reach = float(weight.abs().max()) * draw(st.sampled_from([1.0, 3.0]))
    scales, zeros = scales_for(weight, grid, draw(st.sampled_from([None, 0.8])), dtype=stored, reach=reach)
    return container, label, Layer(weight, grid, scales, zeros, global_scale(reach))


@settings(max_examples=80, deadline=None)
@over(layers())
def test_a_packed_layer_decodes_to_exactly_what_training_computed_with(case: tuple[str, str, Layer]) -> None:
    container, label, layer = case
    given = torch.tensor([0.5], dtype=layer.scales.dtype) if scheme(label).calibrated else None
    tensors, told = packed(checkpoints.get(container), scheme(label), "layer", replace(layer, input_scale=given))
    assert torch.equal(told, layer.rounded())
    again = checkpoints.get(container).unpack("layer", tensors.__getitem__, scheme(label), None)
    assert torch.equal(decode(again.codes, again.grid, again.scales, again.zeros), layer.rounded())
    assert (again.input_scale is None) == (given is None)


def test_numbers_that_a_container_would_round_are_refused() -> None:
    layer = Layer(torch.randn(32, 32), IntGrid(bits=4), torch.full((32, 1), 0.1000001))  # float32, and awq has half
    with pytest.raises(FormatError, match=r"layer: its scale 0.1 is no float16 number"):
        packed(checkpoints.get("awq"), scheme("W4A16-channel"), "layer", layer)
    grid = Fp4Grid(group_size=16, scales="fp8")
    uneven = Layer(torch.randn(4, 16), grid, torch.full((4, 1), 0.0123), global_scale=1.0, input_scale=torch.ones(1))
    with pytest.raises(FormatError, match="must be rounded as it stores them"):
        packed(checkpoints.get("compressed_tensors"), scheme("NVFP4"), "layer", uneven)


# ---------------------------------------------------------------------------------------------------- whole artifacts

RECIPES: list[dict[str, Any]] = [
    {"scheme": "W4A16"},
    {"scheme": "W3A16-g32-asym"},
    {"scheme": "W2A16-g32"},
    {"scheme": "W1A16-g32"},
    {"scheme": "W8A16-channel"},
    {"scheme": "W8A8"},
    {"scheme": "W4A8-g32"},
    {"scheme": "W4A4-g32"},
    {"scheme": "FP8"},
    {"scheme": "FP8_DYNAMIC"},
    {"scheme": "FP8_BLOCK", "keep": ("k_proj", "o_proj")},
    {"scheme": "NVFP4"},
    {"scheme": "NVFP4A16"},
    {"scheme": "MXFP4"},
    {"scheme": "MXFP4A16"},
    {"scheme": "W4A16-g32", "kv_cache": "fp8"},
    {"scheme": "W4A16-g32", "kv_cache": "int4"},
    {"scheme": "W4A16-g32", "lm_head": "W4A16-g32", "embeddings": "W4A16-g32"},
    {"scheme": "W3A16-g32", "rotation": "hadamard"},
    {"scheme": "W4A16-g32", "container": "gptq"},
    {"scheme": "W4A16-g32-asym", "container": "gptq_v2"},
    {"scheme": "W4A16-g32-asym", "container": "awq"},
    {"scheme": "Q4_K_M"},
    {"scheme": "Q4_0"},
    {"scheme": "W4A16-g32", "keep": ("layers.1",)},
]


@pytest.fixture(scope="module")
def starts(tiny: Any, samples: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Recipe's name without a method -> the post-training artifact that training begins with."""
    recipes = [Recipe(method="rtn", **asked, label=str(at)) for at, asked in enumerate(RECIPES)]
    made = sweep(tiny, samples, recipes, tmp_path_factory.mktemp("starts"))
    return {Recipe(**asked).name: artifact for asked, artifact in zip(RECIPES, made, strict=True)}


@pytest.fixture(scope="module")
def trained(tiny: Any, starts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same names -> (recipe, layers, what else moved, the artifact)."""
    out, found = tmp_path_factory.mktemp("trained"), {}
    for asked in RECIPES:
        recipe, name = Recipe(method="qat", **asked), Recipe(**asked).name
        start = starts[name]
        given = moved(tiny, start)
        was = start.files.read(GAIN)
        others = {GAIN: (was.float() * 1.5).to(was.dtype), "model.norm.weight": start.files.read("model.norm.weight")}
        if asked.get("kv_cache") == "fp8":
            others |= {name: start.files.read(name) * 2 for name in start.files.entries if name.endswith("k_scale")}
        found[name] = recipe, given, others, export(tiny, recipe, given, out, others, start=start)
    return found


@pytest.fixture(params=[Recipe(**asked).name for asked in RECIPES])
def each(trained: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    return trained[request.param]


def test_every_layer_reads_as_it_was_trained(each: Any) -> None:
    recipe, given, others, artifact = each
    artifact = open_artifact(artifact.path)  # every byte against the manifest
    assert artifact.name == recipe.name
    assert given
    for name, layer in given.items():
        linear = artifact.linear(name)
        assert torch.equal(decode(linear.codes, linear.grid, linear.scales, linear.zeros), layer.rounded()), name
        fate = artifact.coded[name]
        assert fate.facts["method"] == "qat"
        assert fate.error is None
        assert fate.weight_error is not None
    for name, numbers in others.items():
        assert torch.equal(artifact.files.read(name).to(numbers.dtype), numbers), name


def test_the_manifest_says_how_it_was_trained(tiny: Any, each: Any) -> None:
    recipe, _, _, artifact = each
    manifest = artifact.manifest
    assert manifest.training == TRAINING
    assert (manifest.method, manifest.recipe) == ("qat", recipe)
    assert manifest.model.weights == tiny.weights_digest  # a variant of the baseline, like any other
    norms = {fate.name: fate.because for fate in manifest.fates if fate.name.endswith("norm")}
    assert norms["model.layers.0.input_layernorm"].endswith("trained")
    assert not norms["model.norm"].endswith("trained")  # it did not move


def test_what_was_not_trained_is_the_starts(each: Any, starts: dict[str, Any]) -> None:
    recipe, given, others, artifact = each
    start = starts[recipe.model_copy(update={"method": ""}).name]
    layers = [*given, *(name.removesuffix(".weight") for name in others)]
    rest = [tensor for fate in artifact.manifest.fates if fate.name not in layers for tensor in fate.tensors]
    assert sorted(artifact.files.entries) == sorted(start.files.entries)
    for tensor in rest:
        assert torch.equal(artifact.files.read(tensor), start.files.read(tensor)), tensor
    told = {fate.name: fate.because for fate in start.manifest.fates}
    assert {fate.name: fate.because for fate in artifact.manifest.fates if fate.name not in layers} == {
        name: why for name, why in told.items() if name not in layers
    }


@torch.no_grad()
def test_the_whole_model_computes_with_the_trained_numbers(each: Any, starts: dict[str, Any]) -> None:
    """The start, with each trained number put in its place by hand, gives the artifact's logits, bit for bit."""
    recipe, given, others, artifact = each
    hand = load_dequantized(starts[recipe.model_copy(update={"method": ""}).name], torch.float32)
    for name, layer in given.items():
        hand.get_submodule(name).weight.copy_(layer.rounded())
    for name, numbers in others.items():
        if not name.endswith("_scale"):
            hand.get_parameter(name).copy_(numbers)
    told = load_dequantized(artifact, torch.float32)
    if isinstance(scheme(recipe.scheme).weights, IntGrid | FloatGrid):
        for name, layer in given.items():
            hand.get_submodule(name).weight.copy_(told.get_submodule(name).weight)  # decoded in another type's steps
            close = layer.rounded()
            assert (told.get_submodule(name).weight - close).abs().max() <= close.abs().max() * 2**-7
    assert torch.equal(told(IDS).logits, hand(IDS).logits)


@pytest.mark.parametrize(
    "name",
    [
        "W4A16", "W3A16-g32-asym", "W1A16-g32", "W8A8", "W4A8-g32", "W4A4-g32", "FP8", "FP8_BLOCK", "NVFP4", "MXFP4",
        "W3A16-g32-rot", "W4A16-g32",
    ],
)  # fmt: skip
@torch.no_grad()
def test_transformers_with_compressed_tensors_computes_the_same_logits(
    trained: dict[str, Any], name: str, quiet: None
) -> None:
    artifact = trained[name][3]
    symmetric = artifact.scheme.weights.symmetric
    how = {} if symmetric else {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    theirs = AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.bfloat16, **how).eval()
    ours = load_dequantized(artifact, torch.bfloat16)
    assert torch.equal(theirs(IDS).logits, ours(IDS).logits)


def test_a_gguf_file_decodes_to_the_trained_numbers_in_the_package_gguf(trained: dict[str, Any]) -> None:
    gguf = pytest.importorskip("gguf")
    _, given, others, artifact = trained["Q4_K_M"]
    reader = gguf.GGUFReader(next(artifact.path.glob("*.gguf")))
    stored = {one.name: one for one in reader.tensors}
    kinds = {stored[f"blk.{block}.ffn_down.weight"].tensor_type.name for block in range(2)}
    assert kinds <= {"Q4_K", "Q5_0", "Q6_K", "Q8_0"}
    for block in range(2):
        one = stored[f"blk.{block}.ffn_down.weight"]
        numbers = torch.from_numpy(gguf.quants.dequantize(one.data, one.tensor_type).copy())
        assert torch.equal(numbers, given[f"model.layers.{block}.mlp.down_proj"].rounded())
    gain = torch.from_numpy(stored["blk.0.attn_norm.weight"].data.copy())
    assert torch.equal(gain.float().flatten()[:4], others[GAIN].float()[:4])


def test_a_biased_untied_model_in_float32(tmp_path: Path, samples: Any) -> None:
    model = open_model(save_random(tmp_path / "qwen", kind="qwen2", tied=False, dtype="float32"))
    (start,) = sweep(model, samples, [Recipe(scheme="W4A16-g32", method="rtn")], tmp_path / "start")
    given = moved(model, start)
    artifact = export(model, Recipe(scheme="W4A16-g32", method="qat"), given, tmp_path, start=start)
    assert "model.layers.0.self_attn.q_proj.bias" in artifact.files.entries
    for name, layer in given.items():
        assert torch.equal(artifact.linear(name).dequantized(), layer.rounded())


def test_channel_scales_that_the_start_folded_in_stay(tiny: Any, samples: Any, tmp_path: Path) -> None:
    (start,) = sweep(tiny, samples, [Recipe(scheme="W3A16-g32", method="awq")], tmp_path / "start")
    folded = {fate.name for fate in start.manifest.quantized if fate.facts.get("scaling")}
    assert folded
    artifact = export(
        tiny, Recipe(scheme="W3A16-g32", method="qat"), moved(tiny, start), tmp_path, start=start,
        calibration=start.manifest.calibration,
    )  # fmt: skip
    assert {fate.name for fate in artifact.manifest.quantized if fate.facts.get("scaling")} == folded
    assert torch.equal(artifact.files.read(GAIN), start.files.read(GAIN))
    assert not torch.equal(artifact.files.read(GAIN), tiny.files.read(GAIN))
    assert artifact.manifest.calibration == start.manifest.calibration


def test_without_a_start_all_layers_are_given_and_the_rest_is_the_models(
    tiny: Any, starts: dict[str, Any], tmp_path: Path
) -> None:
    given = moved(tiny, starts["W4A16"])
    recipe = Recipe(scheme="W4A16", method="qat")
    artifact = export(tiny, recipe, given, tmp_path)
    assert torch.equal(artifact.files.read(GAIN), tiny.files.read(GAIN))
    assert {fate.because for fate in artifact.manifest.fates if fate.name == "model.norm"} == {
        "not the weight of a linear layer"
    }
    less = {name: layer for name, layer in given.items() if "layers.0.mlp" not in name}
    with pytest.raises(UsageError, match=r"nothing is given for model.layers.0.mlp.* and 2 others; give all layers"):
        export(tiny, recipe, less, tmp_path)
    artifact = export(tiny, Recipe(scheme="W4A16", method="qat", keep=("layers.0.mlp",)), less, tmp_path)
    assert artifact.files.entries["model.layers.0.mlp.up_proj.weight"].dtype == "BF16"


def test_the_ledger_keeps_the_starts_lines_of_layers_that_were_not_trained(
    tiny: Any, starts: dict[str, Any], tmp_path: Path
) -> None:
    start = starts[Recipe(**RECIPES[-1]).name] if "layers.1" in RECIPES[-1]["keep"] else None
    assert start is not None
    note = Note(tensor="model.layers.0.mlp.up_proj", event="clipped", detail="by training", value=0.1)
    recipe = Recipe(method="qat", **RECIPES[-1])
    artifact = export(tiny, recipe, moved(tiny, start), tmp_path, start=start, ledger=[note])
    assert artifact.manifest.ledger == (*start.manifest.ledger, note)
    assert {one.event for one in start.manifest.ledger} == {"kept"}


# ------------------------------------------------------------------------------------------------- what else reads it


def test_a_trained_artifact_lends_no_layer_and_foretells_nothing(
    tiny: Any, trained: dict[str, Any], tmp_path: Path
) -> None:
    artifact = trained["W4A16"][3]
    assert mixable(tiny, "W4A16-qat", artifact) == (
        "'W4A16-qat' was trained as a whole, so its layers make up for each other"
    )
    assert unforeseen(artifact) == "its weights were trained"
    with pytest.raises(FormatError, match=r"was trained as a whole.*; leave it out"):
        mix(tiny, {"a": artifact}, dict.fromkeys(linears(tiny), "a"), tmp_path / "mixed")


def test_a_manifest_without_training_says_nothing_of_it(starts: dict[str, Any], trained: dict[str, Any]) -> None:
    plain, qat = starts["W4A16"].manifest, trained["W4A16"][3].manifest
    assert "training" not in plain.body()
    assert qat.body()["training"]["sources"] == {"math": 3, "traffic": 2}
    assert Manifest.model_validate(json.loads(json.dumps(qat.body()))) == qat


def test_the_same_numbers_are_the_same_artifact(tiny: Any, starts: dict[str, Any], tmp_path: Path) -> None:
    start, recipe = starts["W4A4-g32"], Recipe(scheme="W4A4-g32", method="qat")
    first, second = (
        export(tiny, recipe, moved(tiny, start), tmp_path / side, start=start).manifest.digest for side in "ab"
    )
    other = export(tiny, recipe, moved(tiny, start, seed=1), tmp_path / "a", start=start)
    assert first == second != other.manifest.digest
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [recipe.name]  # replaced, nothing left behind


# ----------------------------------------------------------------------------------------------------------- refusals


def test_a_sweep_refuses_to_train(tiny: Any, samples: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe 'W4A16-qat': method qat trains, .*; run 'quantgate train qat'"):
        sweep(tiny, samples, [Recipe(scheme="W4A16", method="qat")], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"scheme": "W4A16", "method": "gptq"}, UsageError, "its method is 'gptq', and what is trained has qat"),
        ({"scheme": "BF16"}, UsageError, "BF16 rounds nothing, so there is nothing to train for"),
        ({"scheme": "W4A17"}, UnknownName, "did you mean 'W4A16'"),
        ({"scheme": "W4A16-g48"}, FormatError, "do not divide into groups of 48"),
        ({"scheme": "FP8", "container": "awq"}, FormatError, "the container awq cannot hold FP8"),
        ({"scheme": "W4A16", "keep": ("nothing",)}, UsageError, "'nothing' matches no linear layer"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_told_before_anything_slow(
    tiny: Any, asked: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        trained_variant(tiny, Recipe(**({"method": "qat"} | asked)))


def test_layers_that_do_not_fit_are_refused(tiny: Any, starts: dict[str, Any], tmp_path: Path) -> None:
    start, recipe, name = starts["W4A16"], Recipe(scheme="W4A16", method="qat"), "model.layers.0.mlp.up_proj"
    given = moved(tiny, start)
    good = given[name]

    def refused(layer: Layer, error: type[Exception], said: str, **how: Any) -> None:
        with pytest.raises(error, match=said):
            export(tiny, recipe, given | {name: layer}, tmp_path, **({"start": start} | how))

    refused(replace(good, weight=good.weight[:8]), FormatError, r"its trained weight is \[8, 128\], the model's \[256")
    refused(replace(good, grid=IntGrid(bits=3, strategy="group", group_size=128)), FormatError, "was trained for")
    refused(replace(good, scales=good.scales.float()), FormatError, "scales are torch.float32 .* round them to it")
    refused(replace(good, scales=good.scales[:8]), FormatError, r"torch.bfloat16 \[8, 1\]")
    refused(replace(good, scales=good.scales / 0), BadTensor, "scales")
    refused(replace(good, weight=good.weight * torch.nan), BadTensor, name)
    with pytest.raises(UsageError, match=r"'model.layers.0.mlp.up_prj' is not a linear layer of .*did you mean"):
        export(tiny, recipe, {"model.layers.0.mlp.up_prj": good}, tmp_path, start=start)
    with pytest.raises(UsageError, match=r"gate_proj is not to be quantized: shares its input with"):
        export(tiny, recipe.model_copy(update={"keep": ("up_proj",)}), given, tmp_path)
    with pytest.raises(UsageError, match=r"'model.layers.0.k_scale' is no tensor of"):
        export(tiny, recipe, given, tmp_path, {"model.layers.0.k_scale": torch.ones(1)}, start=start)
    with pytest.raises(FormatError, match=r"layernorm.weight: is \[3\] after training, and was \[128\]"):
        export(tiny, recipe, given, tmp_path, {GAIN: torch.ones(3)}, start=start)
    with pytest.raises(BadTensor, match="input_layernorm"):
        export(tiny, recipe, given, tmp_path, {GAIN: torch.full([128], torch.inf)}, start=start)
    assert not list(tmp_path.iterdir())


def test_a_start_of_another_recipe_or_model_is_refused(
    tiny: Any, starts: dict[str, Any], tmp_path: Path, samples: Any
) -> None:
    start = starts["W4A16"]
    with pytest.raises(UsageError, match=r"scheme is 'W8A8', and training started from .*, where it is 'W4A16'"):
        export(tiny, Recipe(scheme="W8A8", method="qat"), {}, tmp_path, start=start)
    with pytest.raises(UsageError, match="kv_cache is 'int8'"):
        export(tiny, Recipe(scheme="W4A16", method="qat", kv_cache="int8"), {}, tmp_path, start=start)
    other = open_model(save_random(tmp_path / "other", seed=5))
    with pytest.raises(UsageError, match="was made from another model than"):
        export(other, Recipe(scheme="W4A16", method="qat"), moved(tiny, start), tmp_path / "out", start=start)
    with pytest.raises(UsageError, match="a rotated recipe is trained from a rotated artifact"):
        export(tiny, Recipe(scheme="W3A16-g32", method="qat", rotation="hadamard"), {}, tmp_path / "out")
    static = {name: replace(one, input_scale=None) for name, one in moved(tiny, starts["FP8"]).items()}
    with pytest.raises(FormatError, match="FP8 rounds inputs with a stored number, and none is given"):
        export(tiny, Recipe(scheme="FP8", method="qat"), static, tmp_path / "out", start=starts["FP8"])
    assert not (tmp_path / "out").exists()


def test_a_foreign_folder_is_left_alone(tiny: Any, starts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "W4A16-qat").mkdir()
    (tmp_path / "W4A16-qat" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="W4A16-qat: exists and is not an artifact"):
        export(
            tiny, Recipe(scheme="W4A16", method="qat"), moved(tiny, starts["W4A16"]), tmp_path, start=starts["W4A16"]
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["W4A16-qat", "notes.txt"]


# -------------------------------------------------------------------------------------------------------------- faults

KILLER = """
import os, signal, sys, pathlib
sys.path.insert(0, sys.argv[4])
from tests.quantize.test_given import DIGEST, TRAINING, moved
from quantgate.models import open_model
from quantgate.quantize import Recipe, open_artifact
from quantgate.quantize.given import write_given

folder, start, out, _ = sys.argv[1:]
model, start = open_model(folder), open_artifact(start)
layers, recipe = moved(model, start), Recipe(scheme="W4A16", method="qat")

def attempt(number):
    "In a process of its own, killed before it writes to the folder for the number-th time; True when it was."
    pid = os.fork()
    if pid == 0:
        left = [number]
        def asked(event, told):
            writes = event in ("os.rename", "os.mkdir", "shutil.rmtree") or (event == "open" and told[2] & os.O_WRONLY)
            if writes and str(told[0]).startswith(out):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(asked)
        write_given(model, recipe, layers, {}, out, training=TRAINING, inputs=DIGEST, start=start)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)

pathlib.Path(out).mkdir()
digests, number = set(), 1
write_given(model, recipe, layers, {}, out + "-whole", training=TRAINING, inputs=DIGEST, start=start)
wanted = open_artifact(pathlib.Path(out + "-whole") / recipe.name).manifest.digest
while attempt(number):
    named = [path for path in pathlib.Path(out).iterdir() if not path.name.endswith(".partial")]
    for path in named:
        assert open_artifact(path).manifest.digest == wanted, path  # with every byte
    number += 1
assert number > 12, number
left = [path.name for path in pathlib.Path(out).iterdir()]
assert left == [recipe.name], left
print(number)
"""


def test_kill_9_at_any_moment_leaves_a_whole_artifact_or_none(
    tiny: Any, starts: dict[str, Any], tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root / 'src'}"}
    script = [sys.executable, "-c", KILLER, str(tiny.path), str(starts["W4A16"].path), str(tmp_path / "out"), str(root)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_full_disk_leaves_what_was_there(tiny: Any, starts: dict[str, Any], tmp_path: Path) -> None:
    start, recipe = starts["W4A16"], Recipe(scheme="W4A16", method="qat")
    before = export(tiny, recipe, moved(tiny, start), tmp_path, start=start).manifest.digest
    other = "sha256:" + "7" * 64
    aside = tmp_path / f".sweep-{'7' * 16}.partial" / "block-00000"
    aside.mkdir(parents=True)
    (aside / f"{recipe.name}.safetensors.partial").symlink_to("/dev/full")  # every write there fails with ENOSPC
    with pytest.raises(DiskFull, match="the disk is full"):
        export(tiny, recipe, moved(tiny, start, seed=1), tmp_path, start=start, inputs=other)
    assert open_artifact(tmp_path / recipe.name).manifest.digest == before
    assert [path.name for path in tmp_path.iterdir()] == [recipe.name]


def test_calibration_and_origin_are_told(tiny: Any, starts: dict[str, Any], tmp_path: Path) -> None:
    seen = Calibration.of([[1, 2, 3]])
    artifact = export(
        tiny, Recipe(scheme="W4A16", method="qat"), moved(tiny, starts["W4A16"]), tmp_path, start=starts["W4A16"],
        calibration=seen, device="cuda", seed=7,
    )  # fmt: skip
    manifest = artifact.manifest
    assert (manifest.calibration, manifest.device, manifest.seed, manifest.inputs) == (seen, "cuda", 7, DIGEST)
