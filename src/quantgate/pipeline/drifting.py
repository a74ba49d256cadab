"""The drift of a release's variants, and the screen that goes by it where the release has one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from quantgate.engines import Engine
from quantgate.errors import EngineError, RecordError
from quantgate.evaluate.drift_record import Drift
from quantgate.evaluate.suites import Case
from quantgate.pipeline.executor import Elsewhere
from quantgate.records import digest_of
from quantgate.release_config import ScreenConfig


def drift_in(
    out: Path,
    baseline: Engine,
    engine: Engine,
    cases: Sequence[Case],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Drift | None, str]:
    """The drift of one variant, or why there is none; a variant too broken to measure must not stop the others.

    Kept in ``out`` under a digest of all that it depends on.
    """
    from quantgate.evaluate.drift import drift_of

    if not cases:
        return None, "no held-out conversations were asked for"
    key = digest_of([engine.identity.key, baseline.identity.key, [case.digest for case in cases]])
    path = out / "drift" / f"{key[7:39]}.json"
    if path.exists():
        try:
            return Drift.load(path), ""
        except RecordError:
            path.unlink()  # an older version wrote it
    try:
        if isinstance(baseline, Elsewhere) and isinstance(engine, Elsewhere):
            found = engine.drift_from(baseline, cases)
        else:
            found = drift_of(baseline, engine, cases, progress)
    except EngineError as problem:
        return None, str(problem)
    found.save(path)
    return found, ""


def screened(drift: Drift | None, screen: ScreenConfig | None) -> str:
    """Why a variant is not asked the cases, in a sentence; empty where it is asked them.

    Where documents allow an interval, its near end must be beyond the limit: chance screens nobody.
    """
    if drift is None or screen is None:
        return ""
    broken = [sentence for sentence in (_kl(drift, screen), _ppl(drift, screen), _same_top(drift, screen)) if sentence]
    return f"not judged: screened by its drift alone, {' and '.join(broken)}" if broken else ""


def _kl(drift: Drift, screen: ScreenConfig) -> str:
    near = drift.detail.kl.low if drift.detail and drift.detail.kl.low is not None else drift.kl_mean
    if screen.kl_mean is None or near <= screen.kl_mean:
        return ""
    least = "at least " if drift.lower_bound else ""
    return f"mean KL {least}{drift.kl_mean:.3g} ({near:.3g} or more) where {screen.kl_mean:g} is allowed"


def _ppl(drift: Drift, screen: ScreenConfig) -> str:
    low = drift.detail.ln_ratio_low if drift.detail else None
    near = drift.ppl_ratio if low is None else math.exp(low)
    if screen.ppl_ratio is None or near <= screen.ppl_ratio:
        return ""
    told = f"perplexity {drift.ppl_ratio:.3g} times the baseline's ({near:.3g} or more)"
    return f"{told} where {screen.ppl_ratio:g} is allowed"


def _same_top(drift: Drift, screen: ScreenConfig) -> str:
    high = drift.detail.same_top_high if drift.detail else None
    near = drift.same_top if high is None else high
    if screen.same_top is None or near >= screen.same_top:
        return ""
    return f"{drift.same_top:.1%} of next tokens the same ({near:.1%} or fewer) where {screen.same_top:.1%} must be"
