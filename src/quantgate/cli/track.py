"""``quantgate track TARGET --mlflow URI``: a target's releases in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.registries import URL, RegistryUrl, Target, opened
from quantgate.cli.screen import console, errors


def track(
    target: Target,
    mlflow: Annotated[
        str,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="Where MLflow is: http://host:5000, or sqlite:///mlflow.db."),
    ],
    all: Annotated[
        bool, typer.Option("--all", help="Every move that MLflow has not got, not the latest alone.")
    ] = False,
    card: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A model card for the latest move.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="The experiment's name there.")] = "quantgate",
    artifacts: Annotated[str, typer.Option(help="Where a new experiment keeps files, with sqlite.")] = "",
    registry: RegistryUrl = URL,
) -> None:
    """Copy a target's releases, with the evidence they rest on, to MLflow: one run for each move.

    The registry stays what counts: exits 4 where MLflow could not be told, and the next --all makes up for it.
    """
    from quantgate.release.tracking import track as tell

    found = tell(opened(registry), target, mlflow, all=all, card=card, experiment=experiment, artifacts=artifacts)
    if found.problem:
        errors.print(f"quantgate: {found.problem}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(4)
    console.print(f"{found.uri}: {found.logged} logged, {found.known} there already", soft_wrap=True, markup=False)
