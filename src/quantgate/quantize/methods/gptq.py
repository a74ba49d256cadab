"""gptq: round column by column, and let the columns still to come make up for the error of each.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
algorithm 1. Beyond the paper:

* Columns go by descending Hessian diagonal, but scales belong to the groups as stored (static groups): no index has to
  be stored beside the codes, and no runtime pays for the order.
* Scales are clipped for the least squared error, each column weighted by its Hessian diagonal.
* Coordinate descent afterwards: each column in turn is rounded again, to the optimum given all others, on the same
  grid. No step can raise the damped layer error, and the file does not change its format.
* Scales of GGUF's block formats are searched for what is left of each column's error once the others make up for it,
  and fitted anew to the codes before each pass of the descent (``_blocks``, ``_block_rows``).
* All jobs that read one input are solved together (``_rows``), from one factor.
* ``propagate``: the inputs are those of the variant itself, earlier blocks quantized (``quantize.propagate``), and with
  "corrected" the weight that is rounded makes up for what they lost (``_correction``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats import BlockGrid, FloatGrid, Fp4Grid, Grid
from quantgate.formats.codec import decode
from quantgate.quantize.methods import Facts, Job, LayerStats, Order, Solved
from quantgate.quantize.methods._block_rows import BlockRows
from quantgate.quantize.methods._blocks import choose_blocks
from quantgate.quantize.methods._correction import corrected, output_error
from quantgate.quantize.methods._factor import Factor, relative_error
from quantgate.quantize.methods._rows import Part, Rows
from quantgate.quantize.methods._scales import Clip, checked_all, choose_scales, clipped_fraction
from quantgate.quantize.methods._sweep import received, sweep
from quantgate.quantize.methods.rtn import METHOD as RTN
from quantgate.quantize.methods.rtn import RtnOptions
from quantgate.records import Record

STACK = 1 << 28  # numbers in one stack of rows, at most: 1 GiB in float32
BLOCK = 256  # columns whose gradient descent computes at once


PROPAGATION = ("propagate", "steps", "correction", "correction_damping")  # options


class GptqOptions(Record):
    damping: float = Field(default=0.01, ge=0, le=1)  # fraction of the Hessian's mean diagonal added to its diagonal
    order: Order = "activation"  # columns by descending Hessian diagonal, or as they stand
    clip: Clip = "hessian"  # how scales are chosen; this one had the least held-out error at every width tried
    descent: int = Field(default=2, ge=0, le=8)  # passes of coordinate descent
    leaf: int = Field(default=32, ge=1)  # columns handled one by one between matrix products: speed, not results
    propagate: Literal[False, "inputs", "corrected"] = False  # statistics of the variant's own stream, not the model's
    steps: Literal["layer", "block"] = "layer"  # how often that stream is measured anew
    correction: float = Field(default=1.0, gt=0, le=1)  # how far to go to the corrected weight, 1: all the way
    correction_damping: float = Field(default=0.01, ge=0, le=10)  # as ``damping``, of the correction alone

    @model_validator(mode="after")
    def _used(self) -> Self:
        """What would have no effect is refused."""
        named = [name for name in PROPAGATION[1:] if name in self.model_fields_set]
        if not self.propagate and named:
            raise ValueError(f"'{named[0]}' has no effect without 'propagate'; set propagate: corrected, or remove it")
        if self.propagate == "inputs" and (corrections := [name for name in named if name != "steps"]):
            raise ValueError(f"'{corrections[0]}' has no effect with propagate: inputs; set propagate: corrected")
        return self

    def body(self) -> dict[str, Any]:
        """Without the keys of propagation where nothing is propagated: older artifacts stay what was asked for."""
        return {key: value for key, value in super().body().items() if self.propagate or key not in PROPAGATION}


@dataclass(frozen=True, eq=False)
class _Task:
    """A job on its way: its place in the caller's list, checked weight, chosen scales."""

    place: int
    job: Job
    weight: Tensor
    target: Tensor  # what is rounded: the weight, or the corrected one
    options: GptqOptions
    scales: Tensor
    zeros: Tensor | None
    clip: Clip  # the one that was used


class Gptq:
    """GPTQ with static order, clipped scales and coordinate descent."""

    Options: type[Record] = GptqOptions
    needs_stats = True

    def solve_many(self, jobs: Sequence[Job], stats: LayerStats | None) -> list[Solved]:
        if stats is None:
            name = jobs[0].name if jobs else "gptq"
            raise FormatError(f"{name}: method gptq needs a calibration set; give one, or choose rtn")
        for job in jobs:  # all checks before the first slow step
            stats.check(job.weight.shape[-1], job.name)
        weights = checked_all(jobs)
        tasks = [_task(place, job, weights[place], stats) for place, job in enumerate(jobs)]
        solved: dict[int, Solved] = {}
        norms: dict[int, float] = {}
        for stack in _stacks(tasks):
            options = stack[0].options
            factor = stats.factor(options.damping, options.order)
            if factor.coupling is None:
                solved |= {task.place: _fallback(task, factor, stats) for task in stack}
                continue
            found = _solve(stack, factor, factor.coupling, stats, options)
            solved |= {
                task.place: _finish(replace(task, scales=scales), codes, factor, stats, norms)
                for task, (codes, scales) in zip(stack, found, strict=True)
            }
        return [solved[place] for place in range(len(jobs))]


def _task(place: int, job: Job, weight: Tensor, stats: LayerStats) -> _Task:
    options = job.options or GptqOptions()
    target = weight
    factor = stats.factor(options.damping, options.order)
    if options.propagate == "corrected" and factor.coupling is not None:
        ridge = max(factor.ridge, options.correction_damping * float(stats.hessian.diagonal().mean()))
        target = corrected(weight, stats, options.correction, ridge)
    if isinstance(job.grid, BlockGrid) and options.clip == "hessian" and factor.left is not None:
        header = choose_blocks(target, job.grid.layout, factor.left, job.name)
        return _Task(place, job, weight, target, options, header, None, options.clip)
    return _Task(place, job, weight, target, options, *choose_scales(job, target, options.clip, stats))


def _stacks(tasks: list[_Task]) -> list[list[_Task]]:
    """Tasks with the same options for the solver, integers first, cut where a stack would grow too large."""
    by_kind: dict[tuple[object, ...], list[_Task]] = {}
    for task in sorted(tasks, key=lambda one: isinstance(one.job.grid, FloatGrid)):
        options = task.options
        key = (options.damping, options.order, options.descent, options.leaf, task.scales.dtype, _alone(task.job.grid))
        by_kind.setdefault(key, []).append(task)
    stacks: list[list[_Task]] = []
    for kind in by_kind.values():
        held = STACK
        for task in kind:
            if held + task.weight.numel() > STACK:
                stacks.append([])
                held = 0
            stacks[-1].append(task)
            held += task.weight.numel()
    return stacks


def _alone(grid: Grid) -> str:
    """What kind of numbers a stack has to itself."""
    if isinstance(grid, BlockGrid):
        return grid.type if grid.layout.levels is None else grid.name
    return grid.type if isinstance(grid, Fp4Grid) else ""


def _solve(
    stack: list[_Task], factor: Factor, coupling: Tensor, stats: LayerStats, options: GptqOptions
) -> list[tuple[Tensor, Tensor]]:
    """Codes [out, in] and scales of each task."""
    parts = [Part(task.target, task.job.grid, task.scales, task.zeros) for task in stack]
    rows = BlockRows(parts) if isinstance(parts[0].grid, BlockGrid) else Rows(parts)
    _feedback(rows, factor.order, coupling, options.leaf)
    if options.descent:
        errors = _errors(rows)
        for _ in range(options.descent):
            if isinstance(rows, BlockRows):
                rows.refit(errors, stats.hessian, factor.ridge)
            _descend(rows, errors, stats.hessian, factor.ridge, options.leaf)
    return [
        (rows.codes_of(at), rows.header(at) if isinstance(rows, BlockRows) else task.scales)
        for at, task in enumerate(stack)
    ]


def _feedback(rows: Rows, order: Tensor, coupling: Tensor, leaf: int) -> None:
    """GPTQ proper: ``buffer`` holds what is left to round, then the errors that later columns make up for."""
    buffer = rows.weights(order)

    def settle(start: int, stop: int) -> None:
        columns = order[start:stop]
        levels = rows.levels(columns)
        codes = torch.empty_like(levels.scales)
        for at, j in enumerate(range(start, stop)):
            wanted = received(buffer, coupling, start, j)
            codes[at], values = rows.snap(wanted, levels, at)
            buffer[j] = wanted - values
        rows.put(columns, codes)

    sweep(buffer, coupling, settle, leaf)


def _blocks(rows: Rows) -> list[Tensor]:
    """The columns as they stand, up to BLOCK at a time."""
    stops = [*range(BLOCK, rows.columns, BLOCK), rows.columns]
    return [torch.arange(max(0, stop - 1) // BLOCK * BLOCK, stop, device=rows.device) for stop in stops]


def _errors(rows: Rows) -> Tensor:
    """[in, rows] float32: weight minus stored weight, columns as they stand."""
    errors = torch.empty(rows.columns, rows.count, device=rows.device)
    for columns in _blocks(rows):
        errors[columns[0] : columns[-1] + 1] = rows.weights(columns) - rows.values(
            rows.codes(columns), rows.levels(columns), slice(None)
        )
    return errors


def _descend(rows: Rows, errors: Tensor, hessian: Tensor, ridge: float, leaf: int) -> None:
    """One pass: each column moves to the code nearest to its optimum, given the ``errors`` of all others by then.

    The damped layer error of a row e is e (H + ridge I) e^T. With gradient g = e (H + ridge I) its minimum over column
    j alone lies g_j / (H_jj + ridge) above the stored value; a code is taken only if it is nearer to that than the one
    held.
    """
    smallest = torch.finfo(torch.float32).tiny
    curvature = (hessian.diagonal() + ridge).clamp(min=smallest).tolist()
    for block in _blocks(rows):
        first, last = int(block[0]), int(block[-1]) + 1
        steps = torch.addmm(
            errors[first:last], hessian[first:last], errors, beta=ridge
        )  # gradients; steps, once settled
        _settle_block(rows, block, steps, hessian[first:last, first:last], curvature[first:last], leaf)
        errors[first:last] += steps


def _settle_block(
    rows: Rows, block: Tensor, steps: Tensor, coupling: Tensor, curvature: list[float], leaf: int
) -> None:
    def settle(start: int, stop: int) -> None:
        columns = block[start:stop]
        levels = rows.levels(columns)
        codes = rows.codes(columns)
        held = rows.values(codes, levels, slice(None))
        for at, j in enumerate(range(start, stop)):
            away = received(steps, coupling, start, j) / curvature[j]
            found, values = rows.snap(held[at] + away, levels, at)
            step = values - held[at]
            nearer = (step - away).abs_() < away.abs()
            codes[at] = torch.where(nearer, found, codes[at])
            steps[j] = torch.where(nearer, step.neg_(), 0.0)
        rows.put(columns, codes)

    sweep(steps, coupling, settle, leaf)


def _finish(task: _Task, codes: Tensor, factor: Factor, stats: LayerStats, norms: dict[int, float]) -> Solved:
    grid = task.job.grid
    stored = decode(codes, grid, task.scales, task.zeros)
    facts = Facts(
        asked="gptq",
        method="gptq",
        error=relative_error(task.weight, stored, stats.model or stats, norms),
        clip=task.clip,
        clipped=clipped_fraction(task.target, grid, task.scales, task.zeros),
        damping=factor.damping,
        retries=factor.retries,
        dead=factor.dead,
        order=task.options.order,
        descent=task.options.descent,
        propagated=task.options.propagate or "",
        output_error=output_error(task.weight, stored, stats),
    )
    return Solved(grid, codes, task.scales, task.zeros, facts)


def _fallback(task: _Task, factor: Factor, stats: LayerStats) -> Solved:
    """Round to nearest where no damping made the Hessian positive definite; the facts say so, a gate may refuse it."""
    job = replace(task.job, options=RtnOptions(clip=task.options.clip))
    solved = RTN.solve_many([job], stats.model or stats)[0]
    tried = ", ".join(f"{fraction:g}" for fraction in factor.retries)
    because = f"the Hessian is not positive definite with any damping of {tried} times its mean diagonal"
    told = {"asked": "gptq", "because": because, "damping": None, "retries": factor.retries, "dead": factor.dead}
    return replace(solved, facts=solved.facts.model_copy(update=told))


METHOD = Gptq()
