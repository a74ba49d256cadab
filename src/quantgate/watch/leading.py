"""One leader for each target among all replicas: who leads counts, judges and moves; the others wait, and may read.

The lock says who should lead, the fence in the database says who may: a leader that was cut off or stood still, and
does not know that another took over, cannot write (``store.Deposed``). So a lock that fails costs time, never counts.

PostgreSQL: an advisory lock on a connection of its own. A process that dies loses it at once; one that hangs, or whose
network is cut, loses it when the server has not heard of it for ``HANGS_S``. SQLite: a lock on a file beside the
database, which dies with its process too; the leader touches the file, and one that has stood still for ``HANGS_S``
gets a new file put in its place. Time is each process's own, so clocks may jump.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

HANGS_S = 4.0


class Lead(Protocol):
    def take(self) -> bool:
        """Try once, without waiting; whether this process has the lead now. Raises SQLAlchemyError, OSError."""
        ...

    def held(self) -> bool:
        """Say that this process is alive; whether it still has the lead. To be called several times in HANGS_S."""
        ...

    def give(self) -> None:
        """Let another have it; may be called twice."""
        ...


def lead_of(engine: Engine, target: str, *, hangs_s: float = HANGS_S) -> Lead:
    if engine.dialect.name == "postgresql":
        return ServerLock(engine, target, hangs_s=hangs_s)
    name = hashlib.sha256(target.encode()).hexdigest()[:8]
    return FileLock(Path(f"{engine.url.database}.watch-{name}.lock"), hangs_s=hangs_s)


class ServerLock:
    """Of PostgreSQL."""

    def __init__(self, engine: Engine, target: str, *, hangs_s: float = HANGS_S) -> None:
        self._engine, self._target, self._hangs_s = engine, target, hangs_s
        self._link: Connection | None = None
        self._has = False

    def take(self) -> bool:
        if self._has:
            return self.held()
        try:
            self._link = self._link or self._open()
            told = {"key": self._key(self._link)}
            self._has = bool(self._link.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), told).scalar())
        except BaseException:
            self.give()
            raise
        return self._has

    def _open(self) -> Connection:
        link = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        link.detach()  # no longer the pool's, which would hand it to others
        with contextlib.suppress(sa.exc.DBAPIError):  # before version 14 a lost network is noticed by TCP alone
            link.exec_driver_sql(f"SET idle_session_timeout = {int(self._hangs_s * 1000)}")
        return link

    def _key(self, link: Connection) -> int:
        schema = link.exec_driver_sql("SELECT current_schema()").scalar()
        told = hashlib.sha256(f"quantgate watch\0{schema}\0{self._target}".encode()).digest()
        return int.from_bytes(told[:8], "big", signed=True)

    def held(self) -> bool:
        if not self._has or self._link is None:
            return False
        try:
            self._link.exec_driver_sql("SELECT 1")
        except sa.exc.SQLAlchemyError:
            self.give()
            return False
        return True

    def give(self) -> None:
        link, self._link = self._link, None
        had, self._has = self._has, False
        if link is None:
            return
        if had:  # said, since the server notices the end of a connection a moment later
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                link.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            link.close()


class FileLock:
    """Of processes on one machine."""

    def __init__(self, path: Path, *, hangs_s: float = HANGS_S) -> None:
        self._path, self._hangs_s = path, hangs_s
        self._file: int | None = None
        self._seen: tuple[int, int] | None = None  # of the file that another has: which, and when it was touched
        self._since_s = 0.0  # monotonic: since when it was seen so

    def take(self) -> bool:
        if self._file is not None:
            return self.held()
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if self._locked(file):
            self._file = file
            return self.held()
        told = os.fstat(file)
        os.close(file)
        seen = (told.st_ino, told.st_mtime_ns)
        if seen != self._seen:
            self._seen, self._since_s = seen, time.monotonic()
        if time.monotonic() - self._since_s < self._hangs_s:
            return False
        return self._replace()

    def _replace(self) -> bool:
        """Its leader hangs: from now on the lock is on another file of the same name."""
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        file = os.open(aside, os.O_RDWR | os.O_CREAT, 0o600)
        if not self._locked(file):
            os.close(file)
            return False
        os.replace(aside, self._path)
        self._file, self._seen = file, None
        return self.held()

    def _locked(self, file: int) -> bool:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def held(self) -> bool:
        if self._file is None:
            return False
        try:
            os.utime(self._file)
            mine = os.fstat(self._file).st_ino == os.stat(self._path).st_ino
        except OSError:
            mine = False
        if not mine:
            self.give()
        return mine

    def give(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
