"""Quantization-aware training beside torchao's: KL on conversations that neither side learned from, and time a step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.peers.children import OFFLINE, ROOT, Bench
from benchmarks.peers.environments import Unavailable, python_of
from benchmarks.tables import Table
from benchmarks.train_step import interval

COLUMNS = ("scheme", "side", "learning rate", "KL, held out", "KL before", "a step", "over a plain step", "goal", "")
LIMIT_S = 3 * 3600


@dataclass(frozen=True)
class Sizes:
    """See ``Plan`` in tools/torchao_qat.py."""

    schemes: tuple[str, ...] = ("W4A16-g128", "W4A8-g32")
    rates: tuple[float, ...] = (3e-4, 1e-3)
    steps: int = 80
    batch_tokens: int = 2048
    documents: int = 2000
    held: int = 200
    tune: int = 96
    rounds: int = 11


QUICK = Sizes(("W4A16-g32",), (3e-4,), 4, 1024, 60, 16, 16, 3)


def compare(bench: Bench, sizes: Sizes) -> Table:
    """One process of torchao's environment, which has the torch that we have, trains both."""
    folder = bench.folder("torchao", "qat")
    folder.mkdir(parents=True, exist_ok=True)
    work, result = folder / "work.json", folder / "result.json"
    plan = {**asdict(sizes), "folder": str(folder / "runs"), "threads": bench.threads}
    work.write_text(json.dumps(plan), "utf-8")
    result.unlink(missing_ok=True)
    if bench.fresh:
        shutil.rmtree(folder / "runs", ignore_errors=True)
    try:
        python = python_of("torchao", bench.venvs or bench.cache)
    except Unavailable as problem:
        return Table(("torchao",), ((str(problem),),), "QAT beside torchao")
    command = [str(python), "-m", "benchmarks.peers.tools.torchao_qat", str(work), str(result)]
    env = {**os.environ, **OFFLINE, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "CUDA_VISIBLE_DEVICES": ""}
    with (folder / "log.txt").open("wb") as log:
        done = subprocess.run(
            command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LIMIT_S
        )
    found: dict[str, Any] = json.loads(result.read_bytes()) if result.is_file() else {"versions": {}, "schemes": {}}
    bench.versions.append(found["versions"])
    rows = tuple(row for scheme, told in found["schemes"].items() for row in rows_of(scheme, told, sizes.rates))
    ended = [f"The process ended with {done.returncode}; its log is {folder.name}/log.txt."] if done.returncode else []
    return Table(COLUMNS, rows, "Quantization-aware training beside torchao's", (_about(sizes), *ended))


def rows_of(scheme: str, told: dict[str, Any], rates: tuple[float, ...]) -> list[tuple[str, ...]]:
    """Each side's best learning rate by its own tune split; goals stand in our row."""
    best = {
        side: min(zip(rates, tried, strict=True), key=lambda one: float(one[1][0]))
        for side, tried in told["kl"].items()
    }
    seconds, plain = told["steps"], told["steps"]["plain"]
    kl = {side: float(one[1][1]) for side, one in best.items()}
    quicker = sorted(mine / theirs for mine, theirs in zip(seconds["quantgate"], seconds["torchao"], strict=True))
    low, high = interval(quicker)
    rows = list[tuple[str, ...]]()
    for side in ("torchao", "quantgate"):
        over = median(one / other for one, other in zip(seconds[side], plain, strict=True))
        before = told["before"].get(side)
        goals, met = "", ""
        if side == "quantgate":
            lost, slower = kl[side] / kl["torchao"], median(quicker)
            goals = f"KL {lost:.2f}x of torchao's, a step {slower:.2f}x ({low:.2f} to {high:.2f}), both at most 1x"
            met = "met" if lost <= 1 and slower <= 1 else "missed"
        cells = (f"{best[side][0]:g}", f"{kl[side]:.4f}", "" if before is None else f"{before:.4f}")
        rows.append((scheme, side, *cells, f"{median(seconds[side]):.3f} s", f"{over:.2f}x", goals, met))
    return rows


def _about(sizes: Sizes) -> str:
    rates = ", ".join(f"{rate:g}" for rate in sizes.rates)
    return (
        f"The built-in model, float32, {sizes.steps} steps of {sizes.batch_tokens} tokens of {sizes.documents} "
        f"conversations of the suites' train split; the same batches, teacher, loss (KL, a tenth of cross entropy), "
        f"AdamW, cosine and loop on both sides, the best state on {sizes.tune} tune conversations, the best of the "
        f"learning rates {rates}. Judged as it will run (torchao's converted model, our artifact): KL in nats an "
        f"answer's token over the whole vocabulary, {sizes.held} conversations that neither trained nor chose. Before: "
        "plain rounding by torchao, the GPTQ start of ours. Steps are taken in turns; a ratio is the median over the "
        "rounds, with its 95% interval."
    )
