"""Variants that are mixtures: ``{scheme: auto, bits: 4.5}`` becomes the mixture of least foreseen drift in that budget.

Budgets of bytes and of latency (``budgets``) may stand beside bits, or instead of them; each is kept.

The ingredients are solved in the same sweep as the other variants. Each capability's drift is measured against its own
drift under the ingredient that comes closest to the budget, times its margin, so that no capability pays for another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import formats
from quantgate.errors import FormatError, UsageError
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side
from quantgate.models import OpenedModel
from quantgate.pipeline import probing
from quantgate.pipeline.budgets import Budgets, Tables
from quantgate.pipeline.two_models import Progress
from quantgate.pipeline.variants import Mixture, recipe_of
from quantgate.quantize.manifest import BASELINE, GGUF, Recipe
from quantgate.quantize.mix import linears
from quantgate.records import Record
from quantgate.release_config import ReleaseConfig
from quantgate.variant_config import VariantConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantgate.quantize import Artifact
    from quantgate.quantize.allocate import Allocation
    from quantgate.quantize.sensitivity import Sensitivity

INGREDIENTS = (("W3A16", 64), ("W4A16", 128), ("W4A16", 32), ("W8A16", None))  # scheme, group size
IN_BLOCKS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")  # those of a GGUF file; their ends are the same in all


def ingredients(model: OpenedModel, mixed: Sequence[Mixture], recipes: Sequence[Recipe]) -> list[Recipe]:
    """What mixtures are made of, if there is one; layers that it keeps are kept in all of them.

    One of the run's own ``recipes`` serves where it is the same but for its name. Raises UsageError for mixtures that
    keep different layers, or bear an ingredient's name; FormatError for a model that is not mixed.
    """
    if not mixed:
        return []
    if model.has_experts:
        raise FormatError(f"{mixed[0].name}: scheme auto does not mix formats among experts yet; name schemes instead")
    keeps = {one.keep for one in mixed}
    if len(keeps) > 1:
        raise UsageError("variants: two of scheme auto keep different layers; let them keep the same ones")
    (keep,) = keeps
    if len({one.container for one in mixed}) > 1:
        raise UsageError("variants: two of scheme auto have different containers; let them have the same one")
    taken = {recipe.name for recipe in recipes}
    made = dict[str, Recipe]()
    if mixed[0].container == GGUF:
        lent = [_in_blocks(model, scheme, keep) for scheme in IN_BLOCKS]
    else:
        lent = [_ingredient(model, scheme, size, keep) for scheme, size in INGREDIENTS]
    for wanted in lent:
        same = next((one for one in recipes if one.model_copy(update={"label": wanted.label}) == wanted), None)
        if same is None and wanted.name in taken:
            wanted = wanted.model_copy(update={"label": f"{wanted.label}-for-auto"})
        found = same or wanted
        made[found.name] = found
    for one in mixed:
        if one.name in made:
            raise UsageError(f"variants: a mixture cannot be called '{one.name}', since one of its parts is; rename it")
    return list(made.values())


def _ingredient(model: OpenedModel, scheme: str, size: int | None, keep: tuple[str, ...]) -> Recipe:
    """Of the group size asked for, or of the largest smaller one that divides the columns of every layer."""
    columns = {model.files.entry(f"{layer}.weight").shape[1] for group in linears(model) for layer in group}
    sizes = [one for one in (128, 64, 32, 16) if size and one <= size and not any(width % one for width in columns)]
    found = formats.scheme(f"{scheme}-g{sizes[0]}" if sizes else f"{scheme}-channel")
    return recipe_of(VariantConfig(scheme=found.label, keep=keep), "scheme auto")


def _in_blocks(model: OpenedModel, scheme: str, keep: tuple[str, ...]) -> Recipe:
    table = "Q6_K" if model.tied else "Q4_K"
    wanted = VariantConfig(scheme=scheme, keep=keep, lm_head="Q6_K", embeddings=table, name=f"{scheme}-for-auto")
    return recipe_of(wanted, "scheme auto")


def mixtures(
    config: ReleaseConfig,
    model: OpenedModel,
    wanted: Sequence[Mixture],
    sources: Mapping[str, Artifact],
    out: Path,
    progress: Progress,
    tables: Tables,
) -> list[Artifact]:
    """One artifact for every variant of scheme auto, in their order, each within all its budgets."""
    from quantgate.engines.torch import open_engine
    from quantgate.quantize import baseline
    from quantgate.quantize.mix import mix

    if not wanted:
        return []
    engine = open_engine(model, baseline(model))
    base = Side(engine, Answers(out / "answers", engine.identity))
    found = probing.probe(config, model, sources, base, out, progress)
    sizes = sizes_of(model, sources, found)
    _frontier(config, model, found, sizes, out)
    made, told = [], []
    for one in wanted:
        best, scales = _best(config, found, tables, one)
        names = [*found.sources, BASELINE]
        choice = {
            layer: names[source] for group, source in zip(found.groups, best.choice, strict=True) for layer in group
        }
        made.append(mix(model, sources, choice, out / "artifacts" / one.name))
        told.append(tables.budgeted(one, best, drift_of(found), scales))
    Budgets(mixtures=tuple(told), timings=tables.timings).save(out / "budgets.json")
    return made


class FrontierPoint(Record):
    """A mixture of least foreseen drift at its size."""

    bytes: int  # of all linear layers, scales included
    bits_per_weight: float
    drift: dict[str, float]  # capability -> foreseen nats per answer token
    sources: dict[str, int]  # source -> groups of layers that come from it


class Frontier(Record):
    """Size against drift for every mixture worth making: ``frontier.json`` beside the artifacts of a run with auto."""

    points: tuple[FrontierPoint, ...]  # the smallest first


def _frontier(
    config: ReleaseConfig, model: OpenedModel, found: Sensitivity, sizes: NDArray[np.float64], out: Path
) -> None:
    import numpy as np

    from quantgate.quantize.allocate import frontier

    weights, drift = _weights(model, found), drift_of(found)
    at, names, points = np.arange(len(sizes)), [*found.sources, BASELINE], list[FrontierPoint]()
    for one in frontier(drift, sizes, _scales(config, drift, 1)):
        counts = Counter(names[source] for source in one.choice)
        moved = {name: float(table[at, one.choice].sum()) for name, table in drift.items()}
        bits = 8 * one.bytes / weights
        points.append(FrontierPoint(bytes=one.bytes, bits_per_weight=bits, drift=moved, sources=dict(counts)))
    Frontier(points=tuple(points)).save(out / "frontier.json")


def _weights(model: OpenedModel, found: Sensitivity) -> int:
    return sum(model.files.entry(f"{layer}.weight").weights for group in found.groups for layer in group)


def _scales(config: ReleaseConfig, drift: Mapping[str, NDArray[np.float64]], like: int) -> dict[str, float]:
    """What each capability's drift is measured in: its own under source ``like``, times its margin."""
    return {
        name: max(float(one[:, like].sum()), 1e-12) * config.capabilities[name].margin for name, one in drift.items()
    }


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


def _best(
    config: ReleaseConfig, found: Sensitivity, tables: Tables, one: Mixture
) -> tuple[Allocation, dict[str, float]]:
    """The mixture of least foreseen drift within all budgets of ``one``, and what each capability's is measured in.

    That is its drift under the source that comes closest to the first budget.
    """
    import numpy as np

    from quantgate.quantize.allocate import least_drift

    limits, drift = [limit for _, limit in tables.limits(one)], drift_of(found)
    like = int(abs(limits[0].table.sum(axis=0) - limits[0].most)[:-1].argmin())
    scales = _scales(config, drift, like)
    if one.bits is not None:
        return least_drift(drift, tables.sizes, limits[0].most, scales, limits[1:]), scales
    return least_drift(drift, tables.sizes, np.inf, scales, limits), scales
