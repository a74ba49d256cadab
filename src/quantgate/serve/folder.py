"""The gateway's data folder: its secret, its database, what it last knew of releases.

Whoever has the secret can tell keys from guesses and sessions from their names, so the file is its owner's alone.
Several gateways of one database need the same one: QUANTGATE_SECRET gives it to all of them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from quantgate.errors import DiskFull, QuantgateError, UsageError
from quantgate.records import disk_errors

LEAST = 32  # characters of a secret that somebody gives


@dataclass(frozen=True, slots=True)
class DataFolder:
    """``secret``: in place of the file's, where one was given."""

    path: Path
    given: str | None = None
    database_url: str | None = None
    exchanges_url: str | None = None

    def make(self) -> None:
        """Raises QuantgateError where it cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as problem:
            sentence = f"{self.path}: the data folder cannot be made ({problem.strerror}); name another with --data"
            raise QuantgateError(sentence) from None

    def secret(self) -> bytes:
        """32 bytes; made the first time. Raises UsageError for one that is too short, or that others may read."""
        if self.given is not None:
            if len(self.given) < LEAST:
                raise UsageError(f"QUANTGATE_SECRET: has {len(self.given)} characters, expected {LEAST} at least")
            return hashlib.sha256(self.given.encode()).digest()
        file = self.path / "secret"
        self.make()
        self._once(file)
        if file.stat().st_mode & 0o077:
            raise UsageError(f"{file}: others may read it; run: chmod 600 {file}, and make all keys anew")
        text = file.read_text("ascii").strip()
        if len(text) < LEAST:
            raise UsageError(f"{file}: holds no secret; delete it, and make all keys anew")
        return hashlib.sha256(text.encode()).digest()

    def _once(self, file: Path) -> None:
        """Written aside and linked: of two gateways that start at once both read the one that was first."""
        if file.exists():
            return
        aside = file.with_name(f".secret.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            with disk_errors(file):
                handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w") as out:
                    out.write(secrets.token_hex(32) + "\n")
                    out.flush()
                    os.fsync(out.fileno())
            os.link(aside, file)
        except FileExistsError:
            pass
        except DiskFull:
            raise
        except OSError as problem:
            raise QuantgateError(f"{file}: cannot be written ({problem.strerror}); name another --data") from None
        finally:
            aside.unlink(missing_ok=True)

    @property
    def pepper(self) -> bytes:
        """Of keys."""
        return hashlib.blake2b(self.secret(), person=b"keys").digest()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.path / 'state.db'}"

    @property
    def exchanges(self) -> str:
        return self.exchanges_url or f"sqlite:///{self.path / 'exchanges.db'}"

    @property
    def leases(self) -> Path:
        return self.path / "leases"

    @property
    def approvals(self) -> Path:
        return self.path / "approvals.jsonl"
