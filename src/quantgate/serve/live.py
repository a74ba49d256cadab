"""What is live, heard from the registry within a fraction of a second, and remembered for when nobody can ask it.

One cheap query at a time asks whether the pointer moved. What it points to is applied first and written down then: a
rollback does not wait for a disk. While the registry is out of reach the last release stands, told by ``trouble``, and
a gateway that starts meanwhile takes it from its file.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.errors import QuantgateError, ReleaseError
from quantgate.release import Live

if TYPE_CHECKING:
    from quantgate.release.store import Registry

log = logging.getLogger("quantgate.serve")
POLL_S = 0.05  # new requests are elsewhere within 0.1 s of a rollback, whoever decided it
Changed = Callable[[int], Live | None]
"""What is live, if its revision is beyond the given one: ``Registry.changed`` of a target."""


def file_of(folder: Path, target: str) -> Path:
    """Where a target's last known release is kept; two targets never share a file."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", target)[:40]
    return folder / f"live-{plain}-{hashlib.sha256(target.encode()).hexdigest()[:8]}.json"


class RegistryLink:
    """A registry that is opened when it is first asked, so that a gateway can start while it is away."""

    def __init__(self, url: str, actor: str) -> None:
        self._url, self._actor = url, actor
        self._open: Registry | None = None
        self._lock = threading.Lock()

    def get(self) -> Registry:
        """Raises ReleaseError, UsageError, MissingExtra."""
        from quantgate.release.store import Registry

        with self._lock:
            if self._open is None:
                self._open = Registry.open(self._url, self._actor)
            return self._open

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None


class LiveFeed:
    """``first`` once, then ``start``; ``heard`` is called in the feed's thread for every release that is newer."""

    def __init__(self, target: str, changed: Changed, folder: Path, *, poll_s: float = POLL_S) -> None:
        self.target, self._changed, self._poll_s = target, changed, poll_s
        self._file = file_of(folder, target)
        self._now: Live | None = None
        self.trouble: str | None = None
        self.asked_at = 0.0  # monotonic: when the registry last answered
        self._end = threading.Event()
        self._asking = threading.Lock()
        self._heard: Callable[[Live], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)

    def first(self) -> Live:
        """From the registry, or from the file where it cannot be asked. Raises ReleaseError, UsageError."""
        try:
            found = self._changed(-1)
            self.asked_at = time.monotonic()
        except ReleaseError as problem:
            if not self._file.exists():
                raise
            found = Live.load(self._file)
            self._tell(f"the registry cannot be asked ({problem}); revision {found.revision} stands, as last known")
        if found is None:
            raise ReleaseError(
                f"{self.target}: the registry serves no such target; register a run first: quantgate register RUN"
            )
        if found.target != self.target:
            raise ReleaseError(f"{self._file}: is of target '{found.target}', expected '{self.target}'; delete it")
        self._now = found
        self._keep(found)
        return found

    def start(self, heard: Callable[[Live], None]) -> None:
        self._heard = heard
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._poll_s):
            self.ask()

    def ask(self) -> None:
        """Once, now: in the feed's thread, or in whosever that has just moved the pointer. One at a time, so that
        releases are heard in their order."""
        with self._asking:
            self._ask()

    def _ask(self) -> None:
        since = self._now.revision if self._now is not None else -1
        try:
            found = self._changed(since)
        except QuantgateError as problem:
            self._tell(f"the registry cannot be asked ({problem}); revision {since} stands, as last known")
            return
        self.asked_at = time.monotonic()
        if self.trouble is not None:
            log.warning("%s: the registry answers again", self.target)
            self.trouble = None
        if found is not None and found.revision > since:
            self._now = found
            self._heard(found)
            self._keep(found)

    def _tell(self, sentence: str) -> None:
        if self.trouble is None:
            log.warning("%s: %s", self.target, sentence)
        self.trouble = sentence

    def _keep(self, live: Live) -> None:
        try:
            live.save(self._file)
        except (OSError, QuantgateError) as problem:
            log.warning("%s: its release cannot be written down (%s)", self.target, problem)
