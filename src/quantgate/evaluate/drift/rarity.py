"""Rare tokens: bands of the vocabulary by how much of a text its tokens make up.

Tokens are ranked by how often they occur, equally frequent ones by the tokenizer's own order, in which byte-pair
encoders list what they merged later, and so met less often, under higher ids. The first band holds the commonest
tokens that make up half of the text, the last one the rarest that make up a hundredth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

EDGES = (0.0, 0.5, 0.8, 0.95, 0.99, 1.0)  # share of the text that commoner tokens make up


def band_of(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The band of every token [vocabulary] by its ``counts``; -1 where a token never occurs.

    >>> band_of(np.array([30, 0, 50, 20])).tolist()
    [1, -1, 0, 2]
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]  # whole numbers, so an edge is met exactly
    bands = np.empty(len(counts), dtype=np.int64)
    bands[order] = np.searchsorted(np.array(EDGES[1:-1]) * counts.sum(), before, side="right")
    bands[counts == 0] = -1
    return bands


def by_rarity(tokens: Tensor, text: Iterable[Sequence[int]]) -> list[tuple[str, Tensor, str]]:
    """Name, mask and note of every band that holds any of ``tokens`` [n], by the frequencies of ``text``."""
    every = [torch.tensor(ids, dtype=torch.long) for ids in text]
    if not len(tokens):
        return []
    counts = torch.cat([*every, tokens[:0]]).bincount(minlength=int(tokens.max()) + 1).numpy()
    bands = band_of(counts)
    mine, groups = bands[tokens.numpy()], []
    for band, (low, high) in enumerate(pairwise(EDGES)):
        mask = torch.from_numpy(mine == band)
        if bool(mask.any()):
            groups.append((_name(low, high), mask, _note(np.flatnonzero(bands == band), counts)))
    return groups


def _name(low: float, high: float) -> str:
    share = f"{round(100 * (high - low))} %"
    return f"commonest {share}" if low == 0.0 else f"rarest {share}" if high == 1.0 else f"next {share}"


def _note(ids: np.ndarray[tuple[int], np.dtype[np.int64]], counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    seen = counts[ids]
    times = f"{seen.min()}" if seen.min() == seen.max() else f"{seen.min()} to {seen.max()}"
    return f"{len(ids)} tokens, seen {times} times each; middle id {int(np.median(ids))}"
