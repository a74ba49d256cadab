"""How long a sweep will take: operations counted from shapes, over rates that were measured on this machine.

    check      every byte of the model hashed once, looked at once, and read once
    forward    2 operations a weight and token, attention besides
    statistics n^2 operations a token for each distinct input of n features (H is symmetric: half of 2 n^2)
    factor     4/3 n^3 in float64, Cholesky and a triangular inverse (Golub and Van Loan, 4.2.5 and 3.1.4), which small
               matrices do at a fraction of a product's rate
    scales     candidates of the clipping, each some elementwise passes over the weights
    solve      n^2 a row for GPTQ, 2 n^2 for each pass of descent, and elementwise steps column by column
    finish     2 n^2 a row for the error, elementwise passes for packing
    write      journal and artifact: each byte written twice and hashed three times

What no rate foresees (other programs, turbo clocks, caches) is told as a range: FACTOR times less or more.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from quantgate.quantize.machine import Rates
from quantgate.quantize.methods._scaling import ROWS, ScalingMethod
from quantgate.quantize.methods.gptq import BLOCK
from quantgate.quantize.methods.hqq import STARTS
from quantgate.quantize.workload import BlockShape, Group, Task, Workload

FACTOR = 2.0
ATTEMPTS = {"minmax": 1, "mse": 32, "hessian": 32}  # clippings that are tried
PASSES = 12  # elementwise passes of one attempt
SNAP = 16  # elementwise passes in which a column is rounded, and calls of torch
LAYER = 60  # elementwise passes from codes to a packed layer with its facts
HQQ = 45  # elementwise passes of one round of its fit
LOOK = 30  # elementwise passes in which one choice of channel scales is tried
FAMILIES = {"awq": 2, "smoothquant": 1}
HALF = 1500  # features at which LAPACK reaches half the rate of a large product; measured from 256 to 768
AROUND = 80  # elementwise passes over a token's hidden state in one block: norms, rotary embedding, residuals, softmax
OPENED = 4000  # calls that a block costs however small it is: opened, hooked, recorded
TRIED = 11  # exponents of a family that are looked at


@dataclass(frozen=True)
class Duration:
    """Seconds."""

    check: float
    forward: float
    statistics: float
    factor: float
    scales: float
    solve: float
    finish: float
    write: float

    @property
    def seconds(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))

    @property
    def low(self) -> float:
        return self.seconds / FACTOR

    @property
    def high(self) -> float:
        return self.seconds * FACTOR


def duration(work: Workload, rates: Rates) -> Duration:
    """Seconds of a sweep that starts from nothing."""
    spent = dict.fromkeys((field.name for field in fields(Duration)), 0.0)
    spent["check"] = work.model_bytes * (1 / rates.hashed + 2 / rates.copied) + work.model_bytes / 2 / rates.elements
    for block in work.blocks:
        _block(work, block, rates, spent)
    spent["write"] = work.stored * (3 / rates.hashed + 3 / rates.copied)
    return Duration(**spent)


def _block(work: Workload, block: BlockShape, rates: Rates, spent: dict[str, float]) -> None:
    tokens = work.tokens
    spent["check"] += block.weights * 3 / rates.elements + OPENED / rates.calls
    if tokens.padded:
        passes = 1 + sum(stream.forwards for stream in work.streams) + any(one.corrected for one in work.streams)
        measured = 1 + sum(1 + 2 * stream.corrected for stream in work.streams)
        multiplied = sum(group.columns * sum(group.outs) * group.share for group in block.groups)
        scores = 2 * tokens.longest * work.hidden
        spent["forward"] += passes * 2 * tokens.padded * (multiplied + scores) / rates.products
        spent["forward"] += passes * tokens.padded * AROUND * work.hidden / rates.elements
        for group in block.groups:
            seen = tokens.real * group.share
            each = seen * group.columns**2 / rates.products + 3 * seen * group.columns / rates.elements
            spent["statistics"] += measured * each
            spent["forward"] += passes * tokens.padded * group.share * 4 * max(group.outs) / rates.elements
    for group in block.groups:
        _group(group, rates, spent, calibrated=tokens.real > 0)


def _group(group: Group, rates: Rates, spent: dict[str, float], *, calibrated: bool) -> None:
    n, factored, passes, solved = group.columns, set[str](), 0, set[str]()
    if calibrated and group.tasks:
        spent["finish"] += 2 * n**2 * sum(group.outs) / rates.products  # what the errors are measured against
    for task in group.tasks:
        options, scaled = task.variant.options, isinstance(task.variant.method, ScalingMethod)
        numbers = sum(task.outs) * n
        spent["finish"] += LAYER * numbers / rates.elements
        key = repr((task.variant.method_name, task.variant.grid, options))
        if key in solved and not scaled:
            continue  # the same codes in another container
        solved.add(key)
        spent["scales"] += _scales(task, n, rates)
        spent["finish"] += 2 * n * numbers / rates.products if calibrated else 0
        if calibrated and "gptq" in (task.variant.method_name, getattr(options, "rounding", "")):
            descent = int(getattr(options, "descent", 2))
            products = numbers * n + descent * numbers * (2 * n + BLOCK)  # the recursion, then the gradients
            spent["solve"] += products / rates.products + (1 + descent) * SNAP * numbers / rates.elements
            own = key if scaled or getattr(options, "propagate", False) else task.variant.recipe.rotation
            factored.add(repr((getattr(options, "damping", 0), getattr(options, "order", ""), own)))
            passes = max(passes, 1 + descent)
    spent["solve"] += passes * n * SNAP / rates.calls
    spent["factor"] += len(factored) * (4 / 3) * n**2 * (n + HALF) / rates.doubles


def _scales(task: Task, n: int, rates: Rates) -> float:
    """Seconds for the scales of the grid, and for channel scales."""
    options, name, numbers = task.variant.options, task.variant.method_name, sum(task.outs) * n
    spent = ATTEMPTS.get(str(getattr(options, "clip", "minmax")), 1) * PASSES * numbers / rates.elements
    if name == "hqq":
        spent += len(STARTS) * options.rounds * HQQ * numbers / rates.elements
    if isinstance(task.variant.method, ScalingMethod):
        shown = sum(min(rows, ROWS) for rows in task.outs) * n
        looks = FAMILIES.get(name, 1) * TRIED
        spent += looks * (2 * n * shown / rates.products + LOOK * shown / rates.elements)
    return spent
