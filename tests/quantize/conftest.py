"""One small random model and one sweep over it, shared by the tests of this folder."""

from __future__ import annotations

import random
import warnings

import pytest

from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe
from quantgate.quantize.sweep import sweep

RECIPES = [
    Recipe(scheme="W4A16"),
    Recipe(scheme="W4A16", group_size=64),
    Recipe(scheme="W4A16", group_size=32),
    Recipe(scheme="W4A16", group_size="channel", method="rtn"),
    Recipe(scheme="W4A16", group_size=32, symmetric=False, method="rtn"),
    Recipe(scheme="W3A16", group_size=32),
    Recipe(scheme="W3A16", group_size=32, symmetric=False, method="rtn"),
    Recipe(scheme="W2A16", group_size=32),
    Recipe(scheme="W1A16", group_size=32),
    Recipe(scheme="W8A16"),
    Recipe(scheme="W8A16", group_size=128),
    Recipe(scheme="W8A8"),
    Recipe(scheme="W4A8", group_size=32),
    Recipe(scheme="W4A4", group_size=32),
    Recipe(scheme="FP8_DYNAMIC"),
    Recipe(scheme="FP8"),
    Recipe(scheme="FP8_BLOCK", keep=("k_proj", "o_proj")),
    Recipe(scheme="NVFP4"),
    Recipe(scheme="NVFP4A16"),
    Recipe(scheme="MXFP4A16"),
    Recipe(scheme="MXFP4"),
    Recipe(scheme="W4A16", method="awq"),
    Recipe(scheme="W8A8", method="smoothquant"),
    Recipe(scheme="W4A16", method="rtn", keep=("layers.0", "k_proj"), label="mixed"),
    Recipe(scheme="W4A16", group_size=32, options={"propagate": "inputs", "steps": "block"}, label="W4A16-g32-inputs"),
    Recipe(scheme="W8A8", method="gptq", options={"propagate": "corrected"}, label="W8A8-corrected"),
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Llama, hidden 128, 2 blocks, tied embeddings, BF16."""
    return open_model(save_random(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def samples():
    rng = random.Random(0)
    return [[rng.randrange(256) for _ in range(rng.randrange(8, 48))] for _ in range(12)]


@pytest.fixture(scope="session")
def swept(tiny, samples, tmp_path_factory):
    """Recipe name -> artifact, all made in one sweep."""
    made = sweep(tiny, samples, RECIPES, tmp_path_factory.mktemp("swept"))
    return {artifact.name: artifact for artifact in made}


@pytest.fixture(params=[recipe.name for recipe in RECIPES])
def each(swept, request):
    """Every artifact of that sweep in turn."""
    return swept[request.param]


@pytest.fixture
def quiet():
    """transformers warns when told how to load a quantized model; that is its business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
