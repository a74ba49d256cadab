"""How fast this machine reads and copies memory: what a runtime that must read every weight cannot beat."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

TRIES = 5


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second, the best of a few tries. A copied byte counts twice: it is read and written."""

    read: float
    copy: float


def bandwidth(size: int = 1 << 30) -> Bandwidth:
    """Over a buffer of ``size`` bytes, with as many threads as torch has been given."""
    source = torch.ones(size // 4)
    target = torch.empty_like(source)
    return Bandwidth(size / _least(lambda: source.sum()), 2 * size / _least(lambda: target.copy_(source)))


def _least(work: Callable[[], object]) -> float:
    """Seconds of the fastest try, behind one that warms up."""
    work()
    seconds = []
    for _ in range(TRIES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
