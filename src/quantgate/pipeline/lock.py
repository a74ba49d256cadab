"""One run at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from quantgate.errors import UsageError
from quantgate.records import disk_errors


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Two runs in one folder would write into each other's journals; the lock goes with its process, also by kill.

    A folder that was made for the lock alone, because the run was refused, is taken away again.
    """
    new = not out.exists()
    try:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"{out}: cannot be a folder ({problem.strerror}); name another with --out") from None
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{out}: another run works here; wait for it, or give this one a folder with --out") from None
    try:
        yield
    finally:
        lock.release()
        if new and {file.name for file in out.iterdir()} <= {".lock"}:
            (out / ".lock").unlink(missing_ok=True)
            out.rmdir()
