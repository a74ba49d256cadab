"""A run whose ``out`` is an address (``s3://bucket/run``): worked on here, its artifacts and reports kept there.

    <out>/artifacts/<variant>.json          which folder is this variant's, and what it was made from
    <out>/artifacts/sha256-<digest>/        an artifact, never changed
    <out>/report.json, report.html, targets/*.html, junit.xml

Journals stay on this machine, in a folder that follows from the address.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.errors import StoreError
from quantgate.quantize.manifest import Recipe
from quantgate.records import Record, digest_of
from quantgate.store import is_address, pull, push, read_text, write_text

if TYPE_CHECKING:
    from quantgate.quantize import Artifact

WORK = Path("~/.cache/quantgate/runs")
Tell = Callable[[str, int, int, str], None]  # stage, done, total, what is being worked on


class Pointer(Record):
    """Where a variant's artifact is."""

    folder: str  # below artifacts/
    recipe: str  # digest
    weights: str  # digest of the model's


def folder_of(out: str | Path) -> Path:
    """Where a run works: ``out`` itself, or for an address the folder of this machine that belongs to it."""
    if not is_address(str(out)):
        return Path(out)
    return WORK.expanduser() / digest_of(str(out).rstrip("/"))[7:23]


def bring(out: str, folder: Path, recipes: Sequence[Recipe], weights: str, tell: Tell) -> None:
    """Fetch the artifacts of these recipes that an earlier run made on another machine, unless they are here."""
    for recipe in recipes if is_address(out) else ():
        target = folder / "artifacts" / recipe.name
        found = None if target.exists() else _pointer(out, recipe.name)
        if found is None or (found.recipe, found.weights) != (recipe.digest, weights):
            continue

        def told(file: str, done: int, total: int, name: str = recipe.name) -> None:
            tell("fetch", done, total, f"{name}: {file}")

        made = pull(f"{out.rstrip('/')}/artifacts/{found.folder}", kept=folder / "artifacts" / ".pulled", progress=told)
        os.replace(made, target)


def send(out: str, artifacts: Sequence[Artifact], folder: Path, tell: Tell) -> None:
    """Put the artifacts that lie in the run's ``folder`` under the address, each below its digest."""
    for artifact in artifacts if is_address(out) else ():
        if artifact.is_baseline or not artifact.path.is_relative_to(folder):
            continue

        def told(file: str, done: int, total: int, name: str = artifact.name) -> None:
            tell("send", done, total, f"{name}: {file}")

        sent = push(artifact.path, f"{out.rstrip('/')}/artifacts", told)
        manifest = artifact.manifest
        pointer = Pointer(folder=sent.rpartition("/")[2], recipe=manifest.recipe.digest, weights=manifest.model.weights)
        write_text(f"{out.rstrip('/')}/artifacts", f"{artifact.name}.json", pointer.model_dump_json())


def send_reports(out: str, folder: Path) -> None:
    pages = sorted(f"targets/{page.name}" for page in (folder / "targets").glob("*.html"))
    for name in ("report.json", "report.html", *pages, "junit.xml") if is_address(out) else ():
        write_text(out, name, (folder / name).read_text("utf-8"))


def _pointer(out: str, name: str) -> Pointer | None:
    text = read_text(f"{out.rstrip('/')}/artifacts", f"{name}.json")
    if text is None:
        return None
    try:
        return Pointer.model_validate_json(text)
    except ValueError:
        raise StoreError(f"{out}/artifacts/{name}.json: cannot be read; delete it, the variant is made again") from None
