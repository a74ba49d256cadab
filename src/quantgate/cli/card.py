"""``quantgate card RUN VARIANT``: a Hugging Face model card with the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.screen import console


def card(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    variant: Annotated[str, typer.Argument(help="A variant of it.")],
    out: Annotated[
        Path | None,
        typer.Option(help="A folder or a .md file; left out, the artifact's folder where it is one of ours."),
    ] = None,
    license: Annotated[
        str, typer.Option("--license", help="Of the baseline, as the Hub writes it: apache-2.0, mit ...")
    ] = "",
) -> None:
    """Write README.md for a variant: what was quantized, the evidence per capability, each target's decision, how to
    run it. It is no part of what the artifact's digest covers."""
    from quantgate.report.card import write_card

    console.print(f"card: [bold]{write_card(run, variant, out=out, licence=license)}[/]", soft_wrap=True)
