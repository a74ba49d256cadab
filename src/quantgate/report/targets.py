"""A plan and a machine as tables."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from quantgate.decide.planning import Plan, PlanRow
from quantgate.hardware.detect import Machine
from quantgate.hardware.quantities import told_bytes, told_seconds
from quantgate.report.tables import plain_table

COLUMNS = ("GB", "fits", "batch", "TTFT", "TPOT", "tokens/s", "requests/s", "per 1M", "over BF16")


def show_targets(told: Plan, console: Console) -> None:
    """Target by target: the table, then what is refused and why, out of reach, and warned of."""
    console.print(
        f"{told.model}: {told.parameters / 1e9:.3g} B parameters, {told_bytes(told.baseline_bytes)} in 16 bits"
    )
    for name, target in told.targets.items():
        asked = (
            f"{target.hardware}, {target.runtime}, {target.prompt} tokens in and {target.answer} out, "
            f"{target.concurrency} at once, room for {target.tokens}"
        )
        more = f", {target.tensor_parallel} devices" if target.tensor_parallel > 1 else ""
        console.print(Text.assemble("\n", (name, "bold"), f": {asked}{more}"))
        table = plain_table("variant", COLUMNS, "right")
        table.add_column("kernel")
        for row in told.of(name):
            table.add_row(row.variant, *cells(row), _kernel(row))
        console.print(table)
        for line in lines(told.of(name)):
            console.print(Text(line), soft_wrap=True)
    for line in told.others:
        console.print(Text(line), soft_wrap=True)
    for line in (*told.warnings, *(f"not planned: {one}" for one in told.left_out)):
        console.print(Text(f"warning: {line}" if line in told.warnings else line, style="yellow"), soft_wrap=True)
    console.print("a roofline: nothing is faster, a real kernel is slower; a load test decides", style="dim")


def cells(row: PlanRow) -> tuple[str, ...]:
    """Of one row; what is not known is a question mark, what does not run is empty."""
    size = f"{row.stored_bytes / 1e9:.2f}"
    one = row.estimate
    if one is None:
        return (size, "refused", *[""] * (len(COLUMNS) - 2))
    return (
        size,
        "?" if one.fits is None else "yes" if one.fits else "NO",
        "?" if one.largest_batch is None else str(one.largest_batch),
        "?" if one.ttft_s is None else f"{told_seconds(one.ttft_s)} {one.ttft_bound[:3]}",
        f"{told_seconds(one.tpot_s)} {one.tpot_bound[:3]}",
        f"{one.tokens_per_s:.3g}",
        "?" if one.requests_per_s is None else f"{one.requests_per_s:.3g}",
        "" if one.cost_per_million is None else f"{one.cost_per_million:.2f}",
        "" if row.speedup is None else f"{row.speedup:.2f}x",
    )


def lines(rows: list[PlanRow]) -> list[str]:
    """What must be read beside the table, each thing once, with the variants it is said of."""
    found: dict[str, list[str]] = {}
    for row in rows:
        told = [f"refused: {one} [{row.support.source}, {row.support.date}]" for one in row.support.problems]
        told += [*row.unmet, *(f"warning: {one}" for one in row.warnings)]
        told += [f"first: {row.support.needs}"] if row.support.needs else []
        told += row.estimate.notes if row.estimate else ()
        for line in told:
            found.setdefault(line, []).append(row.variant)
    return [f"{', '.join(names)}: {line}" for line, names in found.items()]


def _kernel(row: PlanRow) -> str:
    return f"{row.support.kernel} ({row.support.status})" if row.support.runs else ""


def show_machine(found: Machine, console: Console) -> None:
    """What doctor found and measured."""
    table = plain_table("this machine", (), "left")
    table.add_column("found")
    here = found.profile
    measured = ", ".join(f"{number} {rate / 1e12:.3g}" for number, rate in here.rates.items())
    rows = {
        "system": found.system,
        "cores": str(found.cores),
        "instruction sets": ", ".join(found.features) or "none that matter here",
        "memory": told_bytes(found.memory_bytes),
        "bandwidth": f"{here.bandwidth / 1e9:.1f} GB/s read, {found.copy_bandwidth / 1e9:.1f} GB/s copied (measured)",
        "products": f"{measured} tera-operations a second (measured)",
        "GPUs": "; ".join(f"{one.name}, {told_bytes(one.memory_bytes)}, compute capability {one.compute_capability}"
                          for one in found.gpus) or found.no_gpus,
        "runtimes": ", ".join(f"{name} {version}" for name, version in found.runtimes.items()) or "none",
        "llama.cpp": ", ".join(found.llamacpp) or "not installed",
        "compilers": "; ".join(found.compilers.values()) or "none",
        "most like": found.nearest,
    }  # fmt: skip
    for what, told in rows.items():
        table.add_row(what, Text(told))
    console.print(table)
