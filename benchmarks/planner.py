"""The planner against reality: memory and decoded tokens a second, foretold and measured, in torch and in llama.cpp.

    python -m benchmarks planner [--threads 1] [--quick] [--write]

Every row is a process of its own, which opens one variant, reads a prompt and decodes an answer, one sequence. What the
machine moves and multiplies is measured in the same process just before and after, so that other programs disturb both
sides alike; ``_planned`` is such a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks._planned import ANSWER, PROMPT, made
from benchmarks.peers.inputs import Shape
from benchmarks.peers.machine import machine
from benchmarks.tables import Table
from quantgate.hardware import Load, Profile, roofline, runtime, support
from quantgate.models import REFERENCE, REFERENCE_FOLDER, open_model
from quantgate.quantize import Recipe
from quantgate.quantize.serving import serve

CACHE = Path(__file__).parents[1] / ".bench" / "planner"
FULL = Shape(hidden=1024, layers=24, feed_forward=2816, heads=16, kv_heads=8, vocabulary=32000)  # 316 M parameters
QUICK = Shape(hidden=256, layers=2, feed_forward=512, heads=4, kv_heads=2, vocabulary=300)
SCHEMES = {"torch": ("BF16", "W8A16", "W4A16"), "llama.cpp": ("BF16", "Q8_0", "Q4_K_M")}
WITHIN, FACTOR = 0.1, 1.5  # goals: of memory, of tokens a second
COLUMNS = (
    "model", "engine", "variant", "memory, MB foretold", "taken", "off", "goal", "",
    "decode, tokens/s foretold", "measured", "factor", "bound by", "goal", "",
)  # fmt: skip


def run(
    *, quick: bool = False, threads: int = 2, cache: Path = CACHE, say: Callable[[str], None] = print
) -> list[Table]:
    """One table; rows of llama.cpp are left out, saying so, where it is not installed."""
    shape = QUICK if quick else FULL
    models = {f"random Llama, {shape.saved(cache).parameters / 1e6:.0f} M": str(shape.saved(cache).path)}
    if (REFERENCE_FOLDER / "config.json").is_file():
        models = {"built-in": REFERENCE} | models
    rows, measured = [], list[Profile]()
    for name, ref in models.items():
        for engine, schemes in SCHEMES.items():
            if engine == "llama.cpp" and find_spec("llama_cpp") is None:
                say("planner: llama_cpp is not installed; its rows are left out (pip install 'quantgate[gguf]')")
                continue
            for scheme in schemes:
                asked = {"ref": ref, "engine": engine, "scheme": scheme, "threads": threads, "cache": str(cache)}
                if not made(asked):
                    _child(asked | {"make": True})
                found = _child(asked | {"make": False})
                device = Profile.model_validate(found["profile"])
                measured.append(device)
                rows.append(_row(name, ref, engine, scheme, found, device))
                say("  " + " | ".join(rows[-1]))
    slowest, fastest = min(one.bandwidth for one in measured), max(one.bandwidth for one in measured)
    note = (
        f"One sequence, {PROMPT} tokens read and {ANSWER} decoded; memory is the process's, once the allocator gave "
        f"back what it held in reserve. Memory gave {slowest / 1e9:.1f} to {fastest / 1e9:.1f} GB/s read, measured "
        "beside each row; other programs ran on the machine."
    )
    return [Table(COLUMNS, tuple(rows), "Planner against reality", (note, machine(threads)))]


def _row(name: str, ref: str, engine: str, scheme: str, found: dict[str, Any], device: Profile) -> tuple[str, ...]:
    variant = serve(open_model(ref), Recipe(scheme=scheme, method="" if scheme == "BF16" else "rtn"))
    ran = support(engine, variant.scheme, variant.container, device, variant.geometry)
    load = Load(prompt=PROMPT, answer=ANSWER, context=found["context"])
    told = roofline(variant.served(ran), device, ran, runtime(engine), load)
    memory = told.memory
    taken, foretold = found["memory"], memory.process + memory.weights + memory.cache + memory.activations
    off, pace = foretold / taken - 1, 1 / told.tpot_s
    factor = max(pace / found["decode"], found["decode"] / pace)
    return (
        name, engine, scheme, f"{foretold / 1e6:.1f}", f"{taken / 1e6:.1f}", f"{off:+.0%}", f"within {WITHIN:.0%}",
        "met" if abs(off) <= WITHIN else "missed", f"{pace:.1f}", f"{found['decode']:.1f}", f"{factor:.2f}",
        told.tpot_bound, f"within {FACTOR:g}x", "met" if factor <= FACTOR else "missed",
    )  # fmt: skip


def _child(asked: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._planned", json.dumps(asked)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"planner: {asked}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]
