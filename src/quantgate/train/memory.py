"""How much memory training takes, told before it starts; and what running out of it looks like."""

from __future__ import annotations

import torch


def out_of_memory(problem: BaseException) -> bool:
    """Whether an error means that memory ran out: CUDA's own, the CPU allocator's, or Python's."""
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(problem).lower()
    return isinstance(problem, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)
