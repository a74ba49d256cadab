"""``quantgate calibrate traffic.jsonl --model MODEL``: samples out of traffic, audited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.options import CalibrationSeed, MaxTokens, Quiet, Samples
from quantgate.cli.screen import bars, console
from quantgate.errors import UsageError


def calibrate(
    traffic: Annotated[
        list[Path],
        typer.Argument(help="JSONL files (.jsonl, .jsonl.gz): chat requests, exchanges of a gateway, or prompts."),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A folder, a Hugging Face id, or quantgate/reference.")
    ] = "quantgate/reference",
    samples: Samples = 256,
    max_tokens: MaxTokens = 512,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", "-r", help="SLICE:COUNT, such as tools:20, language=de:10 or length>=2048:5; repeatable."
        ),
    ] = None,
    secrets: Annotated[
        str, typer.Option(help="Keys, addresses and numbers of people: mask, drop (the conversation) or refuse.")
    ] = "mask",
    broken: Annotated[str, typer.Option(help="Lines that may be broken, such as 1%.")] = "1%",
    adequacy: Annotated[
        str | None,
        typer.Option(help="Measure with this variant, such as W4A16, whether the samples are enough."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Gets the samples, calibration.json and report.html.")] = Path(
        "calibration"
    ),
    seed: CalibrationSeed = 0,
    quiet: Quiet = False,
) -> None:
    """Choose a calibration set out of your traffic: it covers what the traffic holds, without secrets and repetition.

    Name the folder under `calibration: {traffic: ...}` in release.yaml, or with `quantgate quantize --traffic`.
    """
    from quantgate.pipeline.calibration import calibrate_traffic
    from quantgate.report.calibrations import show_calibration

    with bars(quiet=quiet) as progress:
        found = calibrate_traffic(
            traffic,
            model=model,
            out=out,
            samples=samples,
            max_tokens=max_tokens,
            seed=seed,
            secrets=secrets,
            broken=broken,
            require=dict(_required(one) for one in require or ()),
            adequacy=adequacy,
            progress=progress,
        )
    show_calibration(found, console)
    console.print(f"the samples are in [bold]{out}[/], the whole report in [bold]{out / 'report.html'}[/]")


def _required(text: str) -> tuple[str, int]:
    name, colon, count = text.rpartition(":")
    if not colon or not count.isdigit():
        raise UsageError(f"--require {text}: expected SLICE:COUNT, such as tools:20 or language=de:10")
    return name, int(count)
