"""What a gateway has taken of its leases, in memory that outlives it: one 64-bit number for each lease.

The numbers lie in a file that is mapped into memory: writing one costs as much as any assignment, and after kill -9 the
kernel still has it. So the next gateway on this folder gives back exactly what the dead one had not taken. After the
machine itself went down nobody knows, and nothing is given back.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SLOTS = 65_536  # leases at once; a file of 512 KiB, of which only touched pages take room
HEAD = 64  # bytes: which start of the machine the numbers are of


class Slots:
    """The numbers of one gateway. Its file is locked for as long as it lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.holder = secrets.token_hex(8)
        self.path = folder / f"{self.holder}.slots"
        with _alone(folder):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        # room is taken now: a store into a hole of a full disk would end the process
        os.posix_fallocate(self._file, 0, HEAD + 8 * SLOTS)
        self._map = mmap.mmap(self._file, HEAD + 8 * SLOTS)
        self._map[: len(_boot())] = _boot()
        self._numbers = memoryview(self._map)[HEAD:].cast("q")
        self._free = list(range(SLOTS - 1, -1, -1))

    def take(self) -> int:
        """A slot, which holds 0; -1 where there is none left: that lease is then lost with its gateway."""
        if not self._free:
            return -1
        slot = self._free.pop()
        self._numbers[slot] = 0
        return slot

    def give(self, slot: int) -> None:
        if slot >= 0:
            self._free.append(slot)

    def put(self, slot: int, number: int) -> None:
        if slot >= 0:
            self._numbers[slot] = number

    def close(self, *, keep: bool = False) -> None:
        """``keep``: leases are still out, and the file is needed to give them back."""
        if not keep:
            self.path.unlink(missing_ok=True)
        self._numbers.release()
        os.close(self._file)


def left_behind(folder: Path) -> Iterator[tuple[str, memoryview | None]]:
    """Holder and numbers of every gateway of this folder that is dead; no numbers: of a start of the machine before
    this one. Each file is deleted once the caller has come back for the next."""
    for path in sorted(folder.glob("*.slots")) if folder.is_dir() else []:
        with _alone(folder):
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
        try:
            if os.fstat(file).st_nlink == 0:
                continue
            data = path.read_bytes()
            whole = len(data) == HEAD + 8 * SLOTS and data[: len(_boot())] == _boot()
            yield path.stem, memoryview(data)[HEAD:].cast("q") if whole else None
            path.unlink(missing_ok=True)
        finally:
            os.close(file)


def _boot() -> bytes:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()[:36]
    except OSError:  # no Linux: nobody can tell one start of the machine from another
        return secrets.token_hex(18).encode()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """So that nobody takes a file for a dead gateway's between its making and its lock."""
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
