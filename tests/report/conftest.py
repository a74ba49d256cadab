"""A small run of two variants on two capabilities, built by hand: one chosen, one that hides its damage."""

from __future__ import annotations

import pytest

from quantgate import stats
from quantgate.decide import Candidate, decide
from quantgate.evaluate.drift_record import Drift
from quantgate.evaluate.evidence import Comparison, Evidence, Flip, Gate, NoiseFloor, Pace, SliceResult
from quantgate.report import Environment, RunReport, Stage, VariantSummary


def gate(capability: str) -> Gate:
    return Gate(capability=capability, suite=capability, margin=0.05, cases=200)


def comparison(capability: str, lost: int) -> Comparison:
    """200 cases that the baseline gets right; the variant loses ``lost`` of them."""
    baseline, variant = [1.0] * 200, [0.0] * lost + [1.0] * (200 - lost)
    flips = tuple(
        Flip(
            case=f"{capability}-{index}",
            case_digest=f"sha256:{index:064d}",
            prompt="user: 2 < 3 & <b>bold</b>?",
            reference="yes",
            baseline_answer="yes",
            variant_answer="<script>alert(1)</script>",
            baseline_score=1.0,
            variant_score=0.0,
            because="expected 'yes'",
            slices=("op=less",),
        )
        for index in range(lost)
    )
    score = (200 - lost) / 200
    return Comparison(
        gate=gate(capability),
        suite_digest="sha256:" + "a" * 64,
        n=200,
        asked=200,
        available=200,
        unscored=(),
        baseline_score=1.0,
        variant_score=score,
        finding=stats.judge(baseline, variant, 0.05),
        slices=(SliceResult(name="all", n=200, baseline=1.0, variant=score, gains=0, losses=lost),),
        flips=flips[:40],
    )


def evidence(name: str, lost: int, ratio: float) -> Evidence:
    drift = Drift(
        tokens=900, kl_mean=0.01, kl_median=0.001, kl_p99=0.2, kl_max=0.9, same_top=0.98, rms_dp=0.02,
        ppl_baseline=1.5, ppl_variant=1.5 * ratio, ppl_ratio=ratio, ppl_ratio_se=0.001,
    )  # fmt: skip
    return Evidence(
        variant=name,
        artifact=f"sha256:{name}",
        baseline="sha256:base",
        engine="sha256:engine",
        baseline_engine="sha256:base-engine",
        kernels=("6 linears of 256 x 256: int4 packed kernel",),
        comparisons=(comparison("math", 0), comparison("json_tools", lost)),
        drift=drift,
        runtime=("engine=llamacpp", "kv_cache=q8_0"),
    )


@pytest.fixture(scope="session")
def report() -> RunReport:
    gates = [gate("math"), gate("json_tools")]
    found = [evidence("W8A8", 0, 1.0), evidence("W3A16", 60, 1.02)]
    candidates = [
        Candidate(name="W8A8", artifact="sha256:W8A8", stored_bytes=5_000_000, bits_per_weight=8.05),
        Candidate(name="W3A16", artifact="sha256:W3A16", stored_bytes=2_500_000, bits_per_weight=3.12),
    ]
    summaries = tuple(
        VariantSummary(
            name=one.name, artifact=one.artifact, path=f"artifacts/{one.name}", scheme=one.name, method="rtn",
            stored_bytes=one.stored_bytes, bits_per_weight=one.bits_per_weight, bits_per_weight_whole=9.0, quantized=42,
            kept=14, fallbacks=(), notes=(), mean_error=0.001, repairable=True,
        )
        for one in candidates
    )  # fmt: skip
    return RunReport(
        title="release of a test",
        model="a-model",
        baseline="sha256:base",
        parameters=5_000_000,
        baseline_bytes=10_000_000,
        config="sha256:config",
        gates=tuple(gates),
        calibration=None,
        candidates=tuple(candidates),
        variants=summaries,
        evidence=tuple(found),
        decision=decide(gates, candidates, found, alpha=0.05, order="e-bonferroni"),
        noise=tuple(
            NoiseFloor(capability=one.capability, n=50, flips=1, differ=2, low=0.0005, high=0.1065, how="backwards")
            for one in gates
        ),
        paces={"W8A8": Pace(cases=400, tokens=9000, prefill_s=1.0, decode_s=6.0, drafted=4000, accepted=3000)},
        environment=Environment(
            quantgate="0.1.0", python="3.11", torch="2.13", transformers="5", platform="Linux x86_64", cpu="cpu",
            cores=2, gpu=None, date="2026-01-01T00:00:00+00:00",
        ),
        stages=(Stage(name="quantize", seconds=3.0), Stage(name="evaluate", seconds=60.0)),
    )  # fmt: skip
