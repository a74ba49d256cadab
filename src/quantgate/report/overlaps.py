"""What calibration and gate have in common, as a table."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantgate.evaluate.overlap import Overlaps

ROWS = 20  # pairs printed


def show_overlaps(found: Overlaps, console: Console) -> None:
    """Print the pairs, the same items first, and one sentence."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("sample", "case", "found by", "what they say"):
        table.add_column(name, no_wrap=name == "sample", justify="right" if name == "sample" else "left")
    for pair in found.pairs[:ROWS]:
        mark = Text("SAME ITEM\n" if pair.item else "same source\n", style="bold red" if pair.item else "yellow")
        table.add_row(
            str(pair.sample),
            f"{pair.suite}/{pair.case}",
            Text.assemble(mark, f"{pair.check}: {pair.because}"),
            Text(f"{pair.sample_text}\n{pair.case_text}"),
        )
    if found.pairs:
        console.print(table)
    if len(found.pairs) > ROWS:
        console.print(f"and {len(found.pairs) - ROWS} more pairs; --json prints them all", style="dim")
    console.print(Text(overlap_sentence(found), style="bold red" if found.items else "green"))


def overlap_sentence(found: Overlaps) -> str:
    """Counts, in words."""
    said = [f"{found.items} of {found.samples} samples are among the {found.cases} cases of {', '.join(found.suites)}"]
    if found.sources:
        said.append(f"{found.sources} more are of the same source without being the same item")
    if found.allowed:
        said.append(f"{found.allowed} are allowed by name")
    return "; ".join(said)
