"""Drift: how far a variant's next-token distribution moved from the baseline's on held-out conversations.

Definitions follow llama.cpp's perplexity tool, in natural logarithms, over every position whose next token belongs to
an answer; here each position counts, not the second half of each chunk, because conversations are short.

    KL_t     = sum_i P_i (ln P_i - ln Q_i)             baseline P, variant Q
    dp_t     = Q(y) - P(y)                             true token y
    ln ratio = mean(nll_Q - nll_P), with its paired standard error s / sqrt(n)

Percentiles interpolate linearly, at index f (n - 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantgate.engines import Engine
from quantgate.errors import EngineError
from quantgate.evaluate.evidence import Drift
from quantgate.evaluate.suites import Case

TOKENS_PER_BATCH = 4096
NUMBERS_AT_ONCE = 1 << 24  # logits compared at a time, in float64: 128 MiB each of several copies


@dataclass(frozen=True)
class Positions:
    """Per scored position, float64: KL, nll of the baseline, nll of the variant, and whether the top token agrees."""

    kl: Tensor
    nll_baseline: Tensor
    nll_variant: Tensor
    same_top: Tensor


def positions(baseline: Tensor, variant: Tensor, targets: Tensor) -> Positions:
    """Compare logits [n, vocabulary] at positions whose true next tokens are ``targets`` [n]."""
    log_p, log_q = baseline.double().log_softmax(-1), variant.double().log_softmax(-1)
    at = targets[:, None]
    possible = log_p > -torch.inf  # tokens that the baseline rules out add nothing
    return Positions(
        kl=(log_p.exp() * (log_p - log_q)).where(possible, 0.0).sum(-1).clamp_min(0.0),
        nll_baseline=-log_p.gather(-1, at)[:, 0],
        nll_variant=-log_q.gather(-1, at)[:, 0],
        same_top=log_p.argmax(-1) == log_q.argmax(-1),
    )


def summarize(seen: Positions) -> Drift:
    """The figures of the report.

    Raises EngineError for fewer than two positions, which have no spread, and for logits that are not finite.
    """
    if len(seen.kl) < 2:
        raise EngineError(f"drift needs at least 2 scored positions, found {len(seen.kl)}; give longer known answers")
    if not all(bool(one.isfinite().all()) for one in (seen.kl, seen.nll_baseline, seen.nll_variant)):
        raise EngineError("drift cannot be measured: a model gives logits that are NaN or infinite")
    moved = seen.nll_variant - seen.nll_baseline
    dp = (-seen.nll_variant).exp() - (-seen.nll_baseline).exp()
    ratio = moved.mean()
    return Drift(
        tokens=len(moved),
        kl_mean=float(seen.kl.mean()),
        kl_median=float(torch.quantile(seen.kl, 0.5)),
        kl_p99=float(torch.quantile(seen.kl, 0.99)),
        kl_max=float(seen.kl.max()),
        same_top=float(seen.same_top.double().mean()),
        rms_dp=float(dp.square().mean().sqrt()),
        ppl_baseline=float(seen.nll_baseline.mean().exp()),
        ppl_variant=float(seen.nll_variant.mean().exp()),
        ppl_ratio=float(ratio.exp()),
        ppl_ratio_se=float(moved.std() / len(moved) ** 0.5),
    )


def batches(
    engine: Engine, cases: Sequence[Case], tokens_per_batch: int = TOKENS_PER_BATCH
) -> list[tuple[Tensor, Tensor]]:
    """Token ids [rows, length] and the mask of positions whose next token belongs to the known answer."""
    rows = []
    for case in cases:
        if case.answer is None:
            continue
        turns = [(message.role, message.content) for message in case.messages]
        prompt = engine.encode(turns)
        whole = engine.encode([*turns, ("assistant", case.answer)])
        rows.append((whole, len(prompt)))
    rows.sort(key=lambda row: len(row[0]))
    groups: list[list[tuple[list[int], int]]] = [[]]
    for row in rows:
        if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > tokens_per_batch:
            groups.append([])
        groups[-1].append(row)
    return [_pad(group) for group in groups if group]


def _pad(group: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in group)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in group])
    scored = torch.zeros_like(ids, dtype=torch.bool)
    for index, (row, start) in enumerate(group):
        scored[index, start - 1 : len(row) - 1] = True
    return ids, scored


def drift(
    baseline: Engine,
    variants: Sequence[Engine],
    cases: Sequence[Case],
    progress: Callable[[int, int], None] | None = None,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> list[Drift]:
    """The drift of each variant on the known answers of ``cases``; the baseline's logits are computed once.

    Raises EngineError as ``summarize`` does.
    """
    parts = batches(baseline, cases, tokens_per_batch)
    seen: list[list[Positions]] = [[] for _ in variants]
    for index, (ids, scored) in enumerate(parts):
        targets = ids.roll(-1, dims=1)[scored]
        base = baseline.logits(ids, scored)
        for held, variant in zip(seen, variants, strict=True):
            other = variant.logits(ids, scored)
            step = max(1, NUMBERS_AT_ONCE // base.shape[-1])
            for start in range(0, len(base), step):
                part = slice(start, start + step)
                held.append(positions(base[part], other[part], targets[part]))
        if progress:
            progress(index + 1, len(parts))
    return [summarize(joined(held)) for held in seen]


def joined(parts: Sequence[Positions]) -> Positions:
    if not parts:
        none = torch.zeros(0, dtype=torch.float64)
        return Positions(none, none, none, none.bool())
    return Positions(
        kl=torch.cat([part.kl for part in parts]),
        nll_baseline=torch.cat([part.nll_baseline for part in parts]),
        nll_variant=torch.cat([part.nll_variant for part in parts]),
        same_top=torch.cat([part.same_top for part in parts]),
    )
