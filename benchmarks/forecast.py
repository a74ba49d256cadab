"""What ``quantize --dry-run`` foretells against what a sweep then takes: peak memory (VmHWM) and time.

Every row is two processes of their own: one that only foretells, one that only sweeps. ``python -m benchmarks.forecast
'{"foretell": true, ...}'`` is one of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.result import Result
from quantgate.models import REFERENCE, open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, machine
from quantgate.quantize.forecast import forecast
from quantgate.quantize.sweep import sweep

ONE = ({"scheme": "W4A16"},)
TEN = (
    *ONE, {"scheme": "W4A16", "group_size": 64}, {"scheme": "W4A16", "group_size": 32},
    {"scheme": "W3A16", "group_size": 64}, {"scheme": "W2A16", "group_size": 32}, {"scheme": "W8A16"},
    {"scheme": "W8A8"}, {"scheme": "FP8_DYNAMIC"}, {"scheme": "W4A16", "method": "awq"},
    {"scheme": "W4A16", "method": "hqq"},
)  # fmt: skip
NARROW = {"hidden": 512, "feed_forward": 1536, "heads": 8, "kv_heads": 4}
MODELS: dict[str, dict[str, Any] | None] = {
    "built-in": None,
    "hidden 512, 8 layers": NARROW | {"layers": 8},
    "hidden 512, 32 layers": NARROW | {"layers": 32},
    "8 experts, hidden 512, 2 layers": NARROW
    | {"layers": 2, "feed_forward": 1024, "kind": "mixtral", "num_local_experts": 8},
    "hidden 2048, 2 layers": {"hidden": 2048, "feed_forward": 5632, "heads": 16, "kv_heads": 8, "layers": 2},
}
ROWS = (  # model, variants, samples of 256 tokens
    ("built-in", ONE, 16),
    ("built-in", TEN, 64),
    ("hidden 512, 8 layers", ONE, 16),
    ("hidden 512, 32 layers", ONE, 16),
    ("hidden 512, 8 layers", TEN, 16),
    ("hidden 512, 8 layers", ONE, 128),
    ("8 experts, hidden 512, 2 layers", ONE, 16),
    ("hidden 2048, 2 layers", ONE, 16),
)
TOKENS = 256


def run() -> list[Result]:
    results, depths = list[Result](), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        for name, recipes, samples in ROWS:
            shape, path = MODELS[name], Path(folder) / name.replace(" ", "-")
            if shape is not None and not path.exists():
                save_random(path, **shape)
            ref = REFERENCE if shape is None else str(path)
            asked = {"model": ref, "recipes": list(recipes), "samples": samples}
            told, took = _child(asked | {"foretell": True}), _child(asked | {"foretell": False})
            what = f"{name}, {len(recipes)} variant{'s' * (len(recipes) > 1)}, {samples * TOKENS:,} tokens"
            off = told["peak"] / took["peak"] - 1
            depths |= {name: took["peak"]} if recipes is ONE and samples == 16 else {}
            memory = (
                f"{told['peak'] / 1e6:.0f} MB foretold ({told['moment']}), {took['peak'] / 1e6:.0f} MB ({off:+.0%})"
            )
            results.append(Result(f"peak memory, {what}", memory, "within 20 %", abs(off) <= 0.2))
            inside = told["low"] <= took["seconds"] <= told["high"]
            seconds = (
                f"{told['seconds']:.1f} s ({told['low']:.1f} to {told['high']:.1f}) foretold, {took['seconds']:.1f} s"
            )
            results.append(Result(f"time, {what}", seconds, "in the range", inside))
    ratio = depths["hidden 512, 32 layers"] / depths["hidden 512, 8 layers"]
    results.append(Result("peak memory of 32 layers over that of 8", f"{ratio:.2f}x", "at most 1.1x", ratio <= 1.1))
    return results


def _child(asked: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.forecast", json.dumps(asked)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    import torch

    model = open_model(asked["model"])
    draw = torch.Generator().manual_seed(0)
    samples = torch.randint(0, 255, (asked["samples"], TOKENS), generator=draw).tolist()
    recipes = [Recipe(**one) for one in asked["recipes"]]
    if asked["foretell"]:
        told = forecast(model, recipes, samples)
        time_ = told.time
        return {
            "peak": told.memory.peak, "moment": told.memory.moment,
            "seconds": time_.seconds, "low": time_.low, "high": time_.high, "parts": [vars(told.memory), vars(time_)],
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        sweep(model, samples, recipes, folder)
        return {"peak": machine.peak(), "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(_answer(json.loads(sys.argv[1]))))
