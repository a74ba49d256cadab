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
    return [*_shape(hidden=256, layers=6, intermediate=768), *_shape(hidden=1024, layers=2, intermediate=3072)]


def _shape(hidden: int, layers: int, intermediate: int) -> list[Result]:
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
    shape = f"hidden {hidden}, {layers} layers, {SAMPLES} x {TOKENS} tokens"
    what = f"six GPTQ variants in one sweep over one, {shape}"
    floors = [_work(hidden, layers, intermediate, count) / _rate(hidden) for count in (1, len(SIX))]
    over = ", ".join(f"{seconds / floor:.1f}x" for seconds, floor in zip(times[1:], floors, strict=True))
    return [
        Result(what, f"{ratio:.2f}x ({times[1]:.1f} s, {times[2]:.1f} s)", "at most 2.5x", ratio <= 2.5),
        Result(f"one and six over the time of their matrix products alone, {shape}", over),
    ]


def _work(hidden: int, layers: int, intermediate: int, variants: int) -> float:
    """Floating-point operations that no GPTQ sweep can leave out, attention scores aside.

    One forward pass, half of X^T X for each of the four distinct inputs of a block, the inverse factor of each, and the
    error updates of every variant.
    """
    linears = [(hidden, hidden), (2 * (hidden // 2), hidden), (hidden, hidden)]  # [out, in]: q, k and v, o
    linears += [(2 * intermediate, hidden), (hidden, intermediate)]  # gate and up, down
    inputs, tokens = (hidden, hidden, hidden, intermediate), SAMPLES * TOKENS
    forward = sum(2 * tokens * out * columns for out, columns in linears)
    statistics = sum(tokens * columns**2 for columns in inputs)
    factors = sum(columns**3 for columns in inputs)
    updates = sum(out * columns**2 for out, columns in linears)
    return float(layers * (forward + statistics + factors + variants * updates))


def _rate(side: int) -> float:
    """Measured float32 operations per second of a product of 4096 rows with a square matrix."""
    rows, matrix = torch.randn(4096, side), torch.randn(side, side)
    seconds = min(_seconds(rows, matrix) for _ in range(10))
    return 2 * 4096 * side**2 / seconds


def _seconds(rows: torch.Tensor, matrix: torch.Tensor) -> float:
    began = time.perf_counter()
    rows @ matrix
    return time.perf_counter() - began
