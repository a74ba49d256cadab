"""From a post-training artifact to a trained one: better than its start, the numbers that were trained, resumable."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.quantize.gguf.conftest import small

from quantgate.errors import UsageError
from quantgate.models import OpenedModel, open_model
from quantgate.models.random import save_random
from quantgate.quantize import Artifact, Recipe, baseline, load_dequantized, open_artifact
from quantgate.quantize.sweep import sweep
from quantgate.train import DataSummary, Document, Row, TrainingSet, tokens_of
from quantgate.train._cache import RoundedCache
from quantgate.train.network import open_fake_network
from quantgate.train.options import QatOptions
from quantgate.train.qat import qat, settle

QUICK = QatOptions(
    steps=8, batch_tokens=256, reconstruct=4, evaluate_every=4, learning_rate=2e-3, top_k=300, tune=8, start="rtn"
)

FINE = QUICK.model_copy(update={"learning_rate": 2e-4})  # of formats whose codes lie close together


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OpenedModel:
    return open_model(save_random(tmp_path_factory.mktemp("models") / "tiny", hidden=64, feed_forward=128, tied=False))


def documents(count: int, seed: int) -> list[Document]:
    rng, made = random.Random(seed), []
    for _ in range(count):
        ids = [rng.randrange(256) for _ in range(rng.randint(12, 40))]
        made.append(Document("traffic", ids, [0.0] + [rng.choice([0.1, 1.0]) for _ in ids[1:]]))
    return made


def training_data() -> TrainingSet:
    train, tune = documents(32, 1), documents(8, 2)
    told = DataSummary(content="random", documents={"traffic": len(train)}, tokens=tokens_of(train), tune=len(tune))
    return TrainingSet(train, tune, told)


def samples() -> list[list[int]]:
    return [one.ids for one in documents(16, 3)]


def train(
    model: OpenedModel, recipe: Recipe, out: Path, options: QatOptions = QUICK, stages: list[str] | None = None
) -> Artifact:
    def tell(stage: str, done: int, total: int, row: Row | None = None) -> None:
        if stages is not None:
            stages.append(stage)

    return qat(model, recipe, options, training_data(), out, samples=samples(), tell=tell, device="cpu")


def tune_kl(artifact: Artifact, model: OpenedModel) -> float:
    """Over the whole vocabulary, by somebody else's code: transformers and plain softmaxes."""
    exact, rounded = load_dequantized(baseline(model), torch.float32), load_dequantized(artifact, torch.float32)
    cached = artifact.manifest.kv_cache
    off = weight = 0.0
    with torch.no_grad():
        for one in training_data().tune:
            ids = torch.tensor([one.ids])
            more = {}
            if cached is not None:
                more = {"past_key_values": RoundedCache(artifact.kv_cache(), cached, torch.device("cpu"))}
            p, q = exact(ids).logits[0].log_softmax(-1), rounded(ids, **more).logits[0].log_softmax(-1)
            counts = torch.tensor([*one.wanted[1:], 0.0])
            off += float(((p.exp() * (p - q)).sum(-1) * counts).sum())
            weight += float(counts.sum())
    return off / weight


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(scheme="W1A16", group_size=32, method="qat"),
        Recipe(scheme="W2A16", group_size=32, symmetric=False, method="qat"),
        Recipe(scheme="W3A16", group_size=32, method="qat", rotation="hadamard"),
        Recipe(scheme="W4A4", group_size=32, method="qat"),
        Recipe(scheme="NVFP4", method="qat"),
        Recipe(scheme="FP8", method="qat", kv_cache="fp8"),
        Recipe(scheme="W4A16", group_size=32, method="qat", kv_cache="int4"),
        Recipe(scheme="W4A16", group_size=32, method="qat", container="gptq_v2"),
    ],
    ids=lambda recipe: recipe.name,
)
def test_what_is_written_is_what_was_measured_in_training(model: OpenedModel, recipe: Recipe, tmp_path: Path) -> None:
    artifact = train(model, recipe, tmp_path, FINE if recipe.scheme == "FP8" else QUICK)
    told = artifact.manifest.training
    assert told is not None and told.before is not None and told.after is not None
    if recipe.scheme == "FP8":  # so near that there may be nothing to gain
        assert told.after <= told.before
    else:
        assert told.after < told.before
    assert tune_kl(artifact, model) == pytest.approx(told.after, rel=0.05, abs=2e-5)
    assert (artifact.name, artifact.manifest.method) == (recipe.name, "qat")
    assert told.sources == {"traffic": 32} and told.data == training_data().summary.digest
    open_artifact(artifact.path)


def test_block_formats_of_gguf_are_trained(model: OpenedModel, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    artifact = train(model, Recipe(scheme="Q4_0", method="qat"), tmp_path, FINE)
    told = artifact.manifest.training
    assert told is not None and told.before is not None and told.after is not None and told.after < told.before
    assert tune_kl(artifact, model) == pytest.approx(told.after, rel=0.05, abs=2e-5)


@pytest.mark.parametrize("scheme", ["Q4_K_M", "Q2_K"])
def test_llama_cpp_runs_the_trained_numbers(scheme: str, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")
    wide = small(tmp_path / "wide", hidden=256, feed_forward=512)
    artifact = train(wide, Recipe(scheme=scheme, method="qat"), tmp_path / "out", QUICK)
    (start,) = sweep(wide, None, [Recipe(scheme=scheme, method="rtn")], tmp_path / "start")
    theirs = llama_cpp.Llama(str(next(artifact.path.glob("*.gguf"))), n_ctx=64, logits_all=True, verbose=False)
    trained, rounded = (load_dequantized(one, torch.float32) for one in (artifact, start))
    near = far = 0.0
    for one in documents(6, 4):
        theirs.reset()
        theirs.eval(one.ids)
        with torch.no_grad():
            seen = torch.from_numpy(theirs.scores[: len(one.ids)].copy()).log_softmax(-1)
            ours, before = (net(torch.tensor([one.ids])).logits[0].log_softmax(-1) for net in (trained, rounded))
        near += float((seen.exp() * (seen - ours)).sum(-1).mean())
        far += float((seen.exp() * (seen - before)).sum(-1).mean())
    theirs.close()
    assert near < 0.05 * far  # llama.cpp rounds inputs to 8 bits, which is all that is left


def test_adapters_instead_of_weights(model: OpenedModel, tmp_path: Path) -> None:
    options = QUICK.model_copy(update={"adapters": 4, "norms": False})
    artifact = train(model, Recipe(scheme="W2A16", group_size=32, method="qat"), tmp_path, options)
    told = artifact.manifest.training
    assert told is not None and told.before is not None and told.after is not None and told.after < told.before
    assert tune_kl(artifact, model) == pytest.approx(told.after, rel=0.05, abs=2e-5)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(scheme="W1A16", group_size=32, method="rtn"),
        Recipe(scheme="W2A16", group_size=32, symmetric=False, method="gptq"),
        Recipe(scheme="W4A16", group_size=32, method="rtn", options={"clip": "mse"}),
        Recipe(scheme="NVFP4A16", method="gptq"),
        Recipe(scheme="FP8_DYNAMIC", method="rtn"),
    ],
    ids=lambda recipe: recipe.name,
)
def test_settling_moves_weights_into_their_steps_and_rounds_them_alike(
    model: OpenedModel, recipe: Recipe, tmp_path: Path
) -> None:
    (start,) = sweep(model, samples(), [recipe], tmp_path)
    network = open_fake_network(model, start)
    before = {name: (layer.latent.detach().clone(), layer.rounded()) for name, layer in network.layers.items()}
    settle(network)
    for name, layer in network.layers.items():
        latent, rounded = before[name]
        assert torch.equal(layer.rounded(), rounded)
        off = (layer.latent - rounded).abs().mean()
        assert off <= 0.51 * (latent - rounded).abs().mean() and (off > 0 or recipe.scheme == "FP8_DYNAMIC")


def test_layers_learn_in_proportion_to_their_weights(model: OpenedModel, tmp_path: Path) -> None:
    (start,) = sweep(model, None, [Recipe(scheme="W8A16", method="rtn")], tmp_path)
    groups = [one for one in open_fake_network(model, start).groups() if one.name == "weights"]
    sizes = [float(weight.detach().square().mean().sqrt()) for one in groups for weight in one.parameters.values()]
    assert len(groups) == len(sizes) == 14
    assert [one.rate / size for one, size in zip(groups, sizes, strict=True)] == pytest.approx([10.0] * 14, rel=1e-4)


def test_no_steps_at_all_give_the_start_in_the_name_of_the_recipe(model: OpenedModel, tmp_path: Path) -> None:
    options = QUICK.model_copy(update={"steps": 0, "reconstruct": 0})
    artifact = train(model, Recipe(scheme="W3A16", group_size=32, method="qat"), tmp_path, options)
    told = artifact.manifest.training
    assert told is not None and (told.steps, told.best) == (0, 0) and told.after == pytest.approx(told.before)


def test_training_that_only_harms_keeps_the_start(model: OpenedModel, tmp_path: Path) -> None:
    options = QUICK.model_copy(update={"learning_rate": 0.5, "steps": 4, "evaluate_every": 2, "reconstruct": 3})
    artifact = train(model, Recipe(scheme="W8A16", method="qat"), tmp_path, options)
    told = artifact.manifest.training
    assert told is not None and told.best == 0 and told.after == pytest.approx(told.before)


def test_a_finished_artifact_is_taken_and_other_options_train_again_from_the_same_start(
    model: OpenedModel, tmp_path: Path
) -> None:
    recipe, stages = Recipe(scheme="W2A16", group_size=32, method="qat"), list[str]()
    first = train(model, recipe, tmp_path)
    again = train(model, recipe, tmp_path, stages=stages)
    assert not stages and again.manifest == first.manifest
    other = train(model, recipe, tmp_path, QUICK.model_copy(update={"task": 0.5}), stages)
    assert "train" in stages and "re-used: the start, W2A16 by rtn" in stages
    assert not any(stage.startswith("start") for stage in stages)
    assert other.manifest.inputs != first.manifest.inputs


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (Recipe(scheme="BF16", method="qat"), "rounds nothing"),
        (Recipe(scheme="W4A16", group_size=32, method="qat", keep=("*_proj",)), "are kept at full precision"),
        (Recipe(scheme="MIXED", method="qat"), "unknown scheme"),
        (Recipe(scheme="W4A16", group_size=48, method="qat"), "do not divide into groups of 48"),
        (Recipe(scheme="W4A16", group_size=32, method="gptq"), "its method is 'gptq'"),
    ],
    ids=["baseline", "all kept", "mixture", "groups", "method"],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    model: OpenedModel, recipe: Recipe, sentence: str, tmp_path: Path
) -> None:
    from quantgate.errors import QuantgateError

    with pytest.raises(QuantgateError) as refused:
        train(model, recipe, tmp_path / "out")
    assert sentence in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_start_is_refused(model: OpenedModel, tmp_path: Path) -> None:
    options = QUICK.model_copy(update={"start": "gptqq"})
    with pytest.raises(UsageError, match="gptqq"):
        train(model, Recipe(scheme="W4A16", group_size=32, method="qat"), tmp_path, options)


RUNS = ["start: quantize", "teacher", "reconstruct", "train", "write"]


def test_killed_in_every_stage_it_comes_to_the_same_bytes(model: OpenedModel, tmp_path: Path) -> None:
    whole = train(model, Recipe(scheme="W2A16", group_size=32, method="qat"), tmp_path / "whole")
    script = [sys.executable, "-c", "from tests.train.test_qat import drive; drive()", str(model.path)]
    said = subprocess.run([*script, str(tmp_path / "killed")], check=True, capture_output=True, text=True, timeout=500)
    assert json.loads(said.stdout) == [-signal.SIGKILL] * len(RUNS)
    killed = open_artifact(tmp_path / "killed" / whole.name)
    assert killed.manifest == whole.manifest


def drive() -> None:
    """Run the same training once for each stage, killed in it, and once to its end; print how each child ended."""
    model, out, ended = open_model(sys.argv[1]), Path(sys.argv[2]), []
    torch.set_num_threads(1)
    for stage in [*RUNS, ""]:
        if (child := os.fork()) == 0:
            recipe = Recipe(scheme="W2A16", group_size=32, method="qat")
            qat(model, recipe, QUICK, training_data(), out, samples=samples(), tell=_killer(stage), device="cpu")
            os._exit(0)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert ended.pop() == 0
    print(json.dumps(ended))


def _killer(wanted: str) -> Callable[..., None]:
    """Dies in the middle of a stage."""

    def tell(stage: str, done: int, total: int, row: Row | None = None) -> None:
        if stage == wanted and done >= total // 2 + (stage == "train"):
            os.kill(os.getpid(), signal.SIGKILL)

    return tell
