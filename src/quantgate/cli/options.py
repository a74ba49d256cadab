"""Options that several commands have, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="A folder, a Hugging Face id, or quantgate/reference.")]
Variant = Annotated[str, typer.Argument(help="The same, or an artifact that quantgate or another program quantized.")]
EngineName = Annotated[str, typer.Option(help="What runs the variant: torch, or llamacpp for a GGUF file.")]
KvCache = Annotated[str, typer.Option(help="Type of llama.cpp's KV cache, such as q8_0.")]
Traffic = Annotated[
    Path | None,
    typer.Option(
        help="Traffic as JSONL, or a folder of quantgate calibrate; left out, the built-in suites' calibrate split."
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Conversations to calibrate with.")]
MaxTokens = Annotated[int, typer.Option(min=8, help="Tokens of each, at most.")]
CalibrationSeed = Annotated[int, typer.Option(help="Fixes which conversations are taken.")]
Reusing = Annotated[
    bool,
    typer.Option(
        "--reuse/--no-reuse",
        envvar="QUANTGATE_REUSE",
        help="Take over blocks that earlier sweeps on this machine finished, where the bytes are the same.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
