"""Intervals by a bootstrap over documents: whole documents are drawn with replacement, never single tokens.

Source: the cluster (block) bootstrap, Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section
3.8; the ends are percentiles of the redrawn means.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quantgate.evaluate.drift_record import DRAWS, LEVEL, MIN_DOCUMENTS

AT_ONCE = 1 << 22  # documents drawn at a time

Array = NDArray[np.float64]
Interval = tuple[float, float] | tuple[None, None]


def interval(values: Tensor, documents: Tensor, seed: int = 0) -> Interval:
    """Between which two numbers the mean of ``values`` [n] lies at LEVEL; ``documents`` [n] says whose each is."""
    return intervals(values[:, None], documents, seed)[0]


def intervals(values: Tensor, documents: Tensor, seed: int = 0) -> list[Interval]:
    """One interval for each column of ``values`` [n, columns], all from the same draws."""
    columns = values.double().numpy()
    names, block = np.unique(documents.numpy(), return_inverse=True)
    if len(names) < MIN_DOCUMENTS:
        return [(None, None)] * columns.shape[1]
    sizes: Array = np.bincount(block).astype(np.float64)
    sums: Array = np.stack([np.bincount(block, weights=column) for column in columns.T], axis=1, dtype=np.float64)
    means = _redrawn(sums, sizes, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [(float(one), float(two)) for one, two in zip(low, high, strict=True)]


def _redrawn(sums: Array, sizes: Array, generator: np.random.Generator) -> Array:
    """Means [DRAWS, columns] over documents drawn with replacement, of ``sums`` [documents, columns]."""
    count, parts = len(sizes), list[Array]()
    step = max(1, AT_ONCE // count)
    for start in range(0, DRAWS, step):
        drawn = generator.integers(0, count, (min(step, DRAWS - start), count))
        times = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(float)
        parts.append((times @ sums) / (times @ sizes)[:, None])
    return np.concatenate(parts)
