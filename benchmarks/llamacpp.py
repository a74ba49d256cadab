"""Speed in llama.cpp of one model in BF16, Q8_0 and Q4_K_M, beside what the memory's bandwidth allows.

    python -m benchmarks llamacpp [--quick] [--write]

One sequence is decoded token by token, so every matrix is read once a token: tokens a second are at most bandwidth over
bytes, and a smaller file is as many times as fast as it has fewer bytes. The three take turns, and ratios are taken
within a turn. Other programs would slow what computes most, so turns are taken until enough of them had the processor
to themselves; which those are, the process's share of its threads' time decides, and no speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from benchmarks.bandwidth import Bandwidth, bandwidth
from benchmarks.peers.inputs import Shape
from benchmarks.peers.machine import machine
from benchmarks.tables import Table
from quantgate.quantize.gguf import GgufFile, layout_of, make_gguf, open_gguf, types_of
from quantgate.quantize.gguf.presets import EMBEDDINGS, OUTPUT

if TYPE_CHECKING:
    from quantgate.engines._llama import LlamaContext

CACHE = Path(__file__).parents[1] / ".bench" / "llamacpp"
PLAIN, FOUR_BIT = "BF16", "Q4_K_M"
TYPES = (PLAIN, "Q8_0", FOUR_BIT)
LEAST, SHARE = 2.5, 0.8  # goals: times as fast as BF16, and fraction of the ratio of bytes
QUIET, PATIENCE = 0.9, 6  # the share of its threads' time that a turn must get, and how many turns are tried for one
MADE = "made.txt"  # beside the files, once all are whole
COLUMNS = (
    "type", "MB a token", "decode, tokens/s", "of what bandwidth allows", "over BF16", "bytes allow", "share of it",
    "goal", "", "prefill, tokens/s", "over BF16",
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    shape: Shape
    prompt: int  # tokens read at once
    answer: int  # tokens decoded one by one
    turns: int
    buffer: int  # bytes whose reading is timed

    @property
    def length(self) -> int:
        return self.prompt + self.answer


FULL = Sizes(  # 351 M parameters, 0.7 GB in BF16
    Shape(hidden=1536, layers=12, feed_forward=4096, heads=12, kv_heads=4, vocabulary=32000), 256, 48, 9, 1 << 30
)
QUICK = Sizes(Shape(hidden=256, layers=2, feed_forward=512, heads=4, kv_heads=2, vocabulary=300), 32, 8, 3, 1 << 26)


@dataclass(frozen=True)
class Pace:
    """One type in one turn, in tokens a second."""

    prefill: float
    decode: float
    share: float = 1.0  # of its threads' time that the process got; other programs lower it


Turn = dict[str, Pace]  # by type


def run(
    *, quick: bool = False, threads: int = 2, cache: Path = CACHE, say: Callable[[str], None] = print
) -> list[Table]:
    """One table; without llama-cpp-python a line that says so, and none."""
    missing = [name for name in ("llama_cpp", "gguf") if find_spec(name) is None]
    if missing:
        say(f"llamacpp: {missing[0]} is not installed; left out (pip install 'quantgate[gguf]')")
        return []
    from quantgate.engines._llama import system

    torch.set_num_threads(threads)
    sizes = QUICK if quick else FULL
    files = files_of(sizes.shape, cache, threads, say)
    before = bandwidth(sizes.buffer)
    taken = measure({name: file.path for name, file in files.items()}, sizes, threads, say)
    after = bandwidth(sizes.buffer)
    reached = Bandwidth(max(before.read, after.read), max(before.copy, after.copy))
    moved = {name: moved_bytes(file, sizes) for name, file in files.items()}
    turns = quietest(taken, sizes.turns)
    notes = (about(sizes, reached, files), disturbed(turns, taken), kernels(system()), machine(threads))
    return [Table(COLUMNS, rows_of(turns, moved, reached.read), "Speed in llama.cpp, random weights", notes)]


def files_of(shape: Shape, cache: Path, threads: int, say: Callable[[str], None]) -> dict[str, GgufFile]:
    """The model in every type, written once. Values do not matter for speed, so llama.cpp's quantizer rounds them."""
    from benchmarks.gguf.quantizer import quantize

    model = shape.saved(cache)
    paths = {name: model.path / f"{name}.gguf" for name in TYPES}
    stamp, told = model.path / MADE, " ".join(TYPES)
    if not stamp.is_file() or stamp.read_text("utf-8") != told:
        say(f"llamacpp: writing {model.parameters / 1e6:.0f} M parameters as {', '.join(TYPES)}")
        layout = layout_of(model)
        make_gguf(model, paths[PLAIN], PLAIN)
        for name in TYPES[1:]:
            quantize(paths[PLAIN], paths[name], types_of(name, layout.shapes, layout.shape), threads=threads)
        stamp.write_text(told, "utf-8")
    return {name: open_gguf(path) for name, path in paths.items()}


def measure(paths: Mapping[str, Path], sizes: Sizes, threads: int, say: Callable[[str], None] = print) -> list[Turn]:
    """Turns of all types, behind one that warms up, until enough were quiet or PATIENCE ends."""
    from quantgate.engines._llama import LlamaContext, LlamaModel

    contexts = {
        name: LlamaContext(LlamaModel(path), 1, sizes.length, "f16", "f16", threads) for name, path in paths.items()
    }
    ids = torch.randint(0, 256, (sizes.length,), generator=torch.Generator().manual_seed(0)).tolist()
    taken: list[Turn] = []
    for at in range(PATIENCE * sizes.turns + 1):
        turn = {name: _pace(context, ids, sizes.prompt, threads) for name, context in contexts.items()}
        if at:
            taken.append(turn)
            say(f"  turn {at}: {least_share(turn):.0%} of the threads' time")
        if sum(least_share(one) >= QUIET for one in taken) == sizes.turns:
            break
    return taken


def _pace(context: LlamaContext, ids: Sequence[int], prompt: int, threads: int) -> Pace:
    context.clear()
    spent, began = time.process_time(), time.perf_counter()
    context.decode([(token, at, 0, at == prompt - 1) for at, token in enumerate(ids[:prompt])])
    read = time.perf_counter()
    for at, token in enumerate(ids[prompt:], start=prompt):
        context.decode([(token, at, 0, True)])
    done = time.perf_counter()
    share = (time.process_time() - spent) / (done - began) / threads
    return Pace(prompt / (read - began), (len(ids) - prompt) / (done - read), share)


def least_share(turn: Turn) -> float:
    return min(one.share for one in turn.values())


def quietest(taken: Sequence[Turn], count: int) -> list[Turn]:
    """The ``count`` turns that other programs disturbed least, in the order they were taken."""
    order = sorted(range(len(taken)), key=lambda at: -least_share(taken[at]))
    return [taken[at] for at in sorted(order[:count])]


def disturbed(turns: Sequence[Turn], taken: Sequence[Turn]) -> str:
    least = min(map(least_share, turns))
    quiet = (
        "" if least >= QUIET else "; other programs ran beside it, so 4 bits, which compute more, do worse than alone"
    )
    return (
        f"{len(turns)} of {len(taken)} turns, in which the process got {least:.0%} of its threads' time or more{quiet}."
    )


def moved_bytes(file: GgufFile, sizes: Sizes) -> float:
    """What decoding one token reads: every tensor once, of a table that is only looked up one row, and the cached keys
    and values in float16, at the answer's middle."""
    whole = sum(one.size for one in file.tensors.values())
    if OUTPUT in file.tensors:
        table = file.tensors[EMBEDDINGS]
        whole -= table.size - table.size // table.shape[0]
    shape = sizes.shape
    width = shape.hidden // shape.heads * shape.kv_heads
    return whole + 2 * 2 * shape.layers * width * (sizes.prompt + sizes.answer / 2)


def rows_of(turns: Sequence[Turn], moved: Mapping[str, float], read: float) -> tuple[tuple[str, ...], ...]:
    """``read``: bytes a second that the memory gives. Ratios are medians of those within a turn."""
    rows = []
    for name in turns[0]:
        decode, prefill = [one[name].decode for one in turns], [one[name].prefill for one in turns]
        cells = [name, f"{moved[name] / 1e6:.1f}", _spread(decode), f"{median(decode) * moved[name] / read:.0%}"]
        if name == PLAIN:
            rows.append((*cells, "", "", "", "", "", _spread(prefill), ""))
            continue
        faster = [one[name].decode / one[PLAIN].decode for one in turns]
        sooner = [one[name].prefill / one[PLAIN].prefill for one in turns]
        allowed = moved[PLAIN] / moved[name]
        share = median(faster) / allowed
        goal = f"at least {LEAST:g}x and {SHARE:.0%}" if name == FOUR_BIT else ""
        met = median(faster) >= LEAST and share >= SHARE
        verdict = ("met" if met else "missed") if goal else ""
        ratios = (_spread(faster, "x"), f"{allowed:.2f}x", f"{share:.0%}", goal, verdict)
        rows.append((*cells, *ratios, _spread(prefill), _spread(sooner, "x")))
    return tuple(rows)


def _spread(values: Sequence[float], unit: str = "") -> str:
    """The median, and from the least to the greatest."""
    digits = 2 if unit else 1
    value, low, high = (f"{one:.{digits}f}{unit}" for one in (median(values), min(values), max(values)))
    return f"{value} ({low} to {high})"


def about(sizes: Sizes, reached: Bandwidth, files: Mapping[str, GgufFile]) -> str:
    weights = sum(one.weights for one in files[PLAIN].tensors.values())
    shape, gib = sizes.shape, sizes.buffer / 2**30
    return (
        f"{weights / 1e6:.0f} M parameters ({shape.layers} blocks, hidden {shape.hidden}, {shape.vocabulary} tokens, "
        f"tied), one sequence: {sizes.prompt} tokens read at once, {sizes.answer} one by one; medians of "
        f"{sizes.turns} turns, in brackets the least and the greatest. A token reads every tensor once, and "
        f"keys and values in float16. Memory gives {reached.read / 1e9:.1f} GB/s read (a sum of {gib:.2g} GiB in "
        f"float32) and {reached.copy / 1e9:.1f} GB/s copied, bytes counted both ways."
    )


def kernels(features: Mapping[str, str]) -> str:
    """Which instruction sets ran, and what they mean for the ratio over BF16."""
    sets = [key for key in features if key.startswith(("AVX", "AMX", "NEON", "SVE", "MATMUL", "DOTPROD"))]
    if "AVX512_BF16" in sets:
        meaning = "BF16 has instructions of its own, so that arithmetic does not hold it back and the ratio is fair"
    elif "AVX2" in sets:
        meaning = "BF16 is widened to float32 number by number, which slows it down and flatters the ratio"
    else:
        meaning = "llama.cpp does not say how it multiplies BF16 here, so the ratio may flatter"
    return f"llama-cpp-python {features['llama-cpp-python']}, {', '.join(sets) or 'no vector instructions'}: {meaning}."
