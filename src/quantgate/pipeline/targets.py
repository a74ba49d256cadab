"""``quantgate plan``: a release.yaml, or a model with variants and hardware, becomes a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.decide.planning import Plan, plan, plan_served, refuse_hopeless_targets
from quantgate.errors import UsageError
from quantgate.hardware import HERE, Profile, profile
from quantgate.hardware.profiles import normal
from quantgate.hardware.targets import Place
from quantgate.models import OpenedModel
from quantgate.models.outline import open_or_outline
from quantgate.pipeline.quantize_only import short_variant
from quantgate.pipeline.students import Students, open_student
from quantgate.pipeline.training_plan import outline_of
from quantgate.pipeline.variants import Import, Mixture, Student, rounded, runtimes_of, variants_of
from quantgate.quantize.manifest import Recipe
from quantgate.quantize.serving import ServedVariant, serve, serve_artifact
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig
from quantgate.variant_config import VariantConfig

if TYPE_CHECKING:
    from quantgate.quantize import Artifact

HERE_FILE = "here.json"  # in a run's folder: this machine, as it was when its targets were planned
USUAL = {"nvidia": "vllm", "amd": "vllm", "gaudi": "vllm", "intel-npu": "openvino"}  # others: llama.cpp
GGUF_ALONE = "llama.cpp"
VARIANTS = ("W8A8", "FP8_DYNAMIC", "W4A16")  # where nobody names any, of runtimes that read folders
BLOCKS = ("Q8_0", "Q4_K_M")  # and of llama.cpp


def plan_release(config: ReleaseConfig, *, saved: Path | None = None) -> Plan:
    """Every variant of a release on every target. ``saved``: where doctor's profile lies."""
    if not config.targets:
        raise UsageError(
            "plan: the release.yaml names no targets; add "
            "targets: {fleet: {hardware: h100-sxm, runtime: vllm}}, or say --on h100-sxm"
        )
    model = open_or_outline(config.model)
    recipes, students, left_out = _recipes(config.variants)
    own = any(one.suite is not None and Path(one.suite).suffix == ".jsonl" for one in config.capabilities.values())
    return plan(
        model,
        recipes,
        _places(config),
        _devices(_places(config), saved),
        traffic=config.calibration.traffic is not None,
        own_suites=own,
        left_out=left_out,
        others=_others(students, model),
    )


def preflight(config: ReleaseConfig, model: OpenedModel, devices: Mapping[str, Profile]) -> None:
    """Raises Unsupported for a target on which no variant of the release is known to run, before anything is spent.

    Variants that are not made yet, or were made elsewhere, may be meant for it: with one of those nothing is refused.
    """
    recipes, students, left_out = _recipes(config.variants)
    if config.targets and (recipes or students) and not left_out:
        refuse_hopeless_targets(plan(model, recipes, _places(config), devices, others=_others(students, model)))


def place(
    config: ReleaseConfig,
    model: OpenedModel,
    artifacts: Sequence[Artifact],
    devices: Mapping[str, Profile],
    students: Students,
) -> Plan | None:
    """Every artifact of a run on every target, by its very bytes; None where the release has no targets."""
    if not config.targets:
        return None
    caches = {name: told.kv_cache for name, told in runtimes_of(config.variants).items() if "kv_cache" in told.changed}
    made = [
        serve_artifact(students.model_of(one.name, model), one, kv_cache=caches.get(one.name, "")) for one in artifacts
    ]
    return plan_served(model, made, _places(config), devices)


def place_again(before: Plan | None, model: OpenedModel, artifacts: Sequence[Artifact]) -> Plan | None:
    """Other artifacts on the targets of an earlier plan; None where there was none."""
    if before is None:
        return None
    return plan_served(model, [serve_artifact(model, one) for one in artifacts], before.targets, before.devices)


def devices_of(config: ReleaseConfig, out: Path, saved: Path | None) -> dict[str, Profile]:
    """The device of every target. ``here``: what doctor saved, or what is measured now and kept in the run's folder."""
    kept = out / HERE_FILE
    if any(normal(one.hardware) == HERE for one in config.targets.values()) and not kept.is_file():
        found = profile(HERE, saved=saved) if saved is not None and saved.is_file() else _measured()
        found.save(kept)
    return _devices(_places(config), kept)


def _measured() -> Profile:
    from quantgate.hardware.detect import detect

    return detect(datetime.now(UTC).date().isoformat()).profile


def _places(config: ReleaseConfig) -> dict[str, Place]:
    return {name: one.place for name, one in config.targets.items()}


def plan_model(
    model: str | Path, variants: Sequence[str], on: Sequence[str], *, saved: Path | None = None, **settings: Any
) -> Plan:
    """``variants`` in short form (``W4A16:awq@fp8``) on hardware such as ``h100-sxm`` or ``h100-sxm:sglang``.

    ``settings`` are those of a target (``context``, ``price`` ...), the same for all.
    """
    targets = {}
    for one in on:
        name, _, served = one.partition(":")
        vendor = profile(name, where="--on", saved=saved).vendor
        told = {"hardware": name, "runtime": served or USUAL.get(vendor, "llama.cpp"), **settings}
        targets[one] = parse(Place, told, where=f"--on {one}")
    asked = [parse(VariantConfig, short_variant(one), where=f"variant {one}") for one in variants or _usual(targets)]
    recipes, _, left_out = _recipes(asked)
    return plan(open_or_outline(model), recipes, targets, _devices(targets, saved), left_out=left_out)


def _usual(targets: Mapping[str, Place]) -> tuple[str, ...]:
    """Variants that the runtimes of ``targets`` are mostly asked for."""
    blocks = [one.runtime == GGUF_ALONE for one in targets.values()]
    return (*(() if all(blocks) else VARIANTS), *(BLOCKS if any(blocks) else ()))


def _devices(targets: Mapping[str, Place], saved: Path | None) -> dict[str, Profile]:
    return {name: profile(one.hardware, where=f"target '{name}'", saved=saved) for name, one in targets.items()}


def _recipes(variants: Sequence[VariantConfig]) -> tuple[list[Recipe], list[Student], list[str]]:
    """Recipes, models of their own, and the variants whose bytes are not known before they are there."""
    recipes, students, left_out = list[Recipe](), list[Student](), list[str]()
    for one in variants_of(variants) if any(not one.is_baseline for one in variants) else []:
        if isinstance(one, Recipe):
            recipes.append(rounded(one))
        elif isinstance(one, Student):
            students.append(one)
        elif isinstance(one, Mixture):
            left_out.append(f"{one.name}: a mixture has no shape before it is made")
        elif isinstance(one, Import):
            left_out.append(f"{one.name}: an artifact that is there already is not opened by a plan")
    return recipes, students, left_out


def _others(students: Sequence[Student], model: OpenedModel) -> list[ServedVariant]:
    """Those that the run will distil by their shapes alone."""
    return [
        serve(
            open_student(one, weights=False) if one.shape is None else outline_of(model, one.shape),
            rounded(one.recipe),
            calibrated=True,
        )
        for one in students
    ]
