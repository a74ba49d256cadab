"""A gateway's watch: what ``quantgate serve`` puts beside it, out of ``watch:`` of serve.yaml.

    exchanges with their texts -> Marker -> exchanges with marks -> the gateway's journal
    the journal -> Watcher -> the evidence's database -> /watch, /dashboard, Prometheus

Every process of a gateway reads marks and answers questions; one of them all leads and judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from quantgate.serve import Sink
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Reader
from quantgate.serve.folder import DataFolder
from quantgate.serve.settings import Application
from quantgate.watch import signals
from quantgate.watch.alone import stated
from quantgate.watch.classifier import with_classifier
from quantgate.watch.dashboard import Dashboard
from quantgate.watch.gauges import Gauges, Standing
from quantgate.watch.marking import Marker, every
from quantgate.watch.processes import rules
from quantgate.watch.signals import Signal
from quantgate.watch.store import Store
from quantgate.watch.verdicts import Verdicts
from quantgate.watch.watcher import Watcher
from quantgate.watch_config import WatchConfig

if TYPE_CHECKING:
    from quantgate.serve.open import Parts

log = logging.getLogger("quantgate.watch")


def attach(parts: Parts) -> Watching | None:
    """For ``serve.open.Around``. None where ``watch.enabled`` is false. Raises QuantgateError in one sentence."""
    return Watching(parts) if parts.config.watch.enabled else None


def database_of(config: WatchConfig, folder: DataFolder) -> str:
    """Where the evidence lies: beside the exchanges, so that replicas that share them share it."""
    return config.database or folder.exchanges


def chosen(config: WatchConfig) -> tuple[Signal, ...]:
    """The signals that are on and can be read here. Raises UnknownName for one that nobody knows, UsageError for bounds
    of one that is no event, ModelError for a classifier that cannot be opened."""
    for name in (*config.signals, *config.bounds):
        signals.get(name)
    off = {name for name, one in config.signals.items() if one.off}
    found = tuple(one for one in every() if one.name not in off)
    stated(config, rules(config, found))
    return with_classifier(found, config.classifier) if config.classifier else found


class Watching:
    """See ``serve.settings.Attached``."""

    reads_text = True

    def __init__(self, parts: Parts) -> None:
        config, target = parts.config.watch, parts.config.target
        self._ends = contextlib.ExitStack()
        try:
            read = chosen(config)
            self.reader = Reader(connect(parts.folder.exchanges, where="exchanges"))
            self._ends.callback(self.reader.close)
            self.store = Store(connect(database_of(config, parts.folder), where="watch"), self.reader)
            self._ends.callback(self.store.close)
            self.store.create()
            key = hashlib.blake2b(parts.folder.secret(), person=b"marks").digest()
            pair_s = 0.0 if parts.config.shadow is None else 120.0
            self.marker = Marker(
                parts.journal, key, signals=read, keep_text=parts.config.exchanges.keep_text, pair_s=pair_s
            )
            self._ends.callback(self.marker.close)
            self.standing = Standing(target, self.store)
            self._ends.callback(self.standing.close)
            moved = parts.feed.ask if parts.feed is not None else lambda: None
            self.watcher = Watcher(
                target,
                self.reader,
                self.store,
                parts.registry,
                config,
                moved=moved,
                live=lambda: parts.live,
                environment=parts.around.environment,
                capacity=lambda one: "" if one.name in parts.fleet.upstreams else "this gateway has no upstream for it",
                signals=read,
            )
            self._ends.callback(self.watcher.close)
            self.apps: Mapping[str, Application] = self._applications(parts, config, target)
        except BaseException:
            self.close()
            raise
        self.sink: Sink = self.marker
        parts.metrics.registry.register(Gauges(self.standing, self._counts()))

    def _applications(self, parts: Parts, config: WatchConfig, target: str) -> dict[str, Application]:
        keys = None if parts.open_to_all else parts.ring
        verdicts = Verdicts(target, self.store, lambda: parts.live, keys=keys, late_s=config.late)
        dashboard = Dashboard(parts, self.store, self.reader)
        self._ends.callback(dashboard.close)
        return {"watch": verdicts, "dashboard": dashboard}

    def _counts(self) -> dict[str, tuple[str, Callable[[], float]]]:
        marker = self.marker
        return {
            "marks_read": ("Exchanges whose texts were read", lambda: marker.marked),
            "marks_dropped": ("Exchanges that went on without marks, for want of room", lambda: marker.unmarked),
            "marks_failed": ("Signals that could not be read from a text", lambda: marker.failed.total()),
        }

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.standing.start()
        self.watcher.start()

    def close(self) -> None:
        """The newest first: the watcher, then what waits for marks goes on to the journal; may be called twice."""
        ends, self._ends = self._ends, contextlib.ExitStack()
        ends.close()

    def warnings(self) -> Sequence[str]:
        found = [self.marker.trouble, self.standing.trouble, *self.watcher.warnings()]
        return [one for one in found if one]
