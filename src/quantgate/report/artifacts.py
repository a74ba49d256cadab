"""Tables of artifacts alone: what a sweep would write, and what it wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantgate.report.tables import megabytes, plain_table

if TYPE_CHECKING:
    from quantgate.quantize import Artifact
    from quantgate.quantize.gguf import GgufFile

EVENTS = {  # of the ledger, as people read them
    "kept": "kept",
    "fused": "kept with a neighbour",
    "fallback": "another method",
    "damping": "damping raised",
    "dead_columns": "dead inputs",
    "not_scaled": "without channel scales",
    "expert_tokens": "experts counted",
    "starved_expert": "starved experts",
}


def show_artifacts(made: Sequence[Artifact], console: Console) -> None:
    """Sizes, the output error on the calibration set, and what the ledger holds."""
    table: Table = plain_table("variant", ("MB", "bits", "error"), "right")
    table.add_column("ledger")
    for artifact in made:
        manifest = artifact.manifest
        error = "" if manifest.mean_error is None else f"{100 * manifest.mean_error:.3f} %"
        counted = Counter(EVENTS.get(note.event, note.event) for note in manifest.ledger)
        ledger = ", ".join(f"{count} {event}" for event, count in counted.most_common())
        bits = f"{manifest.bits_per_weight:.2f}"
        table.add_row(
            artifact.name, megabytes(manifest.tensor_bytes), bits, error, Text(ledger or "nothing", style="dim")
        )
    console.print(table)
    console.print("error: mean share of a layer's output energy lost on the calibration set", style="dim")
    for artifact in made:
        console.print(f"{artifact.path}", soft_wrap=True)


def show_gguf(file: GgufFile, console: Console) -> None:
    """How many tensors of a GGUF file have which type, and what each type takes."""
    table = plain_table("type", ("tensors", "MB", "bits"), "right")
    for name in sorted({one.type.name for one in file.tensors.values()}):
        stored = [one for one in file.tensors.values() if one.type.name == name]
        table.add_row(name, str(len(stored)), megabytes(sum(one.size for one in stored)), f"{stored[0].type.bits:g}")
    console.print(table)
    weights = sum(one.weights for one in file.tensors.values())
    console.print(f"{8 * sum(one.size for one in file.tensors.values()) / weights:.2f} bits a weight", style="dim")
    console.print(f"{file.path}", soft_wrap=True)
