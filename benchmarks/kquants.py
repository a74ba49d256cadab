"""k-quants against llama.cpp's quantizer: errors on layers of the built-in model, time on a random matrix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks._ggml import Ggml
from benchmarks.result import Result
from quantgate.calibrate import choose
from quantgate.formats import BlockGrid
from quantgate.formats.codec import decode, encode
from quantgate.formats.ggml import FORMATS, BlockFormat, Name
from quantgate.formats.ggml.pack import pack, unpack
from quantgate.models import open_model
from quantgate.pipeline.cases import suite_conversations
from quantgate.quantize.methods import Job, LayerStats, get, solve
from quantgate.quantize.methods._blocks import choose_blocks
from quantgate.quantize.methods._scales import column_importance
from quantgate.quantize.statistics import Statistics, batches

NAMES: tuple[Name, ...] = ("Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")
SAMPLES = 64  # conversations
SIDE = 4096


@dataclass(frozen=True)
class Layer:
    weight: Tensor  # [out, in]
    stats: LayerStats  # of the calibration set
    unseen: Tensor  # [in, in] H of other conversations


def run() -> list[Result]:
    """Five formats; ratios over llama.cpp with the same importance, the geometric mean over the layers."""
    peer = Ggml()
    layers = _layers()
    results = [row for name in NAMES for row in _errors(peer, layers, name)]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(SIDE, SIDE, generator=generator) * 0.02
    importance = torch.rand(SIDE, generator=generator) ** 4 + 0.01
    return [*results, *(_time(peer, weight, importance, FORMATS[name]) for name in NAMES)]


def _errors(peer: Ggml, layers: list[Layer], name: Name) -> list[Result]:
    layout, grid = FORMATS[name], BlockGrid(name=name)
    ways: dict[str, list[tuple[float, float, float]]] = {"without importance": [], "search": [], "feedback": []}
    for layer in layers:
        weight, stats = layer.weight, layer.stats
        importance = column_importance(stats)
        header = choose_blocks(weight, layout, importance)
        stored = {
            "without importance": _read(peer.quantize(weight, layout), layout),
            "search": decode(encode(weight, grid, header), grid, header),
            "feedback": solve(get("gptq"), Job(weight, grid), stats).weight(),
        }
        base = _losses(layer, _read(peer.quantize(weight, layout, importance), layout), importance)
        for way, one in stored.items():
            mine = _losses(layer, one, importance)
            ways[way].append((mine[0] / base[0], mine[1] / base[1], mine[2] / base[2]))
    told = {way: [_mean(side) for side in zip(*found, strict=True)] for way, found in ways.items()}
    worst = max(one[0] for one in ways["search"])
    plain, search, feedback = told["without importance"], told["search"], told["feedback"]
    return [
        Result(f"{name}: searched scales, weighted error over llama.cpp's with importance",
               f"{search[0]:.3f}x (worst layer {worst:.3f}x)", "below 1x, every layer", worst < 1),
        Result(f"{name}: tr(dW H dW^T), calibration and other texts: llama.cpp without importance",
               f"{plain[1]:.3f}x, {plain[2]:.3f}x"),
        Result(f"{name}: the same, searched scales", f"{search[1]:.3f}x, {search[2]:.3f}x", "below 1x", search[2] < 1),
        Result(f"{name}: the same, gptq on them", f"{feedback[1]:.3f}x, {feedback[2]:.3f}x", "at most 0.35x",
               feedback[2] <= 0.35),
    ]  # fmt: skip


def _losses(layer: Layer, stored: Tensor, importance: Tensor) -> tuple[float, float, float]:
    """Weighted by ``importance``, by H, and by H of other texts."""
    change = stored - layer.weight
    return (
        float((change.square() * importance).sum()),
        float((change @ layer.stats.hessian).mul_(change).sum()),
        float((change @ layer.unseen).mul_(change).sum()),
    )


def _read(rows: Tensor, layout: BlockFormat) -> Tensor:
    codes, header = unpack(rows, layout)
    return decode(codes, BlockGrid(name=layout.name), header)


def _mean(ratios: tuple[float, ...]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def _time(peer: Ggml, weight: Tensor, importance: Tensor, layout: BlockFormat) -> Result:
    """Both on one core, from weights to a file's bytes."""

    def ours() -> None:
        header = choose_blocks(weight, layout, importance)
        pack(encode(weight, BlockGrid(name=layout.name), header), header, layout)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    mine, theirs = _seconds(ours), _seconds(lambda: peer.quantize(weight, layout, importance))
    torch.set_num_threads(threads)
    what = f"{layout.name}: {SIDE} x {SIDE} to bytes on one core, searched scales, processor time over llama.cpp's"
    return Result(what, f"{mine / theirs:.2f}x ({mine:.1f} s, {theirs:.1f} s)", "at most 3x", mine <= 3 * theirs)


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _layers() -> list[Layer]:
    """All linear layers of the built-in model's first and last block."""
    model = open_model("quantgate/reference")
    blocks = (0, model.depth - 1)
    seen, unseen = _statistics(0, blocks), _statistics(1, blocks)
    found = []
    for index in blocks:
        with model.block(index, torch.device("cpu")) as block:
            for group in model.linears(index):
                other = unseen[group[0]].hessian
                for layer in group:
                    weight = block.linear(layer).weight.detach().float().clone()
                    found.append(Layer(weight, seen[group[0]], other))
    return found


@torch.no_grad()
def _statistics(seed: int, blocks: tuple[int, ...]) -> dict[str, LayerStats]:
    """Of every input in some blocks, over conversations of the calibrate split."""
    model = open_model("quantgate/reference")
    turns = suite_conversations(SAMPLES, seed)
    chosen = choose(model, turns, source="suites' calibrate split", samples=SAMPLES, max_tokens=512, seed=seed)
    cut = batches(chosen.ids, int(model.config.vocab_size), model.context, 4096)
    hidden = model.embed([batch.ids for batch in cut])
    found: dict[str, LayerStats] = {}
    for index in range(max(blocks) + 1):
        with model.block(index, torch.device("cpu")) as block:
            groups = model.linears(index) if index in blocks else []
            statistics = Statistics(block, groups)
            hidden = [statistics.forward(one, batch) for one, batch in zip(hidden, cut, strict=True)]
            statistics.close()
            found |= {group[0]: statistics.take(group[0]) for group in groups}
    return found
