"""A plan as tables: target by target what fits, how fast it can be at best, by which kernel, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from quantgate.decide.planning import Plan, PlanRow
from quantgate.hardware import Profile
from quantgate.hardware.quantities import told_bytes, told_seconds
from quantgate.hardware.roofline import MOST_SEQUENCES
from quantgate.hardware.targets import Place
from quantgate.report.tables import plain_table

COLUMNS = ("stored", "memory", "fits", "batch", "TTFT", "TPOT", "tokens/s", "requests/s", "per 1M", "vs BF16")
SIZES, WIDE = 4, 122  # columns of memory come first, and are a table of their own on a narrow screen
BOUNDS = {"bytes": "b", "operations": "o", "calls": "c", "unknown": ""}
LEGEND = (
    "memory: weights, cache, activations; batch: sequences of the whole context that fit; per 1M: price of a million "
    "answer tokens; bound by b: bytes, o: operations, c: calls"
)
ROOFLINE = "a roofline: nothing is faster, a real kernel is slower; a load test decides"


def show_targets(told: Plan, console: Console) -> None:
    """Target by target: the table, then which kernel runs, what is refused and why, out of reach, and warned of."""
    console.print(
        f"{told.model}: {told_count(told.parameters)} parameters, {told_bytes(told.baseline_bytes)} in 16 bits"
    )
    for name, target in told.targets.items():
        rows = told.of(name)
        console.print(Text.assemble("\n", (name, "bold"), f": {asked(target)}"), soft_wrap=True)
        if name in told.devices:
            console.print(Text(device_line(told.devices[name]), style="dim"), soft_wrap=True)
        priced = target.price is not None
        for columns in (COLUMNS,) if console.width >= WIDE else (COLUMNS[:SIZES], COLUMNS[SIZES:]):
            _table(rows, [one for one in columns if priced or one != "per 1M"], console)
        for line in (*kernels(rows), *lines(rows)):
            console.print(Text(line), soft_wrap=True)
    if len(told.targets) > 1:
        _summary(told, console)
    for line in told.others:
        console.print(Text(line), soft_wrap=True)
    for line in told.warnings:
        console.print(Text(f"warning: {line}", style="yellow"), soft_wrap=True)
    for line in told.left_out:
        console.print(Text(f"not planned: {line}", style="yellow"), soft_wrap=True)
    console.print(f"{LEGEND}\n{ROOFLINE}", style="dim", soft_wrap=True)


def _table(rows: Sequence[PlanRow], columns: Sequence[str], console: Console) -> None:
    table = plain_table("variant", columns, "right")
    for row in rows:
        told = dict(zip(COLUMNS, cells(row), strict=True))
        table.add_row(row.variant, *(told[one] for one in columns))
    console.print(table)


def asked(target: Place) -> str:
    """What a target asks, in one line."""
    devices = f", {target.tensor_parallel} devices" if target.tensor_parallel > 1 else ""
    return (
        f"{target.runtime} on {target.hardware}{devices}, {target.prompt} tokens in and {target.answer} out, "
        f"{target.concurrency} at once, room for {target.tokens} each"
    )


def device_line(device: Profile) -> str:
    """The figures of a device, and where they come from."""
    memory = "memory as the target says" if device.memory_bytes is None else told_bytes(device.memory_bytes)
    known = "measured" if device.measured else "documented"
    return f"{device.title}: {memory}, {device.bandwidth / 1e9:,.4g} GB/s [{known}: {device.source}, {device.date}]"


def cells(row: PlanRow) -> tuple[str, ...]:
    """Of one row; what is not known is a question mark, what does not run is empty."""
    size, one = told_bytes(row.stored_bytes), row.estimate
    if one is None:
        return (size, "", "refused", *[""] * (len(COLUMNS) - 3))
    return (
        size,
        told_bytes(one.memory.needed),
        "?" if one.fits is None else "yes" if one.fits else "NO",
        "?" if one.largest_batch is None else batch(one.largest_batch),
        "?" if one.ttft_s is None else f"{told_seconds(one.ttft_s)} {BOUNDS[one.ttft_bound]}",
        f"{told_seconds(one.tpot_s)} {BOUNDS[one.tpot_bound]}",
        told_count(one.tokens_per_s),
        "?" if one.requests_per_s is None else told_count(one.requests_per_s),
        "" if one.cost_per_million is None else f"{one.cost_per_million:.3g}",
        "" if row.speedup is None else f"{row.speedup:.2f}x",
    )


def batch(sequences: int) -> str:
    """How many sequences fit; no runtime is asked for more than ``MOST_SEQUENCES``."""
    return f"{sequences}+" if sequences >= MOST_SEQUENCES else str(sequences)


def told_count(number: float) -> str:
    """Three digits, and words for large numbers.

    >>> told_count(70_553_706_496), told_count(4331), told_count(0.179), told_count(5_116_416)
    ('70.6 B', '4,330', '0.179', '5.12 M')
    """
    for size, letter in ((1e9, " B"), (1e6, " M")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 100 else f"{number:.3g}"


def kernels(rows: Sequence[PlanRow]) -> list[str]:
    """What runs each variant, and how that is known, each source once."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.support.runs:
            found.setdefault(_known(row), {}).setdefault(row.support.kernel, []).append(row.variant)
    told = {
        known: "; ".join(f"{', '.join(names)}: {kernel}" for kernel, names in runs.items())
        for known, runs in found.items()
    }
    return [f"kernels: {runs} [{known}]" for known, runs in told.items()]


def _known(row: PlanRow) -> str:
    found = row.support
    told = f"verified with {found.versions}: " if found.status == "verified" else "documented: "
    return f"{told}{found.source}, {found.date}"


def lines(rows: Sequence[PlanRow]) -> list[str]:
    """What must be read beside the table, each thing once, with the variants it is said of."""
    said: list[tuple[str, str]] = []
    for row in rows:
        told = [f"refused: {one} [{row.support.source}, {row.support.date}]" for one in row.support.problems]
        told += [f"first: {row.support.needs}"] if row.support.needs else []
        told += [*row.unmet, *(f"warning: {one}" for one in row.warnings)]
        told += row.estimate.notes if row.estimate else ()
        said += [(line, row.variant) for line in told]
    found: dict[str, list[str]] = {}
    for line, variant in said:
        found.setdefault(line, []).append(variant)
    return [f"{', '.join(names)}: {line}" for line, names in found.items()]


def _summary(told: Plan, console: Console) -> None:
    """All targets at a glance: the batch that fits, or why there is none."""
    variants = list(dict.fromkeys(row.variant for row in told.rows))
    console.print("\nwhat fits where: sequences at once", style="bold")
    table = plain_table("target", variants, "right")
    for name in told.targets:
        own = {row.variant: row for row in told.of(name)}
        table.add_row(name, *(_fits(own[one]) for one in variants))
    console.print(table)


def _fits(row: PlanRow) -> str:
    one = row.estimate
    if one is None:
        return "refused"
    if one.fits is None or one.largest_batch is None:
        return "?"
    missed = "" if row.possible or not one.fits else " (too slow)"
    return f"{batch(one.largest_batch)}{missed}" if one.fits else "NO"
