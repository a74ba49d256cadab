"""What ran where, in words that name a class of machine and not a machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping

import torch


def machine(threads: int) -> str:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}), {gib:.0f} GiB, "
        f"no GPU, Python {platform.python_version()}; {threads} thread{'s' if threads != 1 else ''} for everybody."
    )


def versions(found: Iterable[Mapping[str, str]]) -> str:
    """Every package of every tool once; where tools ran with different versions of it, all of them."""
    told = dict[str, set[str]]()
    for one in found:
        for name, version in one.items():
            told.setdefault(name, set()).add(version.partition("+")[0])
    return "Versions: " + ", ".join(f"{name} {' and '.join(sorted(told[name]))}" for name in sorted(told)) + "."
