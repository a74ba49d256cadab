"""Tables of artifacts alone: what a sweep would write, and what it wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantgate.report.terminal import megabytes, plain_table

if TYPE_CHECKING:
    from quantgate.quantize import Artifact
    from quantgate.quantize.predict import Predicted

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


def show_predicted(found: Sequence[Predicted], out: Path, console: Console) -> None:
    """Sizes on disk before anything is written."""
    table = plain_table("variant", ("MB", "bits", "layers", "kept"), "right")
    table.add_column("format")
    for one in found:
        cells = (megabytes(one.tensor_bytes), f"{one.bits_per_weight:.2f}", str(one.layers), str(one.kept))
        table.add_row(one.name, *cells, f"{one.format}, by {one.method}")
    console.print(table)
    for one in found:
        for sentence in one.ends:
            console.print(f"{one.name}: {sentence}", soft_wrap=True)
    total = sum(one.tensor_bytes for one in found)
    console.print(f"{megabytes(total)} MB of tensors would go to {out}; nothing was written", style="dim")


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
