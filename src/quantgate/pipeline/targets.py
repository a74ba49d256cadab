"""``quantgate plan``: a release.yaml, or a model with variants and hardware, becomes a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantgate.decide.planning import Plan, plan, refuse_hopeless_targets
from quantgate.errors import UsageError
from quantgate.hardware import HERE, Profile, profile
from quantgate.hardware.profiles import normal
from quantgate.hardware.targets import TargetConfig
from quantgate.models import OpenedModel
from quantgate.models.outline import open_or_outline
from quantgate.pipeline.quantize_only import short_variant
from quantgate.pipeline.variants import Import, Mixture, variants_of
from quantgate.quantize.manifest import Recipe
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig
from quantgate.variant_config import VariantConfig

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
    recipes, left_out = _recipes(config.variants)
    own = any(one.suite is not None and Path(one.suite).suffix == ".jsonl" for one in config.capabilities.values())
    return plan(
        open_or_outline(config.model),
        recipes,
        config.targets,
        _devices(config.targets, saved),
        traffic=config.calibration.traffic is not None,
        own_suites=own,
        left_out=left_out,
    )


def preflight(config: ReleaseConfig, model: OpenedModel) -> None:
    """Raises Unsupported for a target on which no variant of the release is known to run, before anything is spent.

    Variants that are not made yet, or were made elsewhere, may be meant for it: with one of those nothing is refused.
    A target ``here`` is left to ``quantgate plan``, which knows where doctor's profile lies.
    """
    recipes, left_out = _recipes(config.variants)
    targets = {name: one for name, one in config.targets.items() if normal(one.hardware) != HERE}
    if targets and recipes and not left_out:
        refuse_hopeless_targets(plan(model, recipes, targets, _devices(targets, None)))


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
        targets[one] = parse(TargetConfig, told, where=f"--on {one}")
    asked = [parse(VariantConfig, short_variant(one), where=f"variant {one}") for one in variants or _usual(targets)]
    recipes, left_out = _recipes(asked)
    return plan(open_or_outline(model), recipes, targets, _devices(targets, saved), left_out=left_out)


def _usual(targets: Mapping[str, TargetConfig]) -> tuple[str, ...]:
    """Variants that the runtimes of ``targets`` are mostly asked for."""
    blocks = [one.runtime == GGUF_ALONE for one in targets.values()]
    return (*(() if all(blocks) else VARIANTS), *(BLOCKS if any(blocks) else ()))


def _devices(targets: Mapping[str, TargetConfig], saved: Path | None) -> dict[str, Profile]:
    return {name: profile(one.hardware, where=f"target '{name}'", saved=saved) for name, one in targets.items()}


def _recipes(variants: Sequence[VariantConfig]) -> tuple[list[Recipe], list[str]]:
    """Recipes, and the variants whose bytes are not known before they are there."""
    recipes, left_out = list[Recipe](), list[str]()
    for one in variants_of(variants) if any(not _baseline(one) for one in variants) else []:
        if isinstance(one, Recipe):
            recipes.append(one)
        elif isinstance(one, Mixture):
            left_out.append(f"{one.name}: a mixture has no shape before it is made")
        elif isinstance(one, Import):
            left_out.append(f"{one.name}: an artifact that is there already is not opened by a plan")
    return recipes, left_out


def _baseline(one: VariantConfig) -> bool:
    return one.scheme is not None and one.scheme.upper() in ("BF16", "BASELINE")
