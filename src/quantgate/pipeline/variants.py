"""The variants of a run: from release.yaml to recipes, and from artifacts to what decision and report need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import decide, formats
from quantgate.errors import UsageError
from quantgate.quantize.manifest import BASELINE, Recipe, in_container
from quantgate.records import parse
from quantgate.release_config import AUTO, VariantConfig
from quantgate.report import VariantSummary

if TYPE_CHECKING:
    from quantgate.engines import KernelPath
    from quantgate.quantize import Artifact


def recipes_of(variants: Sequence[VariantConfig]) -> list[Recipe]:
    """One recipe per variant; the baseline's own name is no variant, and a mixture has no recipe.

    Raises UsageError for an unknown scheme, a name that cannot name a folder, two variants of one name, and none.
    """
    others = (BASELINE, "BASELINE", AUTO.upper())
    recipes = [_recipe(one, at) for at, one in enumerate(variants, 1) if one.scheme.upper() not in others]
    names = [recipe.name for recipe in recipes] + [name_of(one) for one in variants if is_auto(one)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"variants: two are called '{name}'; give one of them another 'name'")
    if not names:
        raise UsageError("variants: names no variant besides the baseline; add one, such as W4A16")
    return recipes


def _recipe(one: VariantConfig, at: int) -> Recipe:
    where = f"variants, number {at}"
    scheme = formats.scheme(one.scheme, group_size=one.group_size, symmetric=one.symmetric, where=where)
    grid = scheme.weights
    data = {
        "scheme": scheme.name,
        "method": one.method or "",
        "group_size": (grid.group_size or -1) if scheme.packed and grid else None,
        "symmetric": False if grid is not None and not grid.symmetric else None,
        "options": one.options,
        "kv_cache": one.kv_cache or "",
        "container": one.container,
        "keep": one.keep,
        "label": one.name or in_container("-".join([scheme.label, *_parts(one)]), one.container),
    }
    return parse(Recipe, data, where=where)


def _parts(one: VariantConfig) -> list[str]:
    """What a variant's name tells beside its scheme."""
    return [*([one.method] if one.method else []), *([f"kv-{one.kv_cache}"] if one.kv_cache else [])]


def is_auto(variant: VariantConfig) -> bool:
    """Whether the variant is a mixture for a budget of bits."""
    return variant.scheme.lower() == AUTO


def name_of(variant: VariantConfig) -> str:
    """A mixture's name: ``auto-4.5``, unless the user calls it otherwise."""
    return variant.name or f"{AUTO}-{variant.bits:g}"


def candidate_of(artifact: Artifact) -> decide.Candidate:
    manifest = artifact.manifest
    return decide.Candidate(
        name=artifact.name,
        artifact=manifest.digest,
        stored_bytes=manifest.tensor_bytes,
        bits_per_weight=manifest.bits_per_weight,
        ledger=dict(Counter(note.event for note in manifest.ledger)),
    )


def summary_of(artifact: Artifact, out: Path) -> VariantSummary:
    manifest = artifact.manifest
    kept = [fate for fate in manifest.fates if fate.asked == "keep"]
    missed = [fate for fate in manifest.fates if fate.asked != fate.got and fate.asked != "keep"]
    return VariantSummary(
        name=artifact.name,
        artifact=manifest.digest,
        path=str(artifact.path.relative_to(out)),
        scheme=artifact.label,
        method=manifest.method,
        stored_bytes=manifest.tensor_bytes,
        bits_per_weight=manifest.bits_per_weight,
        bits_per_weight_whole=manifest.bits_per_weight_whole,
        quantized=len(manifest.quantized),
        kept=len(kept),
        fallbacks=tuple(f"{fate.name}: asked {fate.asked}, got {fate.got}: {fate.because}" for fate in missed),
        notes=tuple(f"{note.tensor}: {note.event}: {note.detail}" for note in manifest.ledger),
        mean_error=manifest.mean_error,
    )


def sentence_of(path: KernelPath) -> str:
    """A kernel path in words."""
    what = f"{path.linears} linears of {path.shape[0]} x {path.shape[1]}: {path.got}"
    return what if not path.because else f"{what} instead of {path.asked} ({path.because})"
