"""``quantgate export MODEL --type Q4_K_M``: a whole GGUF file, not judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.options import Model, Quiet
from quantgate.cli.screen import bars, console


def export(
    model: Model,
    type: Annotated[str, typer.Option("--type", "-t", help="Q4_K_M, Q8_0 ...: a file type of llama.cpp.")] = "Q4_K_M",
    out: Annotated[Path | None, typer.Option(help="The file; left out, MODEL-TYPE.gguf here.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write a model, its tokenizer and its chat template as one GGUF file for llama.cpp; it is not judged."""
    from quantgate.models import open_model
    from quantgate.quantize.gguf import make_gguf
    from quantgate.report.artifacts import show_gguf

    opened = open_model(model)
    path = out or Path(f"{opened.path.resolve().name}-{type}.gguf")
    with bars(quiet=quiet) as progress:
        file = make_gguf(opened, path, type, progress=lambda done, total: progress("writing", done, total, type))
    show_gguf(file, console)
