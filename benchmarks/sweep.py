"""What sharing is worth: six GPTQ variants in one pass against one, and a fine-tune that takes over finished blocks."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.result import Result
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe
from quantgate.quantize.reuse import Reuse
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
    shapes = [*_shape(hidden=256, layers=6, intermediate=768), *_shape(hidden=1024, layers=2, intermediate=3072)]
    return [*shapes, _fine_tune(hidden=256, layers=6, intermediate=768)]


def _fine_tune(hidden: int, layers: int, intermediate: int) -> Result:
    """The last third of the blocks was trained: its sweep over the base's, which left its blocks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        save_random(path / "base", hidden=hidden, layers=layers, feed_forward=intermediate)
        shutil.copytree(path / "base", path / "tuned")
        tensors = load_file(path / "tuned" / "model.safetensors")
        for block in range(layers - layers // 3, layers):
            tensors[f"model.layers.{block}.mlp.down_proj.weight"] *= 1.01
        save_file(tensors, path / "tuned" / "model.safetensors", {"format": "pt"})
        samples = torch.randint(0, 255, (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
        sweep(open_model(path / "base"), samples, list(SIX[:1]), path / "warm")
        times = []
        for name in ("base", "tuned"):
            reuse, began = Reuse(path / "kept"), time.perf_counter()
            sweep(open_model(path / name), samples, list(SIX[:2]), path / f"{name}-out", reuse=reuse)
            times.append(time.perf_counter() - began)
    ratio = times[1] / times[0]
    told = f"{ratio:.2f}x ({times[0]:.1f} s, {times[1]:.1f} s; {reuse.taken} of {layers} blocks taken over)"
    what = (
        f"two GPTQ variants of a fine-tune whose last {layers // 3} of {layers} blocks changed, over the base's sweep"
    )
    return Result(what, told, "at most 0.5x", ratio <= 0.5)


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
