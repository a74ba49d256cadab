"""What many positions add up to, by the definitions of llama.cpp's perplexity tool.

    dp_t     = Q(y) - P(y)                              true token y
    PPL(Q)   = exp(mean nll_Q), its error PPL sd / sqrt(n - 1)
    ln ratio = mean(nll_Q - nll_P), its error sqrt(s_Q^2 + s_P^2 - 2 cov): paired
    RMS dp   = sqrt(mean dp^2), its error se(dp^2) / (2 RMS)
    same top = p +- sqrt(p (1 - p) / (n - 1))

Every mean is given as mean +- sd / sqrt(n - 1), sd^2 = E[x^2] - E[x]^2. Percentiles interpolate linearly, at index
f (n - 1). llama.cpp leaves tokens with ln P <= -16 out of KL, and counts the second half of each chunk alone; here
every token and every position counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantgate.errors import EngineError
from quantgate.evaluate.drift.distances import NUCLEUS, TOP, Positions
from quantgate.evaluate.drift.intervals import interval, intervals
from quantgate.evaluate.drift_record import Drift, DriftDetail, DriftTable, RefusalDrift, Spread, TailMass

PERCENTILES = {
    "max": 1.0, "99.9": 0.999, "99": 0.99, "95": 0.95, "90": 0.9, "75": 0.75, "median": 0.5,
    "25": 0.25, "10": 0.1, "5": 0.05, "1": 0.01, "0.1": 0.001, "min": 0.0,
}  # fmt: skip


def summarize(
    seen: Positions,
    documents: Tensor | None = None,
    *,
    tables: tuple[DriftTable, ...] = (),
    refusals: RefusalDrift | None = None,
    lower_bound: bool = False,
    seed: int = 0,
) -> Drift:
    """The figures of the report; ``documents`` [n] says which document each position belongs to, if that is known.

    Raises EngineError as ``check`` does.
    """
    check(seen)
    count = len(seen)
    if documents is None:
        documents = torch.zeros(count, dtype=torch.long)
    ratio = (seen.nll_variant - seen.nll_baseline).mean()
    kl = percentiles(seen.kl)
    return Drift(
        tokens=count,
        kl_mean=float(seen.kl.mean()),
        kl_median=kl["median"],
        kl_p99=kl["99"],
        kl_max=kl["max"],
        same_top=float(seen.same_top.double().mean()),
        rms_dp=float(seen.dp.square().mean().sqrt()),
        ppl_baseline=float(seen.nll_baseline.mean().exp()),
        ppl_variant=float(seen.nll_variant.mean().exp()),
        ppl_ratio=float(ratio.exp()),
        ppl_ratio_se=error(seen.nll_variant - seen.nll_baseline),
        lower_bound=lower_bound,
        detail=_detail(seen, documents, tables, refusals, lower_bound, seed),
    )


def check(seen: Positions) -> None:
    """Raises EngineError for fewer than two positions, which have no spread, and for figures that are not finite."""
    if len(seen) < 2:
        raise EngineError(f"drift needs at least 2 scored positions, found {len(seen)}; give longer known answers")
    if not all(bool(one.isfinite().all()) for one in (seen.kl, seen.nll_baseline, seen.nll_variant)):
        raise EngineError("drift cannot be measured: a model gives logits that are NaN or infinite")


def _detail(
    seen: Positions,
    documents: Tensor,
    tables: tuple[DriftTable, ...],
    refusals: RefusalDrift | None,
    lower_bound: bool,
    seed: int,
) -> DriftDetail:
    moved, same, dp = seen.nll_variant - seen.nll_baseline, seen.same_top.double(), seen.dp
    rms, share = dp.square().mean().sqrt(), float(same.mean())
    columns = torch.stack([seen.kl, dp, moved, same], 1)
    (low, high), (dp_low, dp_high), (ln_low, ln_high), (same_low, same_high) = intervals(columns, documents, seed)
    tails = () if lower_bound else _tails(seen, documents, seed)
    return DriftDetail(
        documents=len(documents.unique()),
        seed=seed,
        kl=Spread(mean=float(seen.kl.mean()), se=error(seen.kl), low=low, high=high, percentiles=percentiles(seen.kl)),
        dp=Spread(mean=float(dp.mean()), se=error(dp), low=dp_low, high=dp_high, percentiles=percentiles(dp)),
        rms_dp_se=float(0.5 / rms * error(dp.square())) if rms > 0 else 0.0,
        same_top_se=(share * (1 - share) / (len(same) - 1)) ** 0.5,
        same_top_low=same_low,
        same_top_high=same_high,
        ppl_baseline_se=float(seen.nll_baseline.mean().exp()) * error(seen.nll_baseline),
        ppl_variant_se=float(seen.nll_variant.mean().exp()) * error(seen.nll_variant),
        ln_ratio_low=ln_low,
        ln_ratio_high=ln_high,
        correlation=correlation(seen.nll_baseline, seen.nll_variant),
        tv_mean=float(seen.tv.mean()),
        tails=tails,
        tables=tables,
        refusals=refusals,
    )


def _tails(seen: Positions, documents: Tensor, seed: int) -> tuple[TailMass, ...]:
    found = []
    for outside, base, other in (
        (f"the baseline's {TOP} likeliest tokens", seen.top_baseline, seen.top_variant),
        (f"the fewest tokens that hold {NUCLEUS:.0%} of the baseline", seen.nucleus_baseline, seen.nucleus_variant),
    ):
        low, high = interval(other - base, documents, seed)
        mean, after = float(base.mean()), float(other.mean())
        found.append(TailMass(outside=outside, baseline=mean, variant=after, moved=after - mean, low=low, high=high))
    return tuple(found)


def percentiles(values: Tensor) -> dict[str, float]:
    """Of any number of values: torch.quantile takes 16 million at most."""
    ordered = values.double().sort().values
    at = torch.tensor(list(PERCENTILES.values()), dtype=torch.float64) * (len(ordered) - 1)
    below = at.floor().long()
    above = (below + 1).clamp_max(len(ordered) - 1)
    found = ordered[below] + (at - below) * (ordered[above] - ordered[below])
    return dict(zip(PERCENTILES, found.tolist(), strict=True))


def error(values: Tensor) -> float:
    """Standard error of the mean, sd / sqrt(n - 1) with sd^2 = E[x^2] - E[x]^2: as if values were independent."""
    return float(values.std() / len(values) ** 0.5)


def correlation(one: Tensor, two: Tensor) -> float | None:
    spread = one.std() * two.std()
    if not spread > 0:
        return None
    return float(((one - one.mean()) * (two - two.mean())).sum() / (len(one) - 1) / spread)
