"""Which documents a step sees, and how they lie in batches: a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from quantgate.errors import UsageError
from quantgate.train import Batch, Document

LOOSE = 0.8  # a row shorter than this share of its batch's longest goes into the next batch ...
SMALL = 512  # ... once the batch holds this many tokens


def batches(documents: Sequence[Document], tokens: int, step: int, seed: int, *, room: int = 0) -> list[Batch]:
    """What step ``step`` sees: about ``tokens`` tokens, every document once before any comes again.

    The epochs' own orders, one after the other, are one endless row of documents; a step takes those that begin in its
    ``tokens`` tokens of it. ``room``: most tokens of a batch, padding included; 0: as many as a step's half, so that
    two workers share it. Raises UsageError where a document is longer than a step.
    """
    lengths = np.array([len(one.ids) for one in documents], dtype=np.int64)
    if not len(lengths) or lengths.max() > tokens:
        raise UsageError(
            f"batch_tokens {tokens}: the longest of {len(lengths)} conversations has {lengths.max(initial=0)} tokens, "
            "and a step holds whole ones; raise batch_tokens, or lower max_tokens"
        )
    whole, first, last = int(lengths.sum()), step * tokens, (step + 1) * tokens
    chosen = list[int]()
    for epoch in range(first // whole, (last - 1) // whole + 1):
        order = np.random.default_rng([seed, epoch]).permutation(len(documents))
        begins = epoch * whole + np.cumsum(lengths[order]) - lengths[order]
        chosen += order[(begins >= first) & (begins < last)].tolist()
    return packed(documents, chosen, room or tokens // 2)


def packed(documents: Sequence[Document], rows: Iterable[int], room: int) -> list[Batch]:
    """Sort by length and cut, so that a batch holds at most ``room`` tokens (a longer document one alone)."""
    parts: list[list[int]] = []
    longest = 0
    for row in sorted(rows, key=lambda at: (-len(documents[at].ids), at)):
        length = len(documents[row].ids)
        full = not parts or (len(parts[-1]) + 1) * longest > room
        if full or (length < LOOSE * longest and len(parts[-1]) * longest >= SMALL):
            parts.append([])
            longest = length
        parts[-1].append(row)
    return [batch_of(documents, part) for part in parts]


def batch_of(documents: Sequence[Document], rows: list[int]) -> Batch:
    """Padded with token 0 on the right, which counts nowhere and which causal attention never looks at."""
    chosen = [documents[row] for row in rows]
    length = max(len(one.ids) for one in chosen)
    ids = torch.tensor([one.ids + [0] * (length - len(one.ids)) for one in chosen])
    weights = torch.tensor([one.wanted[1:] + [0.0] * (length - len(one.ids) + 1) for one in chosen])
    counted = weights > 0
    return Batch(rows, ids, counted, ids.roll(-1, 1)[counted], weights[counted])
