"""Before a GPU hour is spent: every variant on every target, what runs there, whether it fits, how fast, at what cost.

A combination that is known not to run is refused with its rule and source; what a roofline cannot reach is said to be
out of reach. What passes here is possible, and nothing more: a load test and the gates decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from quantgate.errors import Unsupported, UsageError
from quantgate.formats import Scheme
from quantgate.hardware import Estimate, Load, Memory, Profile, Support, roofline, runtime, support
from quantgate.hardware.quantities import told_bytes, told_seconds
from quantgate.hardware.targets import Place
from quantgate.models import OpenedModel
from quantgate.models.kinship import told_blocks
from quantgate.quantize import methods
from quantgate.quantize.manifest import BASELINE, Recipe
from quantgate.quantize.serving import ServedVariant, serve
from quantgate.records import Record

SMALL, SMALLER = 7e9, 3e9  # parameters below which four bits are known to hurt, and to hurt much


class PlanRow(Record):
    """One variant on one target."""

    variant: str
    target: str
    stored_bytes: int  # tensors of the artifact
    support: Support
    estimate: Estimate | None  # None where nothing runs
    speedup: float | None = None  # of a decoded token, over the baseline on the same target
    unmet: tuple[str, ...] = ()  # objectives that the roofline itself misses
    warnings: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """It runs, it fits as far as is known, and no objective is out of reach."""
        return self.estimate is not None and self.estimate.fits is not False and not self.unmet


class Plan(Record):
    """All rows, target by target, the baseline first."""

    model: str
    parameters: int
    baseline_bytes: int
    targets: dict[str, Place]
    devices: dict[str, Profile] = {}  # of the targets, by the same names: the figures that the rows come from
    rows: tuple[PlanRow, ...]
    warnings: tuple[str, ...] = ()  # of the release as a whole
    left_out: tuple[str, ...] = ()  # variants that cannot be planned before they are made, each with the reason
    others: tuple[str, ...] = Field(default=(), exclude_if=lambda others: not others)
    """Variants that are models of their own, a sentence each."""

    def of(self, target: str) -> list[PlanRow]:
        return [row for row in self.rows if row.target == target]


def plan(
    model: OpenedModel,
    recipes: Sequence[Recipe],
    targets: Mapping[str, Place],
    devices: Mapping[str, Profile],
    *,
    traffic: bool = True,
    own_suites: bool = True,
    left_out: Sequence[str] = (),
    others: Sequence[ServedVariant] = (),
) -> Plan:
    """``recipes`` on ``targets``, whose devices are ``devices`` by the same names.

    ``traffic``: the calibration set is the product's own; ``own_suites``: so is at least one suite; ``others`` are
    variants that are models of their own. Raises what a sweep would raise before anything slow, UsageError without a
    target.
    """
    if not targets:
        raise UsageError("plan: names no target; write targets into the release.yaml, or say --on h100-sxm")
    named = [one for one in recipes if one.scheme.upper() != BASELINE]
    variants = [*(serve(model, one, calibrated=True) for one in named), *others]
    return plan_served(model, variants, targets, devices, traffic=traffic, own_suites=own_suites, left_out=left_out)


def plan_served(
    model: OpenedModel,
    made: Sequence[ServedVariant],
    targets: Mapping[str, Place],
    devices: Mapping[str, Profile],
    *,
    traffic: bool = True,
    own_suites: bool = True,
    left_out: Sequence[str] = (),
) -> Plan:
    """``plan`` of variants whose bytes are known, made or foretold; they may be models of their own."""
    variants = [serve(model, Recipe(scheme=BASELINE)), *made]
    rows = []
    for name, target in targets.items():
        first: Estimate | None = None
        for at, variant in enumerate(variants):
            row = _row(variant, name, target, devices[name], first, _without_data(variant) if at else "")
            first = row.estimate if at == 0 else first
            rows.append(row)
    return Plan(
        model=model.ref,
        parameters=model.parameters,
        baseline_bytes=variants[0].stored_bytes,
        targets=dict(targets),
        devices={name: devices[name] for name in targets},
        rows=tuple(rows),
        warnings=tuple(_of_release(variants[1:], traffic, own_suites)),
        left_out=tuple(left_out),
        others=tuple(_of_other(one, model) for one in made if one.model is not model),
    )


def _of_other(variant: ServedVariant, model: OpenedModel) -> str:
    own = variant.model
    return (
        f"{variant.name}: a model of its own ({own.ref}), {told_blocks(own.depth)} (baseline: {model.depth}), "
        f"{own.parameters:,} parameters (baseline: {model.parameters:,})"
    )


def refuse_hopeless_targets(found: Plan) -> None:
    """Raises Unsupported for the first target on which no variant runs, with the rule that stops the first of them."""
    for name in found.targets:
        rows = found.of(name)
        variants = rows[1:] or rows
        if all(row.estimate is None for row in variants):
            first = variants[0]
            raise Unsupported(
                f"target '{name}': {first.variant}: {first.support.problems[0]} "
                f"[{first.support.source}, {first.support.date}]"
            )


def _row(
    variant: ServedVariant, name: str, target: Place, device: Profile, baseline: Estimate | None, without: str
) -> PlanRow:
    kv_cache = target.kv_cache if target.kv_cache != "auto" else variant.kv_cache or "auto"
    found = _supported(variant, target, device, kv_cache)
    common = {"variant": variant.name, "target": name, "stored_bytes": variant.stored_bytes, "support": found}
    if not found.runs:
        return PlanRow.model_validate(common | {"estimate": None})
    estimate = roofline(variant.served(found), device, found, runtime(target.runtime), load_of(target, kv_cache))
    return PlanRow.model_validate(
        common
        | {
            "estimate": estimate,
            "speedup": None if baseline is None else baseline.tpot_s / estimate.tpot_s,
            "unmet": tuple(_unmet(target, estimate)),
            "warnings": (*_warnings(variant, found, device), *([without] if without else [])),
        }
    )


def _supported(variant: ServedVariant, target: Place, device: Profile, kv_cache: str) -> Support:
    """Of a mixture the scheme of most weights says what runs, and each of the others must run as well."""
    every = [
        support(
            target.runtime,
            one,
            variant.container,
            device,
            variant.geometry,
            target.tensor_parallel,
            kv_cache=kv_cache,
        )
        for one in (variant.scheme, *variant.others)
    ]
    first = every[0]
    return first.model_copy(
        update={
            "problems": tuple(dict.fromkeys(told for one in every for told in one.problems)),
            "fallback": "; ".join(dict.fromkeys(one.fallback for one in every if one.fallback)),
            "needs": "; ".join(dict.fromkeys(one.needs for one in every if one.needs)),
        }
    )


def load_of(target: Place, kv_cache: str) -> Load:
    """What a target asks of its device."""
    return Load(
        prompt=target.prompt,
        answer=target.answer,
        context=target.tokens,
        concurrency=target.concurrency,
        kv_cache=kv_cache,
        tensor_parallel=target.tensor_parallel,
        memory_bytes=target.memory,
        price=target.price,
    )


def _unmet(target: Place, estimate: Estimate) -> Iterator[str]:
    """Objectives that no kernel can meet there."""
    for (latency, percentile), asked in target.promises.items():
        least = least_of(target, estimate, latency)
        if least is not None and least > asked:
            yield (
                f"{latency}_p{percentile} of {told_seconds(asked)} is out of reach: "
                f"at best it takes {told_seconds(least)}"
            )
    if target.rate is not None and estimate.requests_per_s is not None and estimate.requests_per_s < target.rate:
        yield (
            f"rate of {target.rate:g}/s is out of reach with {target.concurrency} at once: at best "
            f"{estimate.requests_per_s:.2g}/s; raise concurrency, or add devices"
        )
    if estimate.fits is False and estimate.memory.available is not None:
        yield f"needs {memory_sentence(estimate.memory)}; {told_bytes(estimate.memory.available)} are there"


def memory_sentence(memory: Memory) -> str:
    """What memory holds, the largest part first: ``82.7 GB of memory (cache 42.9 GB, weights 39.5 GB)``."""
    held = {
        "weights": memory.weights - memory.mapped, "cache": memory.cache, "activations": memory.activations,
        "the runtime itself": memory.process,
    }  # fmt: skip
    if memory.opening > sum(held.values()) - memory.process:
        held = {"weights in 16 bits while it is opened": memory.opening, "the runtime itself": memory.process}
    parts = sorted(((size, name) for name, size in held.items() if size >= 0.005 * memory.needed), reverse=True)
    return f"{told_bytes(memory.needed)} of memory ({', '.join(f'{name} {told_bytes(size)}' for size, name in parts)})"


def _without_data(variant: ServedVariant) -> str:
    """Four bits and fewer that are rounded without having seen a sample."""
    weights = variant.scheme.weights
    if weights is None or weights.bits > 4 or not variant.method or methods.get(variant.method).needs_stats:
        return ""
    told = f"{variant.method} sees no calibration data"
    return f"{told}: at four bits and fewer, gptq or awq with samples of your traffic lose less"


def least_of(target: Place, estimate: Estimate, latency: str) -> float | None:
    """Seconds that no kernel goes below: the roofline's, for a prompt and an answer of the target's lengths."""
    if latency == "tpot":
        return estimate.tpot_s
    if latency == "ttft" or estimate.ttft_s is None:
        return estimate.ttft_s
    return estimate.ttft_s + (target.answer - 1) * estimate.tpot_s


def _warnings(variant: ServedVariant, found: Support, device: Profile) -> Iterator[str]:
    """The classic mistakes, one sentence each."""
    scheme, weights = variant.scheme, variant.scheme.weights
    parameters = variant.model.parameters
    if weights is not None and weights.bits <= 4 and parameters < SMALL:
        limit, much = (SMALLER, "often lose much") if parameters < SMALLER else (SMALL, "lose more than larger ones")
        yield f"models under {limit / 1e9:.0f} B parameters {much} at four bits and fewer"
    if _weight_only_int8(scheme):
        yield "weight-only int8 halves the bytes and multiplies in 16 bits: full int8 speed is W8A8"
    if found.computes in ("int8", "fp8", "fp4", "int4") and not device.has(found.computes):
        yield f"{device.title} has no published {found.computes} units: low bits save memory there, not arithmetic"
    if found.fallback:
        yield f"fallback: {found.fallback}"


def _weight_only_int8(scheme: Scheme) -> bool:
    weights = scheme.weights
    return weights is not None and weights.type == "int" and weights.bits == 8 and scheme.activations is None


def _of_release(variants: Sequence[ServedVariant], traffic: bool, own_suites: bool) -> Iterator[str]:
    if variants and not traffic:
        yield "no calibration traffic of your own: quantization sees the built-in suites' samples, not your product's"
    if not own_suites:
        yield "generic suites only: what your product needs may be lost unseen; add a suite of your own cases"
