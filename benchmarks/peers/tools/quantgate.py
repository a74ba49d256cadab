"""quantgate itself: all jobs in one sweep, and ``auto`` mixtures put together from a sweep of their ingredients.

A job's ``options`` are further fields of its Recipe, so a new field of recipes needs no change here.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.tools.contract import IDLE, Facts, Job, Work, all_at_once
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline.auto import drift_of, ingredients, sizes_of
from quantgate.pipeline.variants import Mixture
from quantgate.quantize import BASELINE, Recipe
from quantgate.quantize.allocate import least_drift
from quantgate.quantize.mix import mix
from quantgate.quantize.sensitivity import sensitivity
from quantgate.quantize.sweep import sweep

AUTO = "auto"  # the method of a job that is a mixture
EXAMPLES = 24  # calibration rows that gradients are taken of


def make(work: Work) -> dict[str, Facts]:
    model = open_model(work.model)
    plain = [job for job in work.jobs if job.method not in (AUTO, IDLE)]
    if plain:
        sweep(model, work.rows(), [recipe_of(job) for job in plain], work.out)
    for job in work.jobs:
        if job.method == AUTO:
            _mixture(model, work, job)
    return {}


def recipe_of(job: Job) -> Recipe:
    weights = {"scheme": f"W{job.bits}A16", "group_size": job.group or "channel"}
    if not job.symmetric:
        weights["symmetric"] = False
    told = {"scheme": "W8A8"} if job.inputs8 else weights
    return Recipe.model_validate({**told, "method": job.method, "label": job.name, **job.options})


def _mixture(model: OpenedModel, work: Work, job: Job) -> None:
    """Least foreseen drift on the calibration rows within ``options["bits"]`` bits a weight of all linear layers."""
    bits, rows = float(job.options["bits"]), work.rows()
    parts = ingredients(model, [Mixture(job.name, bits, ())], [])
    made = sweep(model, rows, parts, Path(work.out) / f"{job.name}.parts")
    sources = {recipe.name: artifact for recipe, artifact in zip(parts, made, strict=True)}
    found = sensitivity(model, sources, {"calibration": [(row, 1) for row in rows[:EXAMPLES]]})
    sizes = sizes_of(model, sources, found)
    weights = sum(model.files.entry(f"{layer}.weight").weights for group in found.groups for layer in group)
    chosen = least_drift(drift_of(found), sizes, bits * weights / 8, {"calibration": 1.0})
    names = [*found.sources, BASELINE]
    choice = {layer: names[at] for group, at in zip(found.groups, chosen.choice, strict=True) for layer in group}
    mix(model, sources, choice, work.folder(job))


if __name__ == "__main__":
    all_at_once(make, ("torch", "transformers"))
