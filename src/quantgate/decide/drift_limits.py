"""Whether drift is beyond what is allowed: by the near end of its interval, so that chance alone breaks no limit."""

from __future__ import annotations

import math
from typing import Protocol

from quantgate.evaluate.drift_record import Drift


class Limits(Protocol):
    """What is allowed; None: anything."""

    @property
    def kl_mean(self) -> float | None: ...

    @property
    def ppl_ratio(self) -> float | None: ...

    @property
    def same_top(self) -> float | None: ...


def beyond(drift: Drift, limits: Limits) -> list[str]:
    """Every limit that is broken, each in a few words."""
    return [told for told in (_kl(drift, limits), _ppl(drift, limits), _same_top(drift, limits)) if told]


def _kl(drift: Drift, limits: Limits) -> str:
    near = drift.detail.kl.low if drift.detail and drift.detail.kl.low is not None else drift.kl_mean
    if limits.kl_mean is None or near <= limits.kl_mean:
        return ""
    least = "at least " if drift.lower_bound else ""
    return f"mean KL {least}{drift.kl_mean:.3g} ({near:.3g} or more) where {limits.kl_mean:g} is allowed"


def _ppl(drift: Drift, limits: Limits) -> str:
    low = drift.detail.ln_ratio_low if drift.detail else None
    near = drift.ppl_ratio if low is None else math.exp(low)
    if limits.ppl_ratio is None or near <= limits.ppl_ratio:
        return ""
    told = f"perplexity {drift.ppl_ratio:.3g} times the baseline's ({near:.3g} or more)"
    return f"{told} where {limits.ppl_ratio:g} is allowed"


def _same_top(drift: Drift, limits: Limits) -> str:
    high = drift.detail.same_top_high if drift.detail else None
    near = drift.same_top if high is None else high
    if limits.same_top is None or near >= limits.same_top:
        return ""
    return f"{drift.same_top:.1%} of next tokens the same ({near:.1%} or fewer) where {limits.same_top:.1%} must be"
