"""A registry, a journal and a watch's store, and watchers over them that end with the test."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.serve.databases import url
from tests.watch.traffic import BROKE, CONFIG, canary, until, write

from quantgate.release import Live
from quantgate.release.store import Registry
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Reader
from quantgate.serve.live import RegistryLink
from quantgate.watch import Alarm
from quantgate.watch.fold import Fold
from quantgate.watch.store import Store
from quantgate.watch.watcher import Watcher
from quantgate.watch_config import WatchConfig

__all__ = ["house", "url"]


class House:
    """``watch`` in this process, ``fork`` in one of its own."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self.url, self.registry_url, self.stack = url, f"sqlite:///{folder / 'registry.db'}", stack
        (folder / "registry.db").write_bytes(_registry())
        self.registry = Registry.open(self.registry_url, "ada")
        stack.callback(self.registry.close)
        write(url, [])
        self.reader = Reader(connect(url))
        self.store = Store(connect(url), self.reader)
        stack.callback(self.reader.close)
        stack.callback(self.store.close)
        self.store.create()
        self.told: list[int] = []

    @property
    def live(self) -> Live:
        return self.registry.live("fleet")

    def make(self, config: WatchConfig = CONFIG, *, registry: bool = True, **more) -> tuple[Watcher, list[Any]]:
        link = RegistryLink(self.registry_url, "gateway") if registry else None
        store, reader = Store(connect(self.url)), Reader(connect(self.url))
        made = Watcher("fleet", reader, store, link, config, **{"signals": [BROKE]} | more)
        return made, [store, reader, *([link] if link else []), made]

    def watch(self, config: WatchConfig = CONFIG, **more) -> Watcher:
        made, parts = self.make(config, **{"moved": lambda: self.told.append(self.live.revision)} | more)
        for part in parts:
            self.stack.callback(part.close)
        made.start()
        return made

    def fork(self, config: WatchConfig = CONFIG, **more) -> int:
        """A process that watches until it is killed; it ends with the test."""
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                made, _ = self.make(config, **more)
                made.start()
                until(lambda: os.getppid() != parent, limit_s=300.0)
            finally:
                os._exit(1)
        self.stack.callback(end, child)
        return child

    def alarm(self, done: str = "moved") -> Alarm:
        found: Alarm = until(lambda: next((one for one in self.store.alarms("fleet") if one.done == done), None))
        return found

    def leader(self) -> int:
        """The process that led last; 0 for none."""
        told = self.store.leader("fleet")
        return int(told.split()[-1]) if told else 0

    def led_by(self, process: int) -> None:
        until(lambda: self.leader() == process)

    def led_by_another(self, process: int) -> None:
        until(lambda: self.leader() != process)

    def counted(self) -> Callable[[], bool]:
        """Whether everything that is in the journal now was counted, and saved."""
        last = self.reader.last()

        def saved() -> bool:
            kept = self.store.load("fleet")
            return kept is not None and kept.number >= last

        return saved

    def straight(self, config: WatchConfig = CONFIG) -> dict[str, Any]:
        """The state of a watch that was never disturbed."""
        fold = Fold(config, "fleet", [BROKE])
        for number, exchange in self.reader.since(target="fleet"):
            fold.add(number, exchange)
        return evidence(fold.state())


@cache
def _registry() -> bytes:
    """One with a canary, made once."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "registry.db"
        canary(f"sqlite:///{file}").close()
        return file.read_bytes()


def evidence(state: dict[str, Any]) -> dict[str, Any]:
    """What was counted: without the names that the registry told."""
    return {key: state[key] for key in state if key != "named"}


def end(child: int) -> None:
    """Killed, if it is still there."""
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        return


@pytest.fixture
def house(url: str, tmp_path: Path) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(url, tmp_path, stack)
