"""Whether a launcher (torchrun, accelerate) started this process as one of several; asks its environment alone."""

from __future__ import annotations

import os


def told(name: str) -> str:
    """What the launcher says, where accelerate and torch.distributed read it too; empty where it says nothing."""
    return os.environ.get(name, "")


def launched() -> bool:
    """Whether there are several processes."""
    return int(told("WORLD_SIZE") or 1) > 1


def follows() -> bool:
    """Whether this is one of several processes and not their first, which alone writes and speaks."""
    return launched() and int(told("RANK") or 0) > 0
