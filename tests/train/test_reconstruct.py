"""Blocks held to the model's own outputs: what is kept is never worse, and finished blocks outlive the run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quantgate.errors import TrainingError
from quantgate.models import OpenedModel, open_model
from quantgate.models.random import save_random
from quantgate.quantize import Artifact, Recipe
from quantgate.quantize.sweep import sweep
from quantgate.train import DataSummary, Document, TrainingSet, tokens_of
from quantgate.train.network import FakeNetwork, open_fake_network
from quantgate.train.options import QatOptions
from quantgate.train.reconstruct import Rebuilt, reconstruct

QUICK = QatOptions(batch_tokens=256, reconstruct=12, learning_rate=3e-3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OpenedModel:
    return open_model(save_random(tmp_path_factory.mktemp("models") / "tiny", hidden=64, feed_forward=128, tied=False))


@pytest.fixture(scope="module")
def start(model: OpenedModel, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    recipe = Recipe(scheme="W2A16", group_size=32, method="rtn")
    return sweep(model, None, [recipe], tmp_path_factory.mktemp("starts"))[0]


@pytest.fixture
def network(model: OpenedModel, start: Artifact) -> FakeNetwork:
    return open_fake_network(model, start)


def some(count: int, seed: int) -> list[Document]:
    rng, made = random.Random(seed), []
    for _ in range(count):
        ids = [rng.randrange(256) for _ in range(rng.randint(12, 40))]
        made.append(Document("traffic", ids, [0.0] + [1.0 for _ in ids[1:]]))
    return made


def data() -> TrainingSet:
    train, tune = some(32, 1), some(8, 2)
    told = DataSummary(content="random", documents={"traffic": 32}, tokens=tokens_of(train), tune=len(tune))
    return TrainingSet(train, tune, told)


def run(network: FakeNetwork, model: OpenedModel, folder: Path, options: QatOptions = QUICK) -> list[Rebuilt]:
    return reconstruct(network, model, data(), options, folder, tell=lambda *_: None)


def state(network: FakeNetwork) -> dict[str, Tensor]:
    return {name: one.detach().clone() for group in network.groups() for name, one in group.parameters.items()}


def logits(network: FakeNetwork) -> Tensor:
    ids = torch.tensor([data().tune[0].ids])
    with network.still():
        return network.logits(ids, torch.ones_like(ids, dtype=torch.bool))


def test_every_block_comes_nearer_to_what_the_model_gives(
    network: FakeNetwork, model: OpenedModel, tmp_path: Path
) -> None:
    found = run(network, model, tmp_path)
    assert [one.block for one in found] == [0, 1]
    assert all(one.after < one.before and 0 < one.steps <= QUICK.reconstruct for one in found)


def test_a_rate_that_only_harms_leaves_the_block_as_it_came(
    network: FakeNetwork, model: OpenedModel, tmp_path: Path
) -> None:
    before = state(network)
    found = run(network, model, tmp_path, QUICK.model_copy(update={"learning_rate": 3.0, "reconstruct": 4}))
    assert all(one.steps == 0 and one.after == one.before for one in found)
    assert all(torch.equal(one, before[name]) for name, one in state(network).items())


def test_finished_blocks_are_taken_and_a_torn_one_is_made_again_to_the_same_numbers(
    network: FakeNetwork, model: OpenedModel, start: Artifact, tmp_path: Path
) -> None:
    found = run(network, model, tmp_path)
    first, torn = tmp_path / "block-00000.safetensors", tmp_path / "block-00001.safetensors"
    written, whole = first.stat().st_mtime_ns, torn.read_bytes()
    torn.write_bytes(whole[:-8])
    other = open_fake_network(model, start)
    assert run(other, model, tmp_path) == found
    assert first.stat().st_mtime_ns == written and torn.read_bytes() == whole
    assert torch.equal(logits(other), logits(network))


def test_numbers_that_are_none_stop_it_with_the_finished_blocks_kept(
    network: FakeNetwork, model: OpenedModel, tmp_path: Path
) -> None:
    with torch.no_grad():
        network.block(1).layers["model.layers.1.mlp.up_proj"].latent.fill_(float("nan"))
    with pytest.raises(TrainingError, match="block 1, step 1: the error or its gradient is not finite; set learning"):
        run(network, model, tmp_path)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["block-00000.json", "block-00000.safetensors"]
