"""How much memory a sweep will hold at its worst moment, from shapes alone.

The walk goes through one block at a time, so the largest block decides, and in it one of five moments:

    load      weights in float32, beside the largest tensor as it is stored
    forward   H of every distinct input and the activations of one batch
    factor    GPTQ's float64 matrices of one input: the Hessian, its factor, the inverse
    solve     codes and running errors of all rows that read one input, for all variants together
    finish    one layer decoded, compared with what it was, and packed

Throughout there are the process itself, the hidden states of the whole calibration set, and in the last three what has
been packed so far. Sizes are in bytes; the numbers beside them count copies that the code of that moment makes.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantgate.models.tensors import PIECE
from quantgate.quantize.heap import LARGE
from quantgate.quantize.methods import SAMPLE
from quantgate.quantize.methods._scaling import ROWS, ScalingMethod
from quantgate.quantize.methods.gptq import BLOCK, STACK
from quantgate.quantize.workload import BlockShape, Group, Task, Workload

FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Footprint:
    """Bytes. ``process`` was held before the sweep began, the rest comes on top; ``moment`` is the worst one."""

    process: int
    hidden: int  # activations between two blocks, of all calibration tokens and streams
    weights: int  # of one block, float32
    statistics: int  # H of the block's distinct inputs that are still to be solved, and samples of them
    packed: int  # solved layers of the block, all variants
    working: int  # what the worst moment needs for itself
    moment: str

    @property
    def peak(self) -> int:
        return self.process + self.hidden + self.weights + self.statistics + self.packed + self.working


def footprint(work: Workload, process: int) -> Footprint:
    """The worst moment of the whole walk; ``process`` bytes are held before it begins."""
    beside = 1 + len(work.streams) + bool(work.streams)  # streams of their own; what the model gave the block before
    hidden = FLOAT * work.tokens.padded * work.hidden * beside
    rows = FLOAT * (work.rows * work.hidden + work.around)
    found = [
        Footprint(process, 0, 0, 0, 0, 3 * min(PIECE, work.largest), "check"),
        Footprint(process, hidden, 0, 0, 0, rows + FLOAT * work.tokens.batch * work.hidden, "embed"),
    ]
    for block in work.blocks:
        found += _block(work, block, process, hidden)
    return max(found, key=lambda one: one.peak)


def _block(work: Workload, block: BlockShape, process: int, hidden: int) -> list[Footprint]:
    calibrated = work.tokens.real > 0
    copies = 1 + len(work.streams) + work.rotated  # the block as a stream or a rotation has it
    weights = FLOAT * block.weights * copies
    kept = {at: _statistics(work, group) if calibrated else 0 for at, group in enumerate(block.groups)}
    drifts = 1 + len(work.streams) + sum(stream.corrected for stream in work.streams)
    kept = {at: size * drifts for at, size in kept.items()}
    held = sum(kept.values())
    found = [Footprint(process, hidden, weights, 0, 0, block.largest + 2 * min(PIECE, block.largest), "load")]
    if calibrated:
        found.append(Footprint(process, hidden, weights, held, 0, _activations(work, block), "forward"))
    packed = 0
    for at, group in enumerate(block.groups):
        for moment, working in _solve(group, calibrated).items():
            found.append(Footprint(process, hidden, weights, held, packed, working, moment))
        held -= kept[at]
        packed += sum(task.stored for task in group.tasks)
    return found


def _statistics(work: Workload, group: Group) -> int:
    return FLOAT * (group.columns**2 + min(SAMPLE, work.tokens.real) * group.columns)


def _activations(work: Workload, block: BlockShape) -> int:
    """One batch inside a block: attention with its rotated copies, or the three inner matrices of an MLP."""
    tokens, inner = work.tokens.batch, 0.0
    for group in block.groups:
        if group.columns != work.hidden:  # what a down projection reads: made of two others, and looked at by |x|
            inner = max(inner, 4.0 * group.columns * min(1.0, 2 * group.share))
    fused = max((sum(group.outs) for group in block.groups[:1]), default=0)
    widest = max(3 * work.hidden + inner, 2.0 * fused + 4 * work.hidden)
    return int(FLOAT * tokens * widest)


def _solve(group: Group, calibrated: bool) -> dict[str, int]:
    """Bytes beyond the statistics at each moment of solving one group.

    Variants with channel scales go one after the other, each with weights and statistics of its own; the others of one
    method go together, those that differ in their container alone only once.
    """
    found: dict[str, int] = {"solve": 0}
    square, largest = FLOAT * group.columns**2, group.columns * max(group.outs)
    by_method: dict[str, dict[str, Task]] = {}
    for task in group.tasks:
        key = repr((task.variant.grid, task.variant.options))
        by_method.setdefault(task.variant.method_name, {}).setdefault(key, task)
    for name, tasks in by_method.items():
        own = 0
        if isinstance(next(iter(tasks.values())).variant.method, ScalingMethod):
            tasks = dict(list(tasks.items())[:1])
            own = FLOAT * group.columns * sum(group.outs) + 2 * square
            shown = min(ROWS, max(group.outs)) * group.columns
            _most(found, "finish", FLOAT * (6 * shown + group.columns * sum(group.outs)))
        codes = group.columns * sum(sum(task.outs) for task in tasks.values())  # int8
        copies = (10 if name == "hqq" else 4) * FLOAT * largest + min(LARGE, largest)
        _most(found, "finish", own + codes + copies)
        if name == "gptq" and calibrated:
            stack = min(STACK, codes)
            moving = FLOAT * stack + max(FLOAT * largest, 6 * FLOAT * BLOCK * (stack // group.columns))
            _most(found, "factor", 5 * square)  # two float64 matrices and the float32 result
            _most(found, "solve", square + codes + moving)
            _most(found, "finish", square + codes + stack + copies)
    return found


def _most(found: dict[str, int], moment: str, working: int) -> None:
    found[moment] = max(found.get(moment, 0), working)
