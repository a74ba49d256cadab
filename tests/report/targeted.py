"""Releases with targets, decided by the real rules over evidence with chosen counts and load tests of chosen times."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from tests.decide.conftest import comparison_of, gate_of

from quantgate.decide import Candidate, decide
from quantgate.decide.planning import Plan, PlanRow
from quantgate.decide.rules import LoadAt, LoadEvidence, TargetRules
from quantgate.decide.targets import decide_target
from quantgate.evaluate.evidence import Evidence
from quantgate.hardware.roofline import Estimate, Memory
from quantgate.hardware.support import Support
from quantgate.hardware.targets import Place
from quantgate.loadtest import Timed
from quantgate.loadtest.drive import Run
from quantgate.loadtest.measure import Measured, measure
from quantgate.report import RunReport, VariantSummary

GATES = (gate_of("math"), gate_of("json_tools"))
LAPTOP = {"hardware": "cpu-avx512", "runtime": "llama.cpp", "memory": "8GiB", "price": "0.10/h", "ttft_p95": "300ms",
          "tpot_p95": "30ms", "rate": "8/s"}  # fmt: skip
MEGABYTE = 1_000_000


def rules_of(name: str = "laptop", **told: Any) -> TargetRules:
    """Of a laptop; ``told`` are keys of TargetRules, ``place`` those of the place that differ."""
    place = Place.model_validate(LAPTOP | told.pop("place", {}))
    return TargetRules.model_validate({"name": name, "place": place, "gates": GATES} | told)


def evidence_of(name: str, lost: int, *, n: int = 400, engine: str = "llamacpp") -> Evidence:
    """``lost`` of ``n`` answers on json_tools, none on math."""
    return Evidence(
        variant=name,
        artifact=f"sha256:{name}",
        baseline="sha256:base",
        engine="sha256:engine",
        baseline_engine="sha256:base-engine",
        kernels=("6 linears of 256 x 256: int4 packed kernel",),
        comparisons=(comparison_of(GATES[0], n), comparison_of(GATES[1], n, lost)),
        drift=None,
        no_drift="no drift cases",
        runtime=(f"engine={engine}",),
    )


def row_of(name: str, target: str, stored: int, *, problem: str = "", available: int = 8 * 10**9) -> PlanRow:
    """A plan's row whose times go with the bytes."""
    support = Support(
        runtime="llama.cpp", scheme=name, container="gguf", hardware="cpu-avx512",
        kernel="" if problem else "ggml blocks", computes="int8",
        status="documented", source="a <page> of llama.cpp", date="2026-11",
        problems=(problem,) if problem else (),
    )  # fmt: skip
    memory = Memory(
        process=60 * MEGABYTE, weights=stored, cache=2 * MEGABYTE, activations=MEGABYTE, available=available
    )
    estimate = Estimate(
        memory=memory, fits=memory.needed <= available, largest_batch=7, ttft_s=stored * 1e-8, ttft_bound="operations",
        tpot_s=stored * 1e-9, tpot_bound="bytes", tokens_per_s=200.0, requests_per_s=20.0,
        cost_per_million=stored / 1e8,
    )  # fmt: skip
    return PlanRow(
        variant=name, target=target, stored_bytes=stored, support=support, estimate=None if problem else estimate
    )


def measured_of(ttft: float, *, lost: int = 0, late: bool = False, rate: float = 8.0, seed: int = 0) -> Measured:
    """600 requests around ``ttft`` seconds; ``late``: the generator could not hold the rate."""
    draw, timed = random.Random(seed), list[Timed]()
    for at in range(600):
        first = ttft * draw.uniform(0.7, 1.3)
        gone = at % (600 // lost) == 0 if lost else False
        timed.append(
            Timed(
                at=at, due_s=at / rate, lag_s=0.0, ttft_s=None if gone else first, e2e_s=None if gone else first + 1.0,
                gaps_s=(), tokens=None if gone else 65, prompt_tokens=256, beside=1.0, stages={},
                lost="the connection was cut" if gone else "",
            )
        )  # fmt: skip
    span = 600 / rate
    run = Run(timed, len(timed), span, span, span * (1.1 if late else 1.0), "", span + 1)
    return measure([run], rules_of().objectives)


def load_of(variant: str, ttft: float, *, target: str = "laptop", sweep: bool = False, **told: Any) -> LoadEvidence:
    curve = tuple(
        LoadAt(rate=at, measured=measured_of(ttft * at / 8, rate=at), baseline=measured_of(2 * ttft * at / 8, rate=at))
        for at in (2.0, 4.0, 16.0)
    )
    return LoadEvidence(
        target=target,
        variant=variant,
        artifact=f"sha256:{variant}",
        result="sha256:" + "f" * 64,
        what="sha256:engine",
        rate=8.0,
        measured=measured_of(ttft, **told),
        baseline=measured_of(2 * ttft, seed=1),
        knee=4.0 if sweep else None,
        curve=curve if sweep else (),
    )


def released(
    base: RunReport,
    lost: Mapping[str, int | None],
    rules: Sequence[TargetRules],
    *,
    loads: Sequence[LoadEvidence] = (),
    problems: Mapping[str, str] | None = None,
    placed: bool = True,
    available: int = 8 * 10**9,
) -> RunReport:
    """``lost``: variant -> answers lost of 400, None where nobody asked; each a tenth smaller than the one before."""
    sizes = {name: round(9 * MEGABYTE * 0.9**at) for at, name in enumerate(lost)}
    candidates = [
        Candidate(name=name, artifact=f"sha256:{name}", stored_bytes=size, bits_per_weight=4.5)
        for name, size in sizes.items()
    ]
    found = [evidence_of(name, count) for name, count in lost.items() if count is not None]
    why = problems or {}
    rows = [
        row_of(name, one.name, size, problem=why.get(name, ""), available=available)
        for one in rules
        for name, size in {"BF16": 10 * MEGABYTE, **sizes}.items()
    ]
    plan = Plan(
        model="a-model", parameters=5_000_000, baseline_bytes=10 * MEGABYTE,
        targets={one.name: one.place for one in rules}, rows=tuple(rows),
    )  # fmt: skip
    decided = [
        decide_target(one, candidates, found, plan if placed else None, loads, alpha=0.05, order="e-bonferroni")
        for one in rules
    ]
    return base.model_copy(
        update={
            "gates": GATES,
            "candidates": tuple(candidates),
            "variants": tuple(_summary(base.variants[0], one) for one in candidates),
            "evidence": tuple(found),
            "decision": decide(GATES, candidates, found, alpha=0.05, order="e-bonferroni"),
            "paces": {},
            "placed": plan if placed else None,
            "loads": tuple(loads),
            "targets": tuple(decided),
        }
    )


def _summary(like: VariantSummary, one: Candidate) -> VariantSummary:
    return like.model_copy(update={"name": one.name, "artifact": one.artifact, "stored_bytes": one.stored_bytes})
