"""Time: one variant and ten of ours, and one of llm-compressor, on a Llama with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.children import Bench, Made
from benchmarks.peers.inputs import Shape
from benchmarks.peers.tools.contract import Job
from benchmarks.tables import Table

ONE = Job("W4-g128", 4, 128, method="gptq")
TEN = (
    ONE,
    Job("W4-g64", 4, 64, method="gptq"),
    Job("W4-g32", 4, 32, method="gptq"),
    Job("W4-g128-asym", 4, 128, symmetric=False, method="gptq"),
    Job("W4-g32-asym", 4, 32, symmetric=False, method="gptq"),
    Job("W3-g128", 3, 128, method="gptq"),
    Job("W3-g64", 3, 64, method="gptq"),
    Job("W3-g32", 3, 32, method="gptq"),
    Job("W2-g32", 2, 32, method="gptq"),
    Job("W8A8", 8, None, inputs8=True, method="gptq"),
)
COLUMNS = ("what", "seconds", "CPU seconds", "whole process", "peak memory", "ratio", "goal", "")


@dataclass(frozen=True)
class SpeedSizes:
    shape: Shape
    rows: int
    length: int


FULL = SpeedSizes(  # 75 M weights in its blocks, 25 M in the embeddings; 64 thousand calibration tokens
    Shape(hidden=768, layers=12, feed_forward=2048, heads=12, kv_heads=4, vocabulary=32000), 128, 512
)
QUICK = SpeedSizes(Shape(hidden=128, layers=2, feed_forward=256, heads=4, kv_heads=2, vocabulary=300), 8, 64)


def compare(bench: Bench, sizes: SpeedSizes) -> Table:
    model = sizes.shape.saved(bench.cache)
    ids = sizes.shape.ids(bench.cache, sizes.rows, sizes.length)
    place = f"{sizes.shape.name}-{sizes.rows}x{sizes.length}"
    one = bench.run("quantgate", model.path, ids, [ONE], f"{place}-one")[ONE.name]
    ten = bench.run("quantgate", model.path, ids, TEN, f"{place}-ten")[ONE.name]
    peer = bench.run("llmcompressor", model.path, ids, [ONE], f"{place}-one")[ONE.name]
    about = (
        f"{model.parameters / 1e6:.0f} M parameters ({sizes.shape.layers} blocks, hidden {sizes.shape.hidden}), "
        f"{sizes.rows} rows of {sizes.length} tokens, bfloat16, {bench.threads} threads. Seconds count from opening "
        "the model to the saved artifact, imports left out; the whole process counts them. Ten runs of llm-compressor "
        "are extrapolated: ten times the one measured."
    )
    return Table(COLUMNS, tuple(rows_of(one, ten, peer)), "Time, random weights", (about,))


def rows_of(one: Made, ten: Made, peer: Made) -> list[tuple[str, ...]]:
    sharing = _ratio(ten, one)
    faster = _ratio(peer, one)
    tenfold = None if (found := _ratio(peer, ten)) is None else 10 * found
    return [
        ("quantgate, one GPTQ variant (W4 g128)", *_cost(one), *_goal(faster, 2.0, least=True, of="llm-compressor's")),
        (
            "quantgate, ten GPTQ variants in one sweep",
            *_cost(ten),
            *_goal(sharing, 1.5, least=False, of="one variant's"),
        ),
        ("the same ten", *("",) * 4, *_goal(tenfold, 10.0, least=True, of="ten llm-compressor runs (extrapolated)")),
        ("llm-compressor, GPTQ W4 g128", *_cost(peer), "", "", ""),
    ]


def _ratio(made: Made, other: Made) -> float | None:
    return None if made.failed or other.failed else made.seconds / other.seconds


def _goal(ratio: float | None, goal: float, *, least: bool, of: str) -> tuple[str, str, str]:
    """``least``: the ratio says how many times as fast, and should be large; else how many times as long."""
    told = f"at least {goal:g}x as fast" if least else f"at most {goal:g}x"
    if ratio is None:
        return "", told, ""
    met = ratio >= goal if least else ratio <= goal
    return f"{ratio:.2f}x {'as fast as' if least else 'the time of'} {of}", told, "met" if met else "missed"


def _cost(made: Made) -> tuple[str, str, str, str]:
    if made.failed:
        return f"none: {made.failed}", "", "", ""
    whole = f"{made.process_s:.1f} s"
    return f"{made.seconds:.1f}", f"{made.cpu_s:.1f}", whole, f"{made.peak_bytes / 2**20:.0f} MiB"
