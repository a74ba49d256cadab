"""Variants that are mixtures: ``{scheme: auto, bits: 4.5}`` becomes the mixture of least foreseen drift in that budget.

The ingredients are solved in the same sweep as the other variants. Each capability's drift is measured against its own
drift under the ingredient that comes closest to the budget, times its margin, so that no capability pays for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import formats
from quantgate.errors import UsageError
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side
from quantgate.models import OpenedModel
from quantgate.pipeline import probing
from quantgate.pipeline.two_models import Progress
from quantgate.pipeline.variants import Mixture
from quantgate.quantize.manifest import BASELINE, Recipe
from quantgate.quantize.mix import linears
from quantgate.release_config import ReleaseConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantgate.quantize import Artifact
    from quantgate.quantize.sensitivity import Sensitivity

INGREDIENTS = (("W3A16", 64), ("W4A16", 128), ("W4A16", 32), ("W8A16", None))  # scheme, group size


def ingredients(model: OpenedModel, mixed: Sequence[Mixture]) -> list[Recipe]:
    """What mixtures are made of, if any variant is one; layers that it keeps are kept in all of them."""
    keeps = {one.keep for one in mixed}
    if len(keeps) > 1:
        raise UsageError("variants: two of scheme auto keep different layers; let them keep the same ones")
    made = [_ingredient(model, scheme, size, keep) for keep in keeps for scheme, size in INGREDIENTS]
    return list({recipe.name: recipe for recipe in made}.values())


def _ingredient(model: OpenedModel, scheme: str, size: int | None, keep: tuple[str, ...]) -> Recipe:
    """Of the group size asked for, or of the largest smaller one that divides the columns of every layer."""
    columns = {model.files.entry(f"{layer}.weight").shape[1] for group in linears(model) for layer in group}
    sizes = [one for one in (128, 64, 32, 16) if size and one <= size and not any(width % one for width in columns)]
    label = f"{scheme}-g{sizes[0]}" if sizes else f"{scheme}-channel"
    label = formats.scheme(label).label
    return Recipe(
        scheme=scheme,
        group_size=sizes[0] if sizes else "channel",
        keep=keep,
        label=f"{label}-for-auto" if keep else label,
    )


def mixtures(
    config: ReleaseConfig,
    model: OpenedModel,
    wanted: Sequence[Mixture],
    sources: Mapping[str, Artifact],
    out: Path,
    progress: Progress,
) -> list[Artifact]:
    """One artifact for every variant of scheme auto, in their order. Raises UsageError for too small a budget."""
    from quantgate.engines.torch import open_engine
    from quantgate.quantize import baseline
    from quantgate.quantize.mix import mix

    if not wanted:
        return []
    engine = open_engine(model, baseline(model))
    base = Side(engine, Answers(out / "answers", engine.identity))
    found = probing.probe(config, model, sources, base, out, progress)
    sizes = sizes_of(model, sources, found)
    made = []
    for one in wanted:
        choice = best(config, model, found, sizes, one.bits, one.name)
        made.append(mix(model, sources, choice, out / "artifacts" / one.name))
    return made


def sizes_of(model: OpenedModel, sources: Mapping[str, Artifact], found: Sensitivity) -> NDArray[np.float64]:
    """[groups, sources and the model itself] bytes."""
    import numpy as np

    from quantgate.quantize.mix import cost

    every = [*sources.values(), None]
    return np.array(
        [[sum(cost(model, one, layer) for layer in group) for one in every] for group in found.groups], float
    )


def drift_of(found: Sensitivity) -> dict[str, NDArray[np.float64]]:
    """Capability -> [groups, sources and the model itself] foreseen nats per answer token; the model drifts by 0."""
    import numpy as np

    return {name: np.pad(found.kl(name).numpy(), ((0, 0), (0, 1))) for name in found.moves}


def best(
    config: ReleaseConfig, model: OpenedModel, found: Sensitivity, sizes: NDArray[np.float64], bits: float, where: str
) -> dict[str, str]:
    """Linear layer -> source, for a budget in bits per weight over all linear layers."""
    from quantgate.quantize.allocate import least_drift

    weights = sum(model.files.entry(f"{layer}.weight").weights for group in found.groups for layer in group)
    budget, drift = bits * weights / 8, drift_of(found)
    if budget < (smallest := sizes.min(axis=1).sum()):
        least = 8 * smallest / weights
        raise UsageError(f"{where}: {bits:g} bits are fewer than the smallest mixture has; give at least {least:.2f}")
    like = int(abs(sizes.sum(axis=0) - budget)[:-1].argmin())
    scales = {
        name: max(float(one[:, like].sum()), 1e-12) * config.capabilities[name].margin for name, one in drift.items()
    }
    names = [*found.sources, BASELINE]
    made = least_drift(drift, sizes, budget, scales)
    return {layer: names[source] for group, source in zip(found.groups, made.choice, strict=True) for layer in group}
