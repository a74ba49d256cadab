"""What was read before: digests of files that have not changed since, so that a second start need not read them again.

A file is the same while device, inode, size, and the times of its last change of bytes and of anything stay what they
were. What changed a moment before it was read is not remembered: another change within one tick of the clock would not
show. Whoever may write this folder may also write what it speaks of; ``full`` does without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from quantgate.errors import QuantgateError
from quantgate.records import write_whole

KEPT = Path("~/.cache/quantgate/verified")
TICK_NS = 100_000_000  # longer than any file system's clock stands still
Stamp = tuple[int, int, int, int, int]  # device, inode, bytes, mtime and ctime in nanoseconds


def stamp(told: os.stat_result) -> Stamp:
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns


@dataclass
class Seen:
    """Digests of the files of one place. ``file`` None: nothing is remembered."""

    file: Path | None
    known: dict[str, tuple[Stamp, str]] = field(default_factory=dict)  # name -> its stamp then, its digest

    @classmethod
    def of(cls, place: Path, kept: Path | None) -> Self:
        """What is remembered of ``place``; a memory that cannot be read is none."""
        if kept is None:
            return cls(None)
        name = hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:32]
        this = cls(kept.expanduser() / f"{name}.json")
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            assert this.file is not None
            raw = json.loads(this.file.read_bytes())
            this.known = {key: (_stamp(one["stamp"]), str(one["digest"])) for key, one in raw.items()}
        return this

    def digest(self, name: str, now: Stamp) -> str | None:
        """The digest of a file whose stamp is ``now``; None: it must be read."""
        then, digest = self.known.get(name, (None, ""))
        return digest if then == now else None

    def learn(self, name: str, now: Stamp, digest: str) -> None:
        if time.time_ns() - max(now[3], now[4]) > TICK_NS:
            self.known[name] = now, digest

    def save(self) -> None:
        """Only a help: what cannot be written is read again next time."""
        if self.file is not None:
            raw = {name: {"stamp": list(one[0]), "digest": one[1]} for name, one in sorted(self.known.items())}
            with suppress(OSError, QuantgateError):
                write_whole(self.file, json.dumps(raw, indent=1).encode())


def _stamp(raw: list[int]) -> Stamp:
    device, inode, size, changed, touched = map(int, raw)
    return device, inode, size, changed, touched
