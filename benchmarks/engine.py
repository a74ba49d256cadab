"""The torch engine against transformers' own ``generate`` on the same batch, and low-bit kernels against bfloat16."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.result import Result
from quantgate.engines._linears import build
from quantgate.engines.torch import TorchEngine, open_engine
from quantgate.evaluate import suites
from quantgate.evaluate.answers import prompt_of
from quantgate.formats import scheme
from quantgate.formats.codec import encode, scales_for
from quantgate.models import REFERENCE, REFERENCE_FOLDER, open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, baseline
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.sweep import sweep

BATCH, ROUNDS = 50, 5


def run() -> list[Result]:
    results = _random_model()
    if (REFERENCE_FOLDER / "config.json").is_file():
        results += _built_in()
    return results + _kernels()


def fastest(*works: Callable[[], object]) -> list[float]:
    """Seconds of the fastest of ROUNDS runs of each; taken in turns, so that a busy moment slows all of them."""
    found = [float("inf")] * len(works)
    for at in range(ROUNDS + 1):
        for index, work in enumerate(works):
            began = time.perf_counter()
            work()
            if at:  # the first round warms up
                found[index] = min(found[index], time.perf_counter() - began)
    return found


def _random_model() -> list[Result]:
    """The built-in model's shape with random weights, prompts and answers all alike: only the loop can differ."""
    shape: dict[str, Any] = {
        "hidden": 256,
        "layers": 6,
        "feed_forward": 768,
        "heads": 8,
        "kv_heads": 4,
        "vocabulary": 1536,
    }
    with tempfile.TemporaryDirectory() as folder:
        model = open_model(save_random(Path(folder) / "model", **shape))
        engine = open_engine(model, baseline(model))
    draw = random.Random(0)
    alike = [[draw.randrange(256) for _ in range(60)] for _ in range(BATCH)]
    what = f"against transformers' generate, {BATCH} prompts of 60 tokens, answers of 24"
    return [_against(engine, alike, [], 24, what, 1.5)]


def _against(
    engine: TorchEngine, rows: Sequence[list[int]], stops: Sequence[int], budget: int, what: str, target: float
) -> Result:
    """``rows`` are sorted by length; without ``stops`` only its budget ends an answer."""
    engine.decoder.stops = torch.tensor(stops, dtype=torch.long)
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    made: list[list[int]] = []

    def ours() -> None:
        made[:] = engine.decoder.answer(rows, [budget] * len(rows))[0]

    def theirs() -> None:
        with torch.inference_mode():
            engine.network.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=budget, pad_token_id=0,
                eos_token_id=list(stops) or None,
            )  # fmt: skip

    own, other = fastest(ours, theirs)
    speed = f"{len(rows) / own:.0f} prompts/s, {sum(map(len, made)) / own:.0f} tokens/s"
    return Result(what, f"{other / own:.2f}x ({speed})", f"at least {target:g}x", other >= target * own)


def _built_in() -> list[Result]:
    """Real prompts with real answers, and what the variants cost to run beside the baseline."""
    model = open_model(REFERENCE)
    cases = [case for name in suites.names() for case in suites.cases(name, "tune", 7)][:BATCH]
    prompts = [prompt_of(case) for case in cases]
    engine = open_engine(model, baseline(model))
    rows = sorted((engine.encode(prompt.turns) for prompt in prompts), key=len)
    budget = max(prompt.max_tokens for prompt in prompts)
    what = f"against transformers' generate, built-in model, {len(prompts)} cases of all suites"
    results = [_against(engine, rows, sorted(engine.stops), budget, what, 1.5)]
    recipes = [Recipe(scheme=name, method="rtn") for name in ("W4A16", "W8A16", "W8A8")]
    with tempfile.TemporaryDirectory() as folder:
        variants = [open_engine(model, made) for made in sweep(model, None, recipes, folder)]
    times = fastest(*(partial(one.generate, prompts) for one in (engine, *variants)))
    for recipe, seconds in zip(recipes, times[1:], strict=True):
        results.append(_ratio(f"{recipe.scheme} answers the same cases, time over BF16's", seconds / times[0], 1.25))
    return results


def _kernels(side: int = 4096) -> list[Result]:
    """One matrix of ``side`` x ``side``: one token (memory bound) and 512 (compute bound)."""
    weight = torch.randn(side, side, generator=torch.Generator().manual_seed(0)) / side**0.5
    plain = nn.Linear(side, side, bias=False, dtype=torch.bfloat16)
    results = []
    with torch.inference_mode():
        for label in ("W4A16", "W8A16", "W8A8"):
            layer = _low_bit(label, weight)
            for rows, target in ((1, 1.0), (512, 1.5)):
                x = torch.randn(rows, side).bfloat16()
                base, own = fastest(partial(plain, x), partial(layer, x))
                what = f"{label} {side} x {side}, {rows} row{'s' * (rows > 1)}, time over BF16's"
                results.append(_ratio(what, own / base, target))
    return results


def _low_bit(label: str, weight: torch.Tensor) -> Any:
    chosen = scheme(label)
    assert chosen.weights is not None  # every scheme above has a weight format
    scales, zeros = scales_for(weight, chosen.weights)
    codes = encode(weight, chosen.weights, scales, zeros)
    layer = StoredLinear("layer", codes, scales, zeros, chosen.weights, chosen.activations)
    return build(layer, torch.bfloat16, torch.device("cpu"), "auto")[0]


def _ratio(what: str, measured: float, target: float) -> Result:
    return Result(what, f"{measured:.2f}x", f"at most {target:g}x", measured <= target)
