"""``quantgate train reference``: train the built-in model again, from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from quantgate.cli.screen import console, errors

app = typer.Typer(help="Train models.", no_args_is_help=True)


@app.callback()
def about() -> None:
    """Train models."""


@app.command()
def reference(
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")] = Path("runs/reference/model"),
    work: Annotated[Path, typer.Option(help="Folder for checkpoints; a killed run goes on from there.")] = Path(
        "runs/reference"
    ),
    tokens: Annotated[
        int | None, typer.Option(min=8192, help="Tokens to train on; the recipe's own if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
) -> None:
    """Train the reference model from capabilities that quantgate generates itself (about two hours on two cores)."""
    import torch

    from quantgate.train.reference.loop import Plan
    from quantgate.train.reference.recipe import train_reference

    plan = Plan() if tokens is None else Plan(tokens=tokens)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    columns = (
        TextColumn("[bold]training"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
    )  # fmt: skip
    with Progress(*columns, console=errors, refresh_per_second=1) as progress:
        task = progress.add_task("train", total=plan.steps, loss=float("inf"))

        def tell(row: dict[str, Any]) -> None:
            progress.update(task, completed=row["step"], loss=row["loss"])
            if "right" in row:
                scores = "  ".join(f"{name} {share:.2f}" for name, share in row["right"].items())
                progress.console.print(f"step {row['step']}  loss {row['loss']:.3f}  {scores}")

        train_reference(out, work, plan, tell, chosen)
    console.print(f"model and card: [bold]{out}[/]")
