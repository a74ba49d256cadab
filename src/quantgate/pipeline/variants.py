"""The variants of a run: from release.yaml to recipes, and from artifacts to what decision and report need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import decide, formats
from quantgate.endpoint_config import EndpointConfig
from quantgate.errors import UsageError
from quantgate.models import OpenedModel
from quantgate.models.locate import locate
from quantgate.quantize.ends import ends_of, parts_of, sentences
from quantgate.quantize.manifest import (
    BASELINE,
    CONTAINER,
    GGUF,
    KEEP,
    QAT,
    SAFE_NAME,
    Recipe,
    in_container,
    outside_in_words,
)
from quantgate.records import parse
from quantgate.report import VariantSummary
from quantgate.train.options import DistillOptions, QatOptions
from quantgate.variant_config import AUTO, RuntimeConfig, VariantConfig

if TYPE_CHECKING:
    from quantgate.engines import KernelPath
    from quantgate.quantize import Artifact


@dataclass(frozen=True)
class Import:
    """A variant that is there already."""

    name: str
    ref: str  # folder, Hugging Face id or GGUF file


@dataclass(frozen=True)
class Mixture:
    """A variant that is put together from others within budgets, of which it has one at least."""

    name: str
    bits: float | None  # per weight of the linear layers, scales included
    keep: tuple[str, ...]
    bytes: int | None = None  # of the whole artifact
    latency: float | None = None  # milliseconds of all linear layers for one token
    container: str = CONTAINER  # of what it is made of, and of itself


@dataclass(frozen=True)
class Student:
    """A variant that is a model of its own, as it is or made smaller here."""

    name: str
    ref: str  # folder, address or Hugging Face id; of one that this run distils, what it is called
    recipe: Recipe  # of the scheme BF16: the model as it is
    shape: DistillOptions | None = None  # of one that this run distils

    @property
    def made(self) -> bool:
        return self.recipe.scheme != BASELINE


def variants_of(variants: Sequence[VariantConfig]) -> list[Recipe | Import | Mixture | Student]:
    """What is to be made, mixed, or taken as it is, in order; the baseline's own name is no variant.

    Raises UsageError for an unknown scheme, a name that cannot name a folder, two variants of one name, and none.
    """
    found: list[Recipe | Import | Mixture | Student] = []
    for at, one in enumerate(variants, 1):
        if one.model is not None:
            found.append(_student(one, one.model, at))
        elif one.student is not None:
            found.append(_student(one, called(one.student), at))
        elif one.artifact is not None:
            found.append(_import(one.artifact, one.name, at))
        elif one.scheme is not None and one.scheme.lower() == AUTO:
            found.append(_mixture(one, at))
        elif one.made:
            found.append(recipe_of(one, f"variants, number {at}"))
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"variants: two are called '{name}'; give one of them another 'name'")
    if not found:
        raise UsageError("variants: names no variant besides the baseline; add one, such as W4A16")
    return found


def engines_of(variants: Sequence[VariantConfig]) -> dict[str, str]:
    """Which engine answers for which variant, by the variants' names."""
    return {name: one.engine for name, one in _named(variants)}


def runtimes_of(variants: Sequence[VariantConfig]) -> dict[str, RuntimeConfig]:
    """How llama.cpp is set for the variants that say so, by their names."""
    return {name: one.runtime for name, one in _named(variants) if one.runtime is not None}


def endpoints_of(variants: Sequence[VariantConfig]) -> dict[str, EndpointConfig]:
    """Which servers run the variants that have one, by their names."""
    return {name: one.endpoint for name, one in _named(variants) if one.endpoint is not None}


def _named(variants: Sequence[VariantConfig]) -> list[tuple[str, VariantConfig]]:
    asked = [one for one in variants if not one.is_baseline]
    return [(made.name, one) for made, one in zip(variants_of(variants), asked, strict=True)]


def recipes_of(variants: Sequence[VariantConfig]) -> list[Recipe]:
    """One recipe per variant, where nothing but making is asked for. Raises UsageError, also for an artifact."""
    found = variants_of(variants)
    for one in found:
        if isinstance(one, Import):
            raise UsageError(
                f"variants: '{one.name}' is an artifact already, and there is nothing to make; leave it out"
            )
        if isinstance(one, Student):
            raise UsageError(
                f"variants: '{one.name}' is a model of its own; quantize it by itself, as quantgate quantize {one.ref}"
            )
        if isinstance(one, Mixture):
            raise UsageError(
                "scheme auto needs to know what must be kept; write it into a release.yaml: quantgate init"
            )
    recipes = [one for one in found if isinstance(one, Recipe)]
    for recipe in recipes:
        if trains(recipe):
            raise UsageError(
                f"variants: '{recipe.name}' is trained, which rounding alone does not do; train it by itself, as "
                f"quantgate train qat --scheme {recipe.scheme}, or in a release.yaml beside others"
            )
    return recipes


def trains(recipe: Recipe) -> bool:
    """Whether its codes are trained, and not only chosen."""
    return recipe.method == QAT


def training_of(recipe: Recipe) -> QatOptions:
    """The options of a recipe that is trained."""
    return parse(QatOptions, recipe.options, where=f"variant '{recipe.name}', options of {QAT}")


def rounded(recipe: Recipe) -> Recipe:
    """The recipe as rounding alone makes it, which is what training starts with: the same layers, to the same bytes."""
    if not trains(recipe):
        return recipe
    options = training_of(recipe)
    first = {"method": options.start, "options": options.start_options, "label": recipe.name}
    return recipe.model_copy(update=first)


def called(shape: DistillOptions) -> str:
    """What a student is called after its shape: ``student-l4``."""
    from quantgate.train.prune import student_name

    return student_name(shape)


def open_variant(ref: str, model: OpenedModel, name: str = "") -> Artifact:
    """An artifact of ours or of another program, checked against its baseline ``model``.

    Raises UsageError when ours was made from another model, ArtifactError and ModelError when it cannot be read.
    """
    from quantgate.quantize import open_artifact
    from quantgate.quantize.foreign import open_foreign

    if ref.lower().endswith(".gguf"):
        from quantgate.quantize.foreign.gguf import open_gguf_artifact

        return open_gguf_artifact(ref, model, name)
    folder = locate(ref)
    if not (folder / "manifest.json").is_file():
        return open_foreign(folder, model, name)
    artifact = open_artifact(folder)
    made_from = artifact.manifest.model
    if (made_from.tokenizer, made_from.template) != (model.tokenizer_digest, model.template_digest):
        raise UsageError(
            f"{ref}: was made from {made_from.ref}, whose tokenizer or chat template differs from that of {model.ref}; "
            "compare it with the model it was made from"
        )
    return replace(artifact, called=name)


def _import(ref: str, name: str | None, at: int) -> Import:
    return Import(_safe(name or Path(ref).name.removesuffix(".gguf"), at), ref)


def _student(one: VariantConfig, ref: str, at: int) -> Student:
    """Without a name it is called after its folder, and after what is made of it."""
    folder = Path(ref.rstrip("/")).name
    if not one.made:
        name = _safe(one.name or folder, at)
        return Student(name, ref, Recipe(scheme=BASELINE, label=name), one.student)
    recipe = recipe_of(one, f"variants, number {at}")
    name = _safe(one.name or f"{folder}-{recipe.name}", at)
    return Student(name, ref, recipe.model_copy(update={"label": name}), one.student)


def _mixture(one: VariantConfig, at: int) -> Mixture:
    told = [
        *([] if one.bits is None else [f"{one.bits:g}"]),
        *([] if one.bytes is None else [f"{one.bytes / 1e6:g}MB"]),
        *([] if one.latency is None else [f"{one.latency:g}ms"]),
    ]
    name = one.name or "-".join([AUTO, *told, *([GGUF] if one.container == GGUF else [])])
    return Mixture(_safe(name, at), one.bits, one.keep, one.bytes, one.latency, one.container)


def _safe(name: str, at: int) -> str:
    if not SAFE_NAME.fullmatch(name):
        raise UsageError(
            f"variants, number {at}: '{name}' cannot name a variant; use letters, digits, '.', '_' and '-' in 'name'"
        )
    return name


def recipe_of(one: VariantConfig, where: str) -> Recipe:
    """The recipe of a variant that is to be made. Raises UsageError."""
    wanted = one.scheme or BASELINE
    scheme = formats.scheme(wanted, group_size=one.group_size, symmetric=one.symmetric, where=where)
    grid = scheme.weights
    data = {
        "scheme": scheme.name,
        "method": one.method or "",
        "group_size": (grid.group_size or -1) if scheme.sized and grid else None,
        "symmetric": False if grid is not None and not grid.symmetric else None,
        "options": one.options,
        "kv_cache": one.kv_cache or "",
        "rotation": one.rotation or "",
        "container": one.container,
        "keep": one.keep,
        "lm_head": _end(one.lm_head, f"{where}, lm_head"),
        "embeddings": _end(one.embeddings, f"{where}, embeddings"),
        "untie": one.untie,
        "label": one.name or in_container("-".join([scheme.label, *_parts(one)]), one.container),
    }
    return parse(Recipe, data, where=where)


def _parts(one: VariantConfig) -> list[str]:
    """What a variant's name tells beside its scheme."""
    turned = ["rot"] if one.rotation else []
    outside = outside_in_words(_end(one.lm_head, "lm_head"), _end(one.embeddings, "embeddings"), untie=one.untie)
    return [*([one.method] if one.method else []), *turned, *([f"kv-{one.kv_cache}"] if one.kv_cache else []), *outside]


def _end(asked: str, where: str) -> str:
    """``keep``, or the label of the scheme that is ``asked``. Raises UnknownName."""
    return KEEP if asked.lower() == KEEP else formats.scheme(asked, where=where).label


def candidate_of(artifact: Artifact) -> decide.Candidate:
    manifest = artifact.manifest
    return decide.Candidate(
        name=artifact.name,
        artifact=manifest.digest,
        stored_bytes=manifest.tensor_bytes,
        bits_per_weight=manifest.bits_per_weight,
        ledger=dict(Counter(note.event for note in manifest.ledger)),
    )


def summary_of(artifact: Artifact, out: Path, model: OpenedModel, budgets: Sequence[str] = ()) -> VariantSummary:
    """``budgets``: sentences on what a mixture made of its budgets; they stand before the ledger's."""
    from quantgate.quantize.mix import mixable

    manifest = artifact.manifest
    kept = [fate for fate in manifest.fates if fate.asked == "keep"]
    missed = [fate for fate in manifest.fates if fate.asked != fate.got and fate.asked != "keep"]
    return VariantSummary(
        name=artifact.name,
        artifact=manifest.digest,
        path=str(artifact.path.relative_to(out) if artifact.path.is_relative_to(out) else artifact.path.resolve()),
        scheme=artifact.label,
        method=manifest.method,
        stored_bytes=manifest.tensor_bytes,
        bits_per_weight=manifest.bits_per_weight,
        bits_per_weight_whole=manifest.bits_per_weight_whole,
        quantized=len(manifest.quantized),
        kept=len(kept),
        fallbacks=tuple(f"{fate.name}: asked {fate.asked}, got {fate.got}: {fate.because}" for fate in missed),
        notes=(*budgets, *(f"{note.tensor}: {note.event}: {note.detail}" for note in manifest.ledger)),
        mean_error=manifest.mean_error,
        ends=sentences(ends := ends_of(artifact, model), parts_of(manifest.fates, ends), manifest.tensor_bytes),
        training=() if manifest.training is None else (manifest.training,),
        repairable=not artifact.rounds_inputs and not mixable(model, artifact.name, artifact),
    )


def sentences_of(paths: Sequence[KernelPath]) -> tuple[str, ...]:
    """Kernel paths in words; layers of one shape that run alike are counted together, whatever they are stored in."""
    counts = Counter[tuple[tuple[int, int], str]]()
    for path in paths:
        instead = f" instead of {path.asked} ({path.because})" if path.because else ""
        counts[path.shape, path.got + instead] += path.linears
    return tuple(f"{count} linears of {out} x {columns}: {how}" for ((out, columns), how), count in counts.items())
