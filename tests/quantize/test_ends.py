"""The embedding table and the output layer: kept by rule, or in codes that transformers and our engine read alike."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from quantgate.engines._products import widen
from quantgate.engines._tables import CodedEmbedding
from quantgate.engines.torch import open_engine
from quantgate.errors import FormatError, RecordError, UnknownName, UsageError
from quantgate.formats import scheme
from quantgate.formats.codec import encode, scales_for
from quantgate.models import open_model
from quantgate.models.families import save_family
from quantgate.models.random import save_random
from quantgate.models.tensors import TensorFiles
from quantgate.quantize import Recipe, load_dequantized
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.ends import ends_of, parts_of, sentences
from quantgate.quantize.foreign import open_foreign
from quantgate.quantize.methods import LayerStats
from quantgate.quantize.mix import mixable
from quantgate.quantize.outside import by_rows
from quantgate.quantize.plan import plan
from quantgate.quantize.predict import predict
from quantgate.quantize.sweep import sweep
from quantgate.records import digest_file, parse

IDS = torch.arange(60).reshape(2, 30) * 7 % 300
SMALL: dict[str, Any] = {"hidden": 64, "feed_forward": 96, "vocabulary": 320}
FOUR: dict[str, Any] = {"scheme": "W4A16", "group_size": 32}
ASYM = "W4A16-g32-asym"
TABLE, HEAD = "model.embed_tokens", "lm_head"

UNTIED = {
    "head int8": Recipe(**FOUR, lm_head="W8A16"),
    "head as the blocks": Recipe(**FOUR, lm_head="W4A16-g32"),
    "head beside rounded activations": Recipe(scheme="W8A8", lm_head="W4A16-g32"),
    "head with awq": Recipe(**FOUR, method="awq", lm_head="W8A16"),
    "head with hqq": Recipe(**FOUR, method="hqq", lm_head="W8A16"),
    "table": Recipe(**FOUR, embeddings="W4A16-g32"),
    "both": Recipe(**FOUR, method="rtn", lm_head="W4A16-g32", embeddings="W4A16-g32"),
    "both in fp4": Recipe(scheme="NVFP4A16", lm_head="NVFP4A16", embeddings="NVFP4A16"),
    "both with zero points": Recipe(**FOUR, symmetric=False, lm_head=ASYM, embeddings=ASYM),
}
TIED = {
    "kept": Recipe(**FOUR),
    "one set of codes": Recipe(**FOUR, lm_head="W4A16-g32", embeddings="W4A16-g32"),
    "untied head": Recipe(**FOUR, lm_head="W8A16", untie=True),
    "untied table": Recipe(**FOUR, embeddings="W4A16-g32", untie=True),
}
EVERY = [*UNTIED, *TIED]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untied and tied: Llama, hidden 64, two blocks, BF16."""
    root = tmp_path_factory.mktemp("ends")
    return {tied: open_model(save_random(root / str(tied), tied=tied, **SMALL)) for tied in (False, True)}


@pytest.fixture(scope="module")
def made(models, samples, tmp_path_factory):
    """Name of a recipe -> model, recipe, artifact; two sweeps in all."""
    out, found = tmp_path_factory.mktemp("made"), {}
    for tied, recipes in ((False, UNTIED), (True, TIED)):
        artifacts = sweep(models[tied], samples, list(recipes.values()), out / str(tied))
        for (name, recipe), artifact in zip(recipes.items(), artifacts, strict=True):
            found[name] = models[tied], recipe, artifact
    return found


def fates(artifact):
    return {fate.name: fate for fate in artifact.manifest.fates}


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_transformers_computes_the_same_logits(made, name, quiet):
    """A table in codes, and zero points, open in transformers 5.23 only while it decodes them."""
    _, recipe, artifact = made[name]
    decodes = recipe.embeddings != "keep"
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if decodes else {}
    theirs = AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.bfloat16, **how).eval()
    ours = load_dequantized(artifact, torch.bfloat16)
    assert torch.equal(theirs(IDS).logits, ours(IDS).logits)
    heads = [one.get_output_embeddings().weight for one in (theirs, ours)]
    assert torch.equal(*heads)
    table = theirs.get_input_embeddings().weight
    assert (heads[0].data_ptr() == table.data_ptr()) == (name in ("kept", "one set of codes"))


@torch.no_grad()
def test_the_comparison_would_notice_one_wrong_code(made, quiet):
    _, _, artifact = made["head int8"]
    ours = load_dequantized(artifact, torch.bfloat16)
    ours.lm_head.weight[7, 3] += artifact.linear(HEAD).scales[7, 0]
    theirs = AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.bfloat16).eval()
    assert not torch.equal(theirs(IDS).logits, ours(IDS).logits)


@pytest.mark.parametrize("name", EVERY)
def test_our_engine_runs_it_and_says_how(made, name):
    model, recipe, artifact = made[name]
    engine = open_engine(model, artifact, kernels="dequantize", device="cpu")
    network = load_dequantized(artifact, torch.bfloat16)
    widen(network, torch.bfloat16, torch.device("cpu"))  # as the engine multiplies here
    with torch.inference_mode():
        wanted = network(IDS).logits.float()
        if recipe.scheme != "W8A8":
            assert torch.equal(engine.logits(IDS), wanted)
        engine = open_engine(model, artifact, device="cpu")
        assert torch.allclose(engine.logits(IDS), wanted, atol=0.6)  # bfloat16 sums in another order; logits reach 20
    tables = [path for path in engine.kernels if path.got == "rows decoded on lookup"]
    assert len(tables) == (recipe.embeddings != "keep")
    shared = name == "one set of codes"
    assert sum(path.linears for path in engine.kernels) == len(artifact.quantized) + shared


@pytest.mark.parametrize("name", EVERY)
def test_sizes_and_sentences_are_known_before_the_start(made, name):
    model, recipe, artifact = made[name]
    told, manifest = predict(model, [recipe], calibrated=True)[0], artifact.manifest
    assert (told.tensor_bytes, told.bits_per_weight) == (manifest.tensor_bytes, manifest.bits_per_weight)
    assert told.layers == len(artifact.quantized)
    ends = ends_of(artifact, model)
    assert set(told.ends) == set(sentences(ends, parts_of(manifest.fates, ends), manifest.tensor_bytes))
    for fate in manifest.fates:
        if fate.name in (HEAD, TABLE) and fate.asked == "keep":
            assert any(sentence.endswith(fate.because) for sentence in told.ends)


def test_what_is_kept_is_told_with_the_rule_and_the_share(made):
    model, _, artifact = made["kept"]
    size, whole = model.files.entries[f"{TABLE}.weight"].size, artifact.manifest.tensor_bytes
    assert fates(artifact)[TABLE].asked == "keep"
    assert fates(artifact)[TABLE].because == (
        "by the rule 'embeddings: keep', also read as the output layer (tied); "
        f"{size / 1e6:.2f} MB, {100 * size / whole:.1f}% of the tensors' bytes"
    )
    assert HEAD not in fates(artifact)
    found = fates(made["untied table"][2])[HEAD]
    assert "by the rule 'lm_head: keep', stored by itself where the model reads the embeddings (untie)" in found.because


def test_recipes_without_these_keys_have_the_digests_they_always_had():
    assert Recipe(scheme="W4A16").digest == "sha256:5e9fc3d342df8536087f3b00c96afb56eb6b75efd17a0288c8ad6d3db38dff2d"
    asked = Recipe(scheme="W4A16", lm_head="W8A16")
    assert asked.body()["lm_head"] == "W8A16" and asked.keep == ("embed_tokens",)
    assert Recipe.model_validate(asked.body()) == asked
    assert asked.name == "W4A16-head-W8A16"


@torch.no_grad()
def test_the_error_of_the_head_is_that_of_its_own_input(made, samples):
    """tr(dW H dW^T) / tr(W H W^T), with H from what transformers' whole model gives behind its final norm."""
    model, _, artifact = made["head as the blocks"]
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    x = torch.cat([whole.base_model(torch.tensor([one])).last_hidden_state[0] for one in samples]).double()
    weight = whole.lm_head.weight.double()
    change = artifact.linear(HEAD).dequantized(torch.bfloat16).double() - weight
    wanted = float((x @ change.T).square().sum() / (x @ weight.T).square().sum())
    found = fates(artifact)[HEAD]
    assert found.error == pytest.approx(wanted, rel=1e-3)
    rounded = fates(made["both"][2])[HEAD]
    assert found.facts["method"] == "gptq" and found.error < 0.8 * rounded.error


def test_channel_scales_stop_in_front_of_the_head_and_that_is_noted(made):
    _, _, artifact = made["head with awq"]
    notes = [note.detail for note in artifact.manifest.ledger if note.tensor == HEAD]
    assert notes == ["the final norm is left as it is, so the output layer goes without channel scales"]
    assert not fates(artifact)[HEAD].facts.get("scaling")
    assert torch.equal(artifact.files.read("model.norm.weight"), made["head int8"][0].files.read("model.norm.weight"))


def test_rows_of_the_table_are_rounded_to_nearest(made):
    model, _, artifact = made["table"]
    stored, weight = artifact.linear(TABLE), model.files.read(f"{TABLE}.weight").float()
    nearest = encode(weight, stored.grid, stored.scales)
    assert torch.equal(stored.codes, nearest)
    assert fates(artifact)[TABLE].because == "its rows are looked up, so each is rounded to nearest"


def test_codes_that_serve_both_are_solved_as_an_output_layer(made, samples):
    model, _, artifact = made["one set of codes"]
    shared = fates(artifact)[TABLE]
    assert shared.because == "solved as the output layer, which is tied to it and reads the same codes"
    assert shared.facts["method"] == "gptq" and shared.error is not None
    stored, weight = artifact.linear(TABLE), model.files.read(f"{TABLE}.weight").float()
    assert not torch.equal(stored.codes, encode(weight, stored.grid, stored.scales))


def test_the_settings_name_each_module_in_the_group_of_its_format(made):
    def told(name):
        return json.loads((made[name][2].path / "config.json").read_text())

    groups = told("head int8")["quantization_config"]["config_groups"]
    assert {name: (group["targets"], group["weights"]["num_bits"]) for name, group in groups.items()} == {
        "group_0": (["Linear"], 4),
        "group_1": ([HEAD], 8),
    }
    assert HEAD not in told("head int8")["quantization_config"]["ignore"]
    assert told("head int8")["quantization_config"]["format"] == "pack-quantized"
    assert told("head beside rounded activations")["quantization_config"]["format"] == "mixed-precision"
    groups = told("one set of codes")["quantization_config"]["config_groups"]
    assert [group["targets"] for group in groups.values()] == [["Linear", TABLE]]
    assert told("one set of codes")["quantization_config"]["ignore"] == [HEAD]
    assert told("one set of codes")["tie_word_embeddings"] is True
    assert told("untied head")["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("tied", "keys", "error", "sentence"),
    [
        (True, {"lm_head": "W8A16"}, UsageError, "is tied: it reads one table (model.embed_tokens) for both, so both"),
        (True, {"lm_head": "W8A16"}, UsageError, "which stores lm_head in codes of 0.02 MB beside the table"),
        (
            True,
            {"lm_head": "W8A16"},
            UsageError,
            "be the same; say W4A16-g32, as the blocks have it, for both, or 'unt",
        ),
        (True, {"embeddings": "W4A16-g32"}, UsageError, "which stores a kept lm_head of 0.04 MB beside the table"),
        (True, {"untie": True}, UsageError, "nothing is asked of lm_head or embeddings, so it would only copy"),
        (False, {"lm_head": "W8A16", "untie": True}, UsageError, "stores lm_head by itself already; leave untie out"),
        (False, {"lm_head": "W8A8"}, UsageError, "lm_head: W8A8 rounds inputs as well; name a weight-only scheme"),
        (False, {"lm_head": "BF16"}, UsageError, "lm_head: BF16 quantizes nothing; say keep"),
        (
            False,
            {"lm_head": "W5A16"},
            UnknownName,
            "recipe 'W4A16-g32-rtn-head-W5A16', lm_head: unknown scheme 'W5A16'",
        ),
        (
            False,
            {"lm_head": "W8A16", "keep": ("*_[hp]*",)},
            UsageError,
            "keep: '*_[hp]*' covers lm_head, and lm_head asks",
        ),
        (
            False,
            {"lm_head": "W4A16"},
            FormatError,
            "the 64 columns of lm_head do not divide into groups of 128; choose",
        ),
        (
            False,
            {"embeddings": "W8A16"},
            FormatError,
            "decodes the whole model by one format; choose W4A16-g32 for them",
        ),
        (False, {"lm_head": ASYM}, FormatError, "transformers opens zero points only while it decodes the whole model"),
        (
            False,
            {"lm_head": "W4A16-g32", "container": "awq"},
            FormatError,
            "AutoAWQ quantizes the decoder blocks alone",
        ),
        (False, {"embeddings": "W4A16-g32", "container": "gptq"}, FormatError, "no runtime looks a token up in them"),
        (
            False,
            {"lm_head": "NVFP4A16", "container": "gptq"},
            FormatError,
            "GPTQ layouts hold integer weights and nothi",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_slow(models, samples, tmp_path, tied, keys, error, sentence):
    with pytest.raises(error) as refused:
        sweep(models[tied], samples, [Recipe(**FOUR, method="rtn", **keys)], tmp_path)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_a_layer_cannot_be_listed_under_keep_and_be_asked_for():
    data = {"scheme": "W4A16", "lm_head": "W8A16", "keep": ["lm_head"]}
    with pytest.raises(RecordError, match="'keep': lists 'lm_head', which is to be W8A16; leave one of the two out"):
        parse(Recipe, data, where="here", error=RecordError)


def test_a_model_that_is_tied_and_stores_a_head_is_refused(models, samples, tmp_path):
    shutil.copytree(models[False].path, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(UsageError, match="says tie_word_embeddings and stores lm_head as well, so its readers differ"):
        sweep(open_model(tmp_path / "model"), samples, [UNTIED["head int8"]], tmp_path / "out")


def gptq_weight(files: TensorFiles, layer: str, bits: int):
    """(code - zero) * scale as GPTQModel's torch kernel computes it, symmetric codes; float32 [out, in]."""
    stream = np.ascontiguousarray(files.read(f"{layer}.qweight").numpy().view(np.uint32).T).astype("<u4").view(np.uint8)
    groups = files.read(f"{layer}.g_idx").long()
    numbers = np.unpackbits(stream, axis=1, bitorder="little")[:, : len(groups) * bits]
    codes = (numbers.reshape(len(stream), len(groups), bits) * (1 << np.arange(bits))).sum(axis=2)
    scales = files.read(f"{layer}.scales").float()[groups].T
    return torch.from_numpy(codes - (1 << (bits - 1))).float() * scales


@pytest.mark.parametrize("container", ["gptq", "gptq_v2"])
def test_gptqs_containers_hold_an_output_layer(models, made, samples, tmp_path, container):
    recipes = [Recipe(**FOUR, lm_head=label, container=container, label=label) for label in ("W8A16", "W4A16-g32")]
    eight, four = sweep(models[False], samples, recipes, tmp_path)
    settings = [json.loads((one.path / "config.json").read_text())["quantization_config"] for one in (eight, four)]
    assert [one["lm_head"] for one in settings] == [True, True]
    assert settings[0]["dynamic"] == {"+:^lm_head$": {"bits": 8, "group_size": -1, "sym": True}}
    assert "dynamic" not in settings[1]
    for artifact, bits, same in ((eight, 8, "head int8"), (four, 4, "head as the blocks")):
        codes = artifact.linear(HEAD)
        assert torch.equal(codes.codes, made[same][2].linear(HEAD).codes)
        assert torch.equal(gptq_weight(artifact.files, HEAD, bits), codes.dequantized(torch.float32))
        (artifact.path / "manifest.json").unlink()
        foreign = open_foreign(artifact.path, models[False])
        assert torch.equal(foreign.linear(HEAD).codes, codes.codes) and len(foreign.quantized) == 15


def test_our_own_folders_with_a_head_in_codes_open_as_foreign_ones(made, tmp_path):
    model, _, artifact = made["head int8"]
    shutil.copytree(artifact.path, tmp_path / "theirs", ignore=shutil.ignore_patterns("manifest.json"))
    foreign = open_foreign(tmp_path / "theirs", model)
    assert foreign.scheme_of(HEAD).label == "W8A16" and foreign.quantized == artifact.quantized
    ends = ends_of(foreign, model)
    assert (ends.lm_head, ends.embeddings) == (scheme("W8A16"), None)


def test_mixtures_take_no_layers_from_an_artifact_whose_ends_are_in_codes(made):
    for name in ("head int8", "one set of codes"):
        model, _, artifact = made[name]
        assert mixable(model, "it", artifact).endswith("in codes, and a mixture keeps it")
    model, _, artifact = made["kept"]
    assert mixable(model, "it", artifact) == ""


@pytest.mark.parametrize("kind", ["gpt_neox", "gemma2", "opt"])
@torch.no_grad()
def test_other_families_and_their_names(kind, samples, tmp_path, quiet):
    """GPT-NeoX calls them embed_out and embed_in, Gemma scales what it looks up, OPT projects it."""
    model = open_model(save_family(tmp_path / kind, kind, dtype="bfloat16"))
    recipe = Recipe(**FOUR, method="rtn", lm_head="W4A16-g32", embeddings="W4A16-g32")
    artifact = sweep(model, samples, [recipe], tmp_path / "out")[0]
    assert model.walker.table in artifact.quantized and (model.walker.head in artifact.quantized) != model.tied
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    theirs = AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.bfloat16, **how).eval()
    ours = load_dequantized(artifact, torch.bfloat16)
    assert torch.equal(theirs(IDS).logits, ours(IDS).logits)
    engine = open_engine(model, artifact, device="cpu")
    assert torch.allclose(engine.logits(IDS), ours(IDS).logits.float(), atol=0.6)
    (table,) = [path for path in engine.kernels if path.asked == "rows decoded on lookup"]
    assert table.because == ("Gemma2TextScaledWordEmbedding does more than look rows up" if kind == "gemma2" else "")


KILLER = """
import os, random, signal, sys
from quantgate.models import open_model
from quantgate.quantize import Recipe
from quantgate.quantize.sweep import sweep

folder, out = sys.argv[1:]
rng = random.Random(0)
samples = [[rng.randrange(256) for _ in range(rng.randrange(8, 48))] for _ in range(12)]
four = {"scheme": "W4A16", "group_size": 32}
recipes = [Recipe(**four, lm_head="W4A16-g32", embeddings="W4A16-g32"), Recipe(scheme="W8A8")]
recipes.append(Recipe(**four, lm_head="W8A16"))
model = open_model(folder)
sweep(model, samples, recipes, f"{out}/undisturbed")

def run(folder, progress=None):
    pid = os.fork()
    if pid == 0:
        sweep(model, samples, recipes, folder, progress=progress)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)

def killed_at(event):
    seen = []
    def progress(*what):
        seen.append(what)
        if what[0] != "check" and sum(one[0] != "check" for one in seen) == event:
            os.kill(os.getpid(), signal.SIGKILL)
    return progress

def torn(journal):
    "As a crash inside the last step leaves it: tensors without the marker."
    for file in os.listdir(journal):
        if file == "block-00002.json":
            os.unlink(os.path.join(journal, file))

# 1-8 are the layer groups of the two blocks, 9 is the end of the walk with the output layer, 10 to 12 the artifacts
for event in (8, 9, 10):
    assert run(f"{out}/event-{event}", killed_at(event))
    if event == 9:
        (journal,) = [name for name in os.listdir(f"{out}/event-9") if name.endswith(".partial")]
        torn(f"{out}/event-9/{journal}")
    assert not run(f"{out}/event-{event}")
"""


def test_kill_9_around_the_output_layer_resumes_to_the_same_bytes(tmp_path):
    model, out = save_random(tmp_path / "model", tied=False, **SMALL), tmp_path / "out"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    script = [sys.executable, "-c", KILLER, str(model), str(out)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    trees = {
        folder.name: {str(file.relative_to(folder)): digest_file(file) for file in folder.rglob("*") if file.is_file()}
        for folder in out.iterdir()
    }
    assert len(trees) == 4 and len(trees["undisturbed"]) >= 12
    for name, found in trees.items():
        assert found == trees["undisturbed"], name


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["rtn", "gptq", "hqq"]), st.sampled_from(["W4A16-g32", "W8A16", ASYM]), st.integers(0, 99))
def test_slices_of_rows_are_solved_as_the_whole_is(models, method, label, seed):
    rng = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(96, 64, generator=rng), torch.randn(256, 64, generator=rng)
    found = scheme(label)
    variant = plan(models[False], [Recipe(scheme=label, method=method)], calibrated=True)[0]
    assert variant.grid == found.weights
    whole = by_rows(variant, HEAD, weight, "BF16", LayerStats.of(x))
    parts = by_rows(variant, HEAD, weight, "BF16", LayerStats.of(x), limit=32 * 64)
    assert parts.codes.shape == whole.codes.shape and parts.scales.shape == whole.scales.shape
    change = parts.weight() - weight
    error = float((x @ change.T).double().square().sum() / (x @ weight.T).double().square().sum())
    assert parts.facts.error == pytest.approx(error, rel=1e-3)
    if method == "hqq":  # each slice ends its rounds by itself
        assert parts.facts.error == pytest.approx(whole.facts.error, rel=0.15)
        return
    assert float((whole.codes == parts.codes).float().mean()) > 0.999  # sums of another order may turn a code
    assert torch.equal(whole.scales, parts.scales)
    assert parts.facts.clipped == pytest.approx(whole.facts.clipped)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["W8A16", "W4A16-g32", ASYM, "NVFP4A16"]), st.lists(st.integers(0, 39), min_size=1, max_size=9))
def test_rows_decoded_on_lookup_are_rows_of_the_decoded_table(label, ids):
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    grid = scheme(label).weights
    assert grid is not None
    scales, zeros = scales_for(weight, grid)
    stored = StoredLinear(TABLE, encode(weight, grid, scales, zeros), scales, zeros, grid, None)
    rows = CodedEmbedding(stored, torch.bfloat16)(torch.tensor([ids]))
    assert rows.shape == (1, len(ids), 64) and torch.equal(rows[0], stored.dequantized(torch.bfloat16)[ids])
