"""``quantgate train``: quantization-aware training, distillation, and the built-in model again from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from quantgate.cli import completions
from quantgate.cli._training_screen import training_screen
from quantgate.cli.options import CalibrationSeed, MaxTokens, Model, Quiet, Reusing, Samples, Traffic
from quantgate.cli.screen import console, errors
from quantgate.errors import UsageError
from quantgate.train.launch import follows

if TYPE_CHECKING:
    from quantgate.report.training import TrainingReport

app = typer.Typer(help="Train models.", no_args_is_help=True)

Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        "-s",
        help="Suites whose train split is learned from, and whose cases it is held against; left out, all built-in "
        "ones, or none beside --traffic. A file, or gsm8k=folder, as quantgate compare takes it; repeatable.",
        autocompletion=completions.suite,
    ),
]
Steps = Annotated[int | None, typer.Option(min=0, help="Optimizer steps, at most; left out, the usual number.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        help="Any other setting as key=value, such as learning_rate=1e-4; docs/training.md lists them; repeatable.",
        autocompletion=completions.training_option,
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(help="Another model of the same tokenizer to learn from; left out, MODEL at full precision."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Begin anew: throw away what an earlier call left, saying what it is.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the record of the run as JSON, and nothing else.")]


@app.callback()
def about() -> None:
    """Train models."""


@app.command()
def qat(
    model: Model,
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme", help="What to round to: W2A16, W3A16-g64, W4A4 ...", autocompletion=completions.scheme
        ),
    ],
    method_start: Annotated[
        str | None, typer.Option(help="Post-training method that training begins with, and must beat.")
    ] = None,
    traffic: Traffic = None,
    suite: Suites = None,
    steps: Steps = None,
    option: Settings = None,
    adapters: Annotated[
        int | None, typer.Option(min=1, help="Train low-rank matrices of this rank instead of all weights.")
    ] = None,
    kv_cache: Annotated[str | None, typer.Option(help="Also round keys and values: fp8, int8 or int4.")] = None,
    group_size: Annotated[int | None, typer.Option(help="Input columns that share a scale.")] = None,
    container: Annotated[
        str | None, typer.Option(help="How it is stored; left out, compressed_tensors or GGUF.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", "-k", help="Layers to leave alone: names, parts or globs; repeatable.")
    ] = None,
    teacher: Teacher = None,
    samples: Samples = 256,
    max_tokens: MaxTokens = 512,
    seed: CalibrationSeed = 0,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Gets the artifact, and its curve as NAME.html.")] = Path("runs/qat"),
    fresh: Fresh = False,
    reuse: Reusing = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a model with its numbers rounded, where rounding alone is not enough; a stopped call goes on.

    Learned from: the calibration traffic and the suites' train split, none of whose conversations a gate asks. The
    result is an artifact of real codes, to be judged like any other; nothing here is a verdict.
    """
    from quantgate.pipeline.train_only import Asked, train_qat
    from quantgate.quantize.reuse import Reuse

    more = {"group_size": group_size, "kv_cache": kv_cache, "container": container, "keep": keep}
    asked = Asked(out, tuple(suite or ()), traffic, samples, max_tokens, seed, teacher, device, fresh,
                  Reuse() if reuse else None)  # fmt: skip
    given = {"start": method_start, "adapters": adapters, "steps": steps}
    with training_screen(quiet=quiet or as_json or follows()) as screen:
        report = train_qat(
            model,
            scheme,
            asked,
            options=settings(option or (), given),
            tell=screen,
            say=screen.say,
            **{key: value for key, value in more.items() if value is not None},
        )
    _show(report, out, as_json=as_json)


@app.command()
def distill(
    model: Model,
    layers: Annotated[int | None, typer.Option(min=1, help="Decoder blocks that the student keeps.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads of each block.")] = None,
    feed_forward: Annotated[int | None, typer.Option(min=1, help="Channels between an MLP's projections.")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Channels of the residual stream.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A config.json of the teacher's architecture, instead of a shape.")
    ] = None,
    traffic: Traffic = None,
    suite: Suites = None,
    steps: Steps = None,
    option: Settings = None,
    teacher: Teacher = None,
    samples: Samples = 256,
    max_tokens: MaxTokens = 512,
    seed: CalibrationSeed = 0,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Gets the student's folder, and its curve as NAME.html.")] = Path(
        "runs/distill"
    ),
    fresh: Fresh = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Cut a smaller model from MODEL, which teaches it to answer as itself; a stopped call goes on.

    The student is a Hugging Face folder. Which blocks, heads and channels it keeps is measured. Make it smaller still
    with quantgate quantize, or name it in a release.yaml beside other candidates.
    """
    from quantgate.pipeline.train_only import Asked, train_student

    asked = Asked(out, tuple(suite or ()), traffic, samples, max_tokens, seed, teacher, device, fresh)
    shape: dict[str, Any] = {
        "layers": layers,
        "heads": heads,
        "feed_forward": feed_forward,
        "hidden": hidden,
        "steps": steps,
    }
    shape |= {"config": None if config is None else str(config)}
    with training_screen(quiet=quiet or as_json or follows()) as screen:
        report = train_student(model, asked, options=settings(option or (), shape), tell=screen, say=screen.say)
    _show(report, out, as_json=as_json)


def settings(written: list[str] | tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """``key=value`` as settings, beside those that have an option of their own. Raises UsageError.

    >>> settings(["learning_rate=1e-4", "norms=false", "precision=float32"], {"steps": 7, "adapters": None})
    {'steps': 7, 'learning_rate': 0.0001, 'norms': False, 'precision': 'float32'}
    """
    found = {key: value for key, value in given.items() if value is not None}
    for one in written:
        key, mark, value = one.partition("=")
        if not mark or not key:
            raise UsageError(f"--option: expected key=value, such as learning_rate=1e-4; found '{one}'")
        if key in found:
            raise UsageError(f"--option: '{key}' is given twice; keep one")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _show(report: TrainingReport, out: Path, *, as_json: bool) -> None:
    from quantgate.report.training import show_training

    if follows():
        return
    if as_json:
        typer.echo(json.dumps(report.body(), indent=1))
        return
    show_training(report, console)
    console.print(f"curve: [bold]{out / report.name}.html[/]", soft_wrap=True)


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
