"""Hardware: what a machine and a runtime can do, as dated data. Devices, the support matrix, the roofline.

    device = profile("h100-sxm")                                       # devices/*.yaml, or what doctor measured
    found = support("vllm", scheme("W4A16"), "compressed_tensors", device, shapes, tp=2)   # runtimes/*.yaml
    found.kernel, found.fallback, found.problems
    roofline(served, device, found, runtime("vllm"), load)             # fits, TTFT, TPOT, tokens/s, cost

A row is verified when this repository ran it, else documented with source and date. A number that nobody publishes is
absent, and what depends on it is None.
"""

from __future__ import annotations

from quantgate.hardware.geometry import Geometry, Layer
from quantgate.hardware.matrix import Runtime, runtime, runtime_name, runtimes
from quantgate.hardware.profiles import HERE, Profile, names, nearest, profile
from quantgate.hardware.roofline import Estimate, Load, Memory, roofline
from quantgate.hardware.served import CachePart, Served, cache_parts
from quantgate.hardware.support import Support, require, support

__all__ = [
    "HERE",
    "CachePart",
    "Estimate",
    "Geometry",
    "Layer",
    "Load",
    "Memory",
    "Profile",
    "Runtime",
    "Served",
    "Support",
    "cache_parts",
    "names",
    "nearest",
    "profile",
    "require",
    "roofline",
    "runtime",
    "runtime_name",
    "runtimes",
    "support",
]
