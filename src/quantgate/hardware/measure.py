"""How fast this machine moves memory and multiplies, measured: what no runtime on it can beat."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

TRIES = 5
SIDE = 1024  # of the square matrices that are multiplied
CALLS = 2000  # small operations whose mean is one call


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second, the best of a few tries. A copied byte counts twice: it is read and written."""

    read: float
    copy: float


def bandwidth(size: int = 1 << 30, device: str = "cpu") -> Bandwidth:
    """Over a buffer of ``size`` bytes, with as many threads as torch has been given."""
    import torch

    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    read = _least(lambda: source.sum(), device)
    return Bandwidth(size / read, 2 * size / _least(lambda: target.copy_(source), device))


def rates(device: str = "cpu") -> dict[str, float]:
    """Dense operations a second of square products, by number type; a type that torch cannot multiply is absent."""
    import torch

    from quantgate.hardware import products

    found = {}
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
    for name, kind in kinds.items():
        if device == "cpu" and name == "fp16":  # widened number by number where the processor has no units for it
            continue
        square = torch.ones(SIDE, SIDE, dtype=kind, device=device)
        found[name] = 2 * SIDE**3 / _least(partial(products.square, square), device)
    return found


def call_seconds() -> float:
    """Of one torch operation on a handful of numbers: what a small model's layers mostly are."""
    import torch

    few = torch.zeros(8)

    def work() -> None:
        for _ in range(CALLS):
            few.mul_(1.0)

    return _least(work, "cpu") / CALLS


def _least(work: Callable[[], object], device: str) -> float:
    """Seconds of the fastest try, behind one that warms up."""
    import torch

    work()
    seconds = []
    for _ in range(TRIES):
        if device != "cpu":
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
