"""What training begins with: a post-training artifact of the same recipe, which it must beat.

Its scales and zero points are the first ones, and its codes. The sweep that makes it is the usual one: it goes on where
it was killed, and what it made is taken as it is by every later run of the recipe, with whatever options.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantgate.errors import UsageError
from quantgate.models import OpenedModel
from quantgate.quantize.artifact import Artifact
from quantgate.quantize.given import trained_variant
from quantgate.quantize.manifest import Recipe
from quantgate.quantize.plan import plan
from quantgate.quantize.reuse import Reuse
from quantgate.quantize.sweep import sweep
from quantgate.records import digest_of
from quantgate.train import Tell
from quantgate.train.options import QatOptions


def start_recipe(model: OpenedModel, recipe: Recipe, options: QatOptions, *, calibrated: bool) -> Recipe:
    """``recipe`` by the post-training method ``options.start``.

    Raises, before anything slow, UsageError and FormatError: a recipe that rounds nothing, groups that do not divide, a
    method that is none, or that needs samples when there are none.
    """
    variant = trained_variant(model, recipe)
    layers = [layer for block in range(model.depth) for group in model.linears(block) for layer in group]
    if all(layer in variant.kept for layer in layers):
        raise UsageError(
            f"recipe '{recipe.name}': all {len(layers)} linear layers are kept at full precision, so there is no "
            f"rounding to train for; the first, {layers[0]}: {variant.kept[layers[0]]}"
        )
    begun = recipe.model_copy(update={"method": options.start, "options": options.start_options, "label": ""})
    begun = begun.model_copy(update={"label": digest_of(begun.body()).removeprefix("sha256:")[:16]})
    plan(model, [begun], calibrated=calibrated)
    return begun


def make_start(
    model: OpenedModel, begun: Recipe, samples: Sequence[Sequence[int]] | None, folder: Path, *, seed: int, device: str,
    tell: Tell, reuse: Reuse | None = None,
) -> Artifact:  # fmt: skip
    """The artifact in ``folder``, under a name that follows from ``begun``. Raises what a sweep raises."""
    stages = set[str]()

    def progress(stage: str, done: int, total: int) -> None:
        stages.add(stage)
        tell(f"start: {stage}", done, total)

    (made,) = sweep(model, samples, [begun], folder, seed=seed, device=device, reuse=reuse, progress=progress)
    if not stages:
        tell(f"re-used: the start, {begun.scheme} by {begun.method}", 1, 1)
    return made
