"""``quantgate register``: what a finished run made and decided becomes known to the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantgate.cli.registries import URL, By, RegistryUrl, opened, then
from quantgate.cli.screen import console, errors

if TYPE_CHECKING:
    from quantgate.decide import Decision
    from quantgate.decide.targets import TargetDecision


def register(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")] = Path("runs/release"),
    target: Annotated[
        str | None, typer.Option(help="What to call the target of a run whose release.yaml names none.")
    ] = None,
    new_baseline: Annotated[
        bool,
        typer.Option(
            "--new-baseline", help="Targets that serve another full-precision model take this run's, at once."
        ),
    ] = False,
    registry: RegistryUrl = URL,
    by: By = None,
) -> None:
    """Put a run's variants, evidence and decisions into the registry, from which they can be promoted.

    Nothing is served by it yet: a target that is new starts with the baseline. Doing it again adds nothing.
    """
    from quantgate.pipeline.registering import read_run, register_run

    found = read_run(run, target=target)
    to = opened(registry, by, create=True)
    done = register_run(to, found, new_baseline=new_baseline)
    for note in found.notes:
        errors.print(f"quantgate: {note}", soft_wrap=True, markup=False)
    for name, decision in found.decisions.items():
        passed = [one.variant for one in decision.verdicts if one.verdict == "pass" and one.eligible]
        told = f"may be promoted: {', '.join(passed)}" if passed else "nothing may be promoted"
        best = f" (chosen: {decision.chosen})" if decision.chosen and len(passed) > 1 else ""
        new = ", new, serves the baseline" if name in done.opened else ""
        console.print(f"{name}{new}: {told}{best}", soft_wrap=True, markup=False)
    console.print(f"{done.added} records added to {to.name}", soft_wrap=True, markup=False)
    for name, decision in found.decisions.items():
        if first := _first(decision):
            then(f"quantgate promote {name} {first} --canary 5%", registry)
            break


def _first(decision: Decision | TargetDecision) -> str | None:
    """What would be promoted first: the chosen one, else any that passed."""
    passed = [one.variant for one in decision.verdicts if one.verdict == "pass" and one.eligible]
    return decision.chosen or next(iter(passed), None)
