"""What sharing one pass is worth: six GPTQ variants in one sweep against one."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.result import Result
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe
from quantgate.quantize.sweep import sweep

SIX = (
    Recipe(scheme="W4A16"),
    Recipe(scheme="W4A16", group_size=64),
    Recipe(scheme="W4A16", group_size=32),
    Recipe(scheme="W3A16", group_size=64),
    Recipe(scheme="W3A16"),
    Recipe(scheme="W2A16", group_size=32),
)
SAMPLES, TOKENS = 128, 256


def run() -> list[Result]:
    """Two shapes: the built-in model's, and one four times as wide."""
    return [_shape(hidden=256, layers=6, intermediate=768), _shape(hidden=1024, layers=2, intermediate=3072)]


def _shape(hidden: int, layers: int, intermediate: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        save_random(path / "model", hidden=hidden, layers=layers, feed_forward=intermediate)
        model = open_model(path / "model")
        generator = torch.Generator().manual_seed(0)
        samples = torch.randint(0, 255, (SAMPLES, TOKENS), generator=generator).tolist()
        times = []
        for name, recipes in (("warm", SIX[:1]), ("one", SIX[:1]), ("six", SIX)):
            began = time.perf_counter()
            sweep(model, samples, list(recipes), path / name)
            times.append(time.perf_counter() - began)
    ratio = times[2] / times[1]
    what = f"six GPTQ variants in one sweep over one, hidden {hidden}, {layers} layers, {SAMPLES} x {TOKENS} tokens"
    return Result(what, f"{ratio:.2f}x ({times[1]:.1f} s, {times[2]:.1f} s)", "at most 2.5x", ratio <= 2.5)
