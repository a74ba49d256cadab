"""``quantgate doctor``: what this machine is and how fast, as a profile that targets can name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.screen import console


def saved_profile() -> Path:
    """Where ``doctor --save`` writes and ``plan`` looks for ``hardware: here``."""
    return Path(typer.get_app_dir("quantgate")) / "here.json"


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of the table.")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the profile: targets name it as 'hardware: here'.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the profile to this file instead.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to measure with; left out, torch's.")] = None,
) -> None:
    """Look at this machine: cores, instruction sets, memory and its measured bandwidth, GPUs, runtimes, compilers.

    Takes a few seconds. Exits with 0 whatever it finds.
    """
    import datetime

    from quantgate.hardware.detect import detect
    from quantgate.report.machines import show_machine

    found = detect(datetime.datetime.now(datetime.UTC).date().isoformat(), threads=threads)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        show_machine(found, console)
    if save or out is not None:
        path = found.profile.save(out or saved_profile())
        if not as_json:
            console.print(f"saved: [bold]{path}[/]; targets name it as [bold]hardware: here[/]", soft_wrap=True)
    elif not as_json:
        console.print("not saved; with --save, targets name this machine as hardware: here", style="dim")
