"""A rotated model computes what the model computes; a rotated variant is an artifact like any other."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import JsonValue
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from quantgate.engines.torch import open_engine
from quantgate.errors import ArtifactError, FormatError, ModelError, UsageError
from quantgate.models import open_model
from quantgate.models.families import FAMILIES, MIXTURES, ROTATABLE, save_family
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, baseline, load_dequantized
from quantgate.quantize import rotate as rotating
from quantgate.quantize.checkpoints import get
from quantgate.quantize.hadamard import Rotation
from quantgate.quantize.methods import LayerStats
from quantgate.quantize.mix import mix, mixable
from quantgate.quantize.predict import predict
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
