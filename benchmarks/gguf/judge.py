"""KL divergence to the baseline by document, and what chance there is in its mean: documents are drawn, not tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.peers.judge import Judge
from quantgate.engines import Engine
from quantgate.errors import EngineError
from quantgate.evaluate.drift import positions

DRAWS = 4000
LEVEL = 0.95
Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A number, and between which two it lies at LEVEL, by the percentiles of a bootstrap over documents."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Distances:
    """KL of one variant: sums over each document's judged positions, in nats, and how many positions those are."""

    sums: Numbers  # [documents]
    tokens: Numbers  # [documents]

    @property
    def mean(self) -> float:
        """Nats a token."""
        return float(self.sums.sum() / self.tokens.sum())


def distances(judge: Judge, engine: Engine) -> Distances:
    """Of the variant that ``engine`` runs. Raises EngineError for logits that are not finite."""
    sums, tokens = list[float](), list[int]()
    for (ids, at), base in zip(judge.batches, judge.logits, strict=True):
        found = positions(base, engine.logits(ids, at), ids.roll(-1, dims=1)[at]).kl
        if not bool(found.isfinite().all()):
            raise EngineError("KL cannot be measured: a model gives logits that are NaN or infinite")
        counts = at.sum(dim=1).tolist()
        sums += [float(part.sum()) for part in found.split(counts)]
        tokens += counts
    return Distances(np.array(sums), np.array(tokens, dtype=np.float64))


def mean(one: Distances, seed: int = 0) -> Interval:
    """Mean KL, nats a token."""
    return _interval(one.sums, one.tokens, seed)


def ratio(ours: Distances, theirs: Distances, seed: int = 0) -> Interval:
    """Mean KL over mean KL, on the same documents in every draw.

    Raises ValueError when the two were not taken on the same documents.
    """
    if not np.array_equal(ours.tokens, theirs.tokens):
        raise ValueError("two variants were judged on different documents")
    return _interval(ours.sums, theirs.sums, seed)


def _interval(above: Numbers, below: Numbers, seed: int) -> Interval:
    drawn = np.random.default_rng(seed).integers(len(above), size=(DRAWS, len(above)))
    seen = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    low, high = np.quantile(seen, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))
