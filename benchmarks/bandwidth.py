"""How fast this machine reads and copies memory: what a runtime that must read every weight cannot beat."""

from __future__ import annotations

from quantgate.hardware.measure import Bandwidth, bandwidth

__all__ = ["Bandwidth", "bandwidth"]
