"""What a sweep would take, as a table: disk of every variant, then the peak of memory and the time of all together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from quantgate.report.tables import megabytes, plain_table

if TYPE_CHECKING:
    from quantgate.quantize.duration import Duration
    from quantgate.quantize.footprint import Footprint
    from quantgate.quantize.forecast import Forecast

MOMENTS = {
    "check": "while the weights are checked",
    "embed": "while tokens are embedded",
    "load": "while a block is read",
    "forward": "while a block runs on a batch",
    "factor": "while a Hessian is factored",
    "solve": "while codes are chosen",
    "finish": "while a solved layer is measured and packed",
}


def show_forecast(told: Forecast, out: Path, console: Console) -> None:
    """Sizes on disk, what the memory would be filled with, and how long it would take."""
    table = plain_table("variant", ("MB", "bits", "layers", "kept"), "right")
    table.add_column("format")
    for one in told.variants:
        cells = (megabytes(one.tensor_bytes), f"{one.bits_per_weight:.2f}", str(one.layers), str(one.kept))
        table.add_row(one.name, *cells, f"{one.format}, by {one.method}")
    console.print(table)
    for one in told.variants:
        for sentence in one.ends:
            console.print(f"{one.name}: {sentence}", soft_wrap=True)
    whole = plain_table("it takes", (), "left")
    whole.add_column("about", no_wrap=True, justify="right")
    whole.add_column("of which")
    whole.add_row("disk", f"{megabytes(told.disk)} MB", f"tensors, to the byte; they would go to {out}")
    whole.add_row("memory", f"{megabytes(told.memory.peak)} MB", parts(told.memory))
    whole.add_row("time", span(told.time), f"{told.tokens.real:,} calibration tokens; mostly {longest(told.time)}")
    console.print(whole)
    if not told.fits and told.free is not None:
        console.print(
            f"[bold]{megabytes(told.memory.peak - told.memory.process)} MB more than now are needed and "
            f"{megabytes(told.free)} MB are free[/]; {advice(told)}"
        )
    console.print("nothing was written", style="dim")


def parts(memory: Footprint) -> str:
    """``weights 12.6 MB, ...``, what is nothing left out; and when that is."""
    rows = {
        "process": memory.process, "activations": memory.hidden, "one block": memory.weights,
        "statistics": memory.statistics, "solved layers": memory.packed, "work": memory.working,
    }  # fmt: skip
    told = ", ".join(f"{name} {megabytes(size)}" for name, size in rows.items() if size >= 50_000)
    return f"{told} {MOMENTS[memory.moment]}"


def advice(told: Forecast) -> str:
    """What would help: the largest of what the user can choose."""
    memory = told.memory
    work = {"solve", "finish", "factor"}
    if memory.hidden > max(memory.working, memory.weights):
        return "take fewer or shorter calibration samples (--samples, --max-tokens)"
    if len(told.variants) > 1 and memory.moment in work:
        return "make fewer variants at once; the same command with others goes on in the same folder"
    if memory.moment in work:
        return "keep the widest layers (--keep), or take a method without statistics, such as rtn"
    return "free some memory, or use a machine with more"


def span(time: Duration) -> str:
    """``about`` and a range: ``3 min (1 to 6)``."""
    units = ((3600.0, "h"), (60.0, "min"))
    unit, name = next((one for one in units if time.seconds >= 1.5 * one[0]), (1.0, "s"))
    low, about, high = (_round(one / unit) for one in (time.low, time.seconds, time.high))
    return f"{about} {name} ({low} to {high})"


def longest(time: Duration) -> str:
    """The two stages that take most."""
    stages = sorted(vars(time).items(), key=lambda one: -one[1])[:2]
    return " and ".join(name for name, _ in stages)


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 9.5 else f"{value:.0f}"
