"""What rounding costs a training step: models that see their numbers as stored, beside the same model as it is.

    python -m benchmarks train_step

Two shapes with random weights: the built-in model's, and one four times as wide. The networks of one shape take turns,
step by step, on the same batches, since other programs may be at work; a ratio is the median over the rounds of one
step's seconds over those of the plain step of the same round, with the interval that holds it in 19 of 20 cases
(order statistics, no assumption about the noise). Both sides count everything: rounding, forward, backward, AdamW.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.result import Result
from quantgate.models import OpenedModel, open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe
from quantgate.quantize.sweep import sweep
from quantgate.train import DataSummary, Document, TrainingSet
from quantgate.train.devices import here
from quantgate.train.gradients import Worked
from quantgate.train.network import open_fake_network, open_network
from quantgate.train.options import QatOptions
from quantgate.train.order import batches
from quantgate.train.teacher import Teacher

GOAL = 1.6
ROUNDS, WARM = 9, 1
TOKENS = 4096  # of a step
PLAIN = "plain"


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    feed_forward: int
    rounds: int = ROUNDS

    @property
    def name(self) -> str:
        return f"hidden {self.hidden}, {self.layers} blocks"


SHAPES = (Shape(256, 6, 768), Shape(1024, 2, 3072, rounds=7))
RECIPES = {
    "W4A16": Recipe(scheme="W4A16", method="rtn"),
    "W3A16": Recipe(scheme="W3A16", method="rtn"),
    "W2A16 g32": Recipe(scheme="W2A16", group_size=32, method="rtn"),
    "W8A8": Recipe(scheme="W8A8", method="rtn"),
    "W4A4": Recipe(scheme="W4A4", method="rtn"),
    "FP8_DYNAMIC": Recipe(scheme="FP8_DYNAMIC"),
    "NVFP4": Recipe(scheme="NVFP4"),
    "W4A16, KV int8": Recipe(scheme="W4A16", method="rtn", kv_cache="int8"),
}


def run(shapes: tuple[Shape, ...] = SHAPES, recipes: dict[str, Recipe] = RECIPES) -> list[Result]:
    return [row for shape in shapes for row in _shape(shape, recipes)]


def _shape(shape: Shape, recipes: dict[str, Recipe]) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        save_random(Path(folder) / "model", hidden=shape.hidden, layers=shape.layers, feed_forward=shape.feed_forward,
                    heads=8, kv_heads=4, vocabulary=1536)  # fmt: skip
        model = open_model(Path(folder) / "model")
        seconds = _seconds(model, recipes, Path(folder), shape.rounds)
    plain = seconds.pop(PLAIN)
    floor = _work(shape) / _rate(shape.hidden)
    yield Result(
        f"a plain step of {TOKENS} tokens, {shape.name}",
        f"{median(plain):.3f} s, {median(plain) / floor:.1f}x the products of its linear layers alone",
    )
    for name, found in seconds.items():
        ratios = sorted(one / other for one, other in zip(found, plain, strict=True))
        low, high = interval(ratios)
        told = f"{median(ratios):.2f}x ({low:.2f} to {high:.2f})"
        yield Result(f"a step of {name} over a plain one, {shape.name}", told, f"at most {GOAL}x",
                     median(ratios) <= GOAL)  # fmt: skip


def _seconds(model: OpenedModel, recipes: dict[str, Recipe], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Of every step of every network, in the same rounds."""
    data = _data()
    options = QatOptions(batch_tokens=TOKENS, precision="float32")
    plain = open_network(model, precision="float32")
    teacher = Teacher(plain.logits, data, folder / "teacher", "random", options.top_k, TOKENS)
    made = dict(zip(recipes, sweep(model, _samples(), list(recipes.values()), folder / "starts"), strict=True))
    networks: dict[str, Any] = {PLAIN: plain}
    networks |= {name: open_fake_network(model, start, precision="float32") for name, start in made.items()}
    if made:
        name, start = next(iter(made.items()))
        networks[f"{name}, adapters of rank 8"] = open_fake_network(model, start, precision="float32", adapters=8)
    sides = {name: (Worked(one, teacher, options, here()), _adamw(one)) for name, one in networks.items()}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(WARM + rounds):
        for name in random.Random(step).sample(list(sides), len(sides)):
            worked, optimizer = sides[name]
            batch = batches(data.documents, TOKENS, step, 0, room=worked.room)
            began = time.perf_counter()
            worked.backward(batch)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            found[name].append(time.perf_counter() - began)
    return {name: taken[WARM:] for name, taken in found.items()}


def _adamw(network: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW([one for group in network.groups() for one in group.parameters.values()], lr=1e-6,
                             fused=True)  # fmt: skip


def _data() -> TrainingSet:
    """Conversations of 64 to 256 tokens, the second half of each an answer."""
    draw = random.Random(0)
    made = []
    for _ in range(200):
        length = draw.randrange(64, 257)
        wanted = [0.0] + [0.1] * (length // 2 - 1) + [1.0] * (length - length // 2)
        made.append(Document("random", [draw.randrange(1536) for _ in range(length)], wanted))
    tokens = sum(len(one.ids) for one in made)
    return TrainingSet(made, made[:8], DataSummary(content="random", documents={"random": 200}, tokens=tokens, tune=8))


def _samples() -> list[list[int]]:
    draw = random.Random(1)
    return [[draw.randrange(1536) for _ in range(64)] for _ in range(8)]


def interval(ordered: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Two of the sorted numbers between which the median of their distribution lies (David and Nagaraja 2003, 7.1).

    >>> interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    (1.0, 7.0)
    """
    n = len(ordered)
    for cut in range((n - 1) // 2, 0, -1):
        if 1 - 2 * sum(comb(n, k) for k in range(cut + 1)) / 2**n >= confidence:
            return ordered[cut], ordered[n - 1 - cut]
    return ordered[0], ordered[-1]


def _work(shape: Shape) -> float:
    """Operations of the linear layers' products in a step: forward, and twice as many backward."""
    hidden, wide = shape.hidden, shape.feed_forward
    weights = shape.layers * (3 * hidden * hidden + 3 * hidden * wide)  # keys and values have half the heads
    return 3.0 * 2 * TOKENS * weights


def _rate(side: int) -> float:
    """Measured float32 operations per second of a product of 2048 rows with a square matrix."""
    rows, matrix = torch.randn(2048, side), torch.randn(side, side)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        rows @ matrix
        best = min(best, time.perf_counter() - began)
    return 2 * 2048 * side**2 / best
