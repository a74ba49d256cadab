"""Settle columns one after another, each seeing what all earlier ones pass on: the shape of GPTQ and of descent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Settle = Callable[[int, int], None]


def sweep(buffer: Tensor, coupling: Tensor, settle: Settle, leaf: int, start: int = 0, stop: int | None = None) -> None:
    """Turn each x_j of ``buffer`` [columns, rows] into what ``settle`` makes of x_j + sum_i<j coupling[j, i] y_i: y_j.

    Halves the range and adds what the first half passes on to the second as one matrix product before it settles that:
    nearly all work is large products, and memory is read log(columns / leaf) times. These are GPTQ's lazy batches
    (Frantar et al. 2022, section 3.3, step 2), taken recursively. ``settle(start, stop)`` gets up to ``leaf`` columns
    that have received everything from before ``start``; within them it calls ``received``. Only the lower triangle of
    ``coupling`` [columns, columns] is read.
    """
    stop = len(buffer) if stop is None else stop
    if stop - start <= leaf:
        settle(start, stop)
        return
    half = start + leaf * max(1, (stop - start) // (2 * leaf))
    sweep(buffer, coupling, settle, leaf, start, half)
    buffer[half:stop].addmm_(coupling[half:stop, start:half], buffer[start:half])
    sweep(buffer, coupling, settle, leaf, half, stop)


def received(buffer: Tensor, coupling: Tensor, start: int, j: int) -> Tensor:
    """[rows] column j plus what columns start..j-1, settled just now, pass on to it."""
    return torch.addmv(buffer[j], buffer[start:j].T, coupling[j, start:j]) if j > start else buffer[j]
