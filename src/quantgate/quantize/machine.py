"""How fast this machine computes and how much memory it has, measured where a sweep would run: in this process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantgate.errors import EngineError

SECONDS = 0.2  # that each measurement may take, after a first run that warms up


@dataclass(frozen=True)
class Rates:
    """Per second, on as many threads as torch uses now."""

    products: float  # float32 operations of a matrix product; a multiplication and an addition are two
    doubles: float  # float64 operations of a matrix product
    elements: float  # numbers that an elementwise operation passes over, in the cache
    copied: float  # bytes copied from memory to memory
    hashed: float  # bytes of SHA-256
    calls: float  # torch operations on a handful of numbers


def measure() -> Rates:
    """The rates of this machine at this moment; takes less than two seconds on an idle one."""
    import torch

    square, double = torch.randn(512, 512), torch.randn(384, 384, dtype=torch.float64)
    near, far, few = torch.randn(1 << 15), torch.randn(1 << 21), torch.randn(8)
    raw = bytes(1 << 22)
    return Rates(
        products=2 * 512**3 * _per_second(lambda: square @ square),
        doubles=2 * 384**3 * _per_second(lambda: double @ double),
        elements=near.numel() * _per_second(lambda: near.mul_(1.0)),
        copied=far.nbytes * _per_second(far.clone),
        hashed=len(raw) * _per_second(lambda: hashlib.sha256(raw)),
        calls=_per_second(lambda: few.mul_(1.0)),
    )


def _per_second(work: Callable[[], object]) -> float:
    """How often ``work`` is done in a second; the mean over SECONDS, other programs' share of the time included."""
    work()
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < SECONDS or not count:
        work()
        count += 1
    return count / max(spent, 1e-9)


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not tell."""
    return _status("VmRSS")


def peak() -> int:
    """The most bytes of memory that this process has held so far; 0 where the system does not tell.

    ``VmHWM`` of proc(5) and not ``ru_maxrss``, which a child process takes over from the one that started it.
    """
    return _status("VmHWM")


def free() -> int | None:
    """Bytes that programs can take without pushing others out (``MemAvailable``); None where nobody tells."""
    found = _field(Path("/proc/meminfo"), "MemAvailable")
    limit = Path("/sys/fs/cgroup/memory.max")
    if found is not None and limit.is_file() and (text := limit.read_text().strip()).isdigit():
        used = Path("/sys/fs/cgroup/memory.current")
        found = min(found, max(0, int(text) - int(used.read_text())))
    return found


def refuse_beyond(needed: int, what: str, do: str) -> None:
    """Raises EngineError when ``needed`` bytes are more than are free: ``what`` needs them, and ``do`` is a way out."""
    left = free()
    if left is not None and needed > left:
        raise EngineError(f"{what} needs {_told(needed)} of memory, and {_told(left)} are free; {do}")


def _told(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _status(field: str) -> int:
    return _field(Path("/proc/self/status"), field) or 0


def _field(file: Path, field: str) -> int | None:
    """A number of kB in a file of proc(5), in bytes."""
    if not file.is_file():
        return None
    rows = dict(line.split(":", 1) for line in file.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(rows[field].split()[0]) * 1024 if field in rows else None
