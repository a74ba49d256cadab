"""A gateway out of its configuration: data folder, database, releases, variants, guards; and its orderly end.

Cheap checks run before slow ones, and everything that could make a guard, a budget or a byte other than what was asked
for is refused here, before the first request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from prometheus_client import Gauge

from quantgate.errors import UsageError, hint
from quantgate.guard.admission import admit
from quantgate.release import Live, Variant
from quantgate.serve import Arm, Request, Sink
from quantgate.serve._ledger_sql import connect, create
from quantgate.serve.admin import Admin
from quantgate.serve.app import Gateway
from quantgate.serve.configured import DEFAULT, configured, is_loopback, known_names, limits_of, routes_of, variant_of
from quantgate.serve.exchanges import Journal
from quantgate.serve.fleet import Fleet, Tell, needed, told
from quantgate.serve.folder import DataFolder
from quantgate.serve.keys import KeyBook, KeyRing
from quantgate.serve.ledger import LeaseLedger
from quantgate.serve.live import LiveFeed, RegistryLink
from quantgate.serve.metrics import Metrics
from quantgate.serve.openapi import document
from quantgate.serve.refusals import Refused
from quantgate.serve.routing import CohortRouter
from quantgate.serve.rules import FirstFit
from quantgate.serve.sessions import SessionNames
from quantgate.serve.settings import Attached, RoutePolicy, Settings, Watch
from quantgate.serve.shadow import ACCOUNT, Copies
from quantgate.serve_config import Budget, ServeConfig

log = logging.getLogger("quantgate.serve")
C = TypeVar("C", bound="Closed")


class Closed(Protocol):
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Around:
    """What a gateway is told of its surroundings by the command line."""

    environment: Mapping[str, str]
    secret: str | None = None
    actor: str = "gateway"
    tell: Tell = lambda _sentence: None
    worker: str = "0"  # of several processes on one port
    attach: Callable[[Parts], Attached | None] = lambda _parts: None  # such as watch.attached.attach


class ServedGateway(Gateway):
    """A gateway with all that belongs to it. ``start`` opens the variants; ``stop`` ends everything, once."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.settings, parts.metrics)
        self.parts = parts
        if isinstance(parts.settings.admin, Admin):
            parts.settings.admin.drain = self.drain

    def drain(self, on: bool) -> None:
        """``/ready`` says so, so that whoever spreads requests turns away; those that come are answered."""
        self.draining = on

    async def start(self) -> None:
        self.parts.loop = asyncio.get_running_loop()
        await self._open_first()
        await super().start()
        if self.parts.feed is not None:
            self.parts.feed.start(self.parts.heard)
        if self.parts.attached is not None:
            await asyncio.to_thread(self.parts.attached.start, self.parts.loop)

    async def _open_first(self) -> None:
        parts = self.parts
        for variant in parts.first:
            upstream = await asyncio.to_thread(parts.fleet.open, variant)
            await upstream.start()
            parts.fleet.take(variant, upstream)
        parts.router.swap(parts.live, parts.fleet.up(parts.live))

    async def stop(self) -> None:
        await super().stop()
        parts = self.parts
        if parts.shadow is not None:
            await parts.shadow.close()
        await asyncio.to_thread(parts.close)


class Parts:
    """What a gateway consists of beside its settings, and how a new release reaches it."""

    def __init__(self, config: ServeConfig, around: Around) -> None:
        self.config, self.around = config, around
        known_names(config)
        self.folder = DataFolder(Path(config.data), around.secret, config.database, config.exchanges.url)
        self.folder.make()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.metrics = Metrics(around.worker)
        self._ends = contextlib.ExitStack()
        self._changing = threading.Lock()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        config, folder = self.config, self.folder
        self.policies, self.gates, self.proofs = routes_of(config, folder)
        engine = connect(folder.database)
        self._ends.callback(engine.dispose)
        create(engine)
        self.book = KeyBook(engine, folder.pepper)
        self.ring = self._closing(KeyRing(self.book))
        self.ring.start()
        self.open_to_all = not len(self.ring)
        if self.open_to_all and not is_loopback(config.host):
            raise UsageError(
                f"host {config.host}: others can reach it, and there is no key yet; make one with: quantgate keys new "
                f"--name NAME --data {config.data}, or serve on 127.0.0.1"
            )
        self.fleet = self._closing(Fleet(config, folder.path / "logs", self.around.environment, self.around.tell))
        self.registry, self.feed, self.live = self._releases()
        self.first = needed(self.live)
        self.router = CohortRouter(
            config.target,
            self.live,
            [one.name for one in self.first],
            rules=config.rules,
            pinners=config.pinners,
            names=config.names,
            unlisted=(config.model,),
        )
        prices = {name: one.price for name, one in config.variants.items() if one.price is not None}
        own = {ACCOUNT: config.shadow.budget} if config.shadow is not None else {}
        self.ledger = self._closing(LeaseLedger(connect(folder.database), folder.leases, self._budget(own), prices))
        self.ledger.start()
        self.journal = self._closing(
            Journal(
                connect(folder.exchanges),
                days=config.exchanges.days,
                queue=config.exchanges.queue,
                keep_text=config.exchanges.keep_text,
            )
        )
        self.journal.start()
        self.attached = self.around.attach(self)
        if self.attached is not None:
            self._closing(self.attached)
        self.sink: Sink = self.journal if self.attached is None else self.attached.sink
        self.keep_text = config.exchanges.keep_text or (self.attached is not None and self.attached.reads_text)
        self.shadow = self._shadow()
        self.watch = self._telemetry()
        self.settings = self._settings()
        self._count()

    def _closing(self, part: C) -> C:
        self._ends.callback(part.close)
        return part

    def close(self) -> None:
        """Everything that was opened, the newest first; may be called twice."""
        self._ends.pop_all().close()

    def _budget(self, own: Mapping[str, Budget]) -> Callable[[str], Budget | None]:
        return lambda account: own.get(account) or self.ring.budget(account)

    def _releases(self) -> tuple[RegistryLink | None, LiveFeed | None, Live]:
        config = self.config
        if config.registry is None:
            return None, None, configured(config)
        registry = self._closing(RegistryLink(config.registry, self.around.actor))
        target = config.target
        feed = self._closing(LiveFeed(target, lambda since: registry.get().changed(target, since), self.folder.path))
        return registry, feed, feed.first()

    def _shadow(self) -> Copies | None:
        wanted = self.config.shadow
        if wanted is None:
            return None
        known = {one.name: one for one in self.first}
        if wanted.variant not in known:
            served = self.config.variants.get(wanted.variant)
            if served is None:
                names = sorted({*known, *self.config.variants})
                raise UsageError(f"shadow: no variant '{wanted.variant}'; {hint(wanted.variant, names)}")
            known[wanted.variant] = variant_of(wanted.variant, served, self.config)
            self.first.append(known[wanted.variant])
        arm = Arm(wanted.variant, known[wanted.variant].artifact, "canary")
        return Copies(
            wanted,
            arm,
            lambda: self.fleet.upstreams.get(arm.name),
            self.sink,
            admit,
            target=self.config.target,
            ledger=self.ledger,
            keep_text=self.keep_text,
        )

    def _telemetry(self) -> Watch | None:
        if not self.config.telemetry:
            return None
        from quantgate.serve.telemetry import by_environment

        found = by_environment(self.around.environment, self.around.tell)
        return None if found is None else self._closing(found)

    def _settings(self) -> Settings:
        config = self.config
        first = FirstFit(config.routes)
        policies, default = self.policies, self.policies[DEFAULT.name]

        def policy(request: Request) -> RoutePolicy:
            route = first.of(request)
            return default if route is None else policies[route.name]

        apps = {} if self.attached is None else self.attached.apps
        described = document([config.target, *config.names], watch="watch" in apps)
        return Settings(
            upstreams=self.fleet.upstreams,
            router=self.router,
            admit=admit,
            sessions=SessionNames(self.folder.secret()),
            keys=None if self.open_to_all else self.ring,
            ledger=self.ledger,
            sink=self.sink,
            watch=self.watch,
            shadow=self.shadow,
            policy=policy,
            limits=limits_of(config.limits),
            target=config.target,
            keep_text=self.keep_text,
            openapi=lambda: described,
            admin=Admin(self) if config.admin else None,
            apps=apps,
            proven=lambda: True,
            dead=self.dead,
        )

    def dead(self) -> str | None:
        """Why no request should come, beyond the upstreams."""
        lost = self.ledger.trouble
        return lost if lost is not None and "cannot be reached" in lost else None

    def warnings(self) -> list[str]:
        """What is not as it should be, while requests are answered all the same."""
        found = [*self.router.warnings(), *self.fleet.failed.values()]
        troubles = (self.feed and self.feed.trouble, self.ledger.trouble, self.ring.trouble, self.journal.trouble)
        beside = self.attached.warnings() if self.attached is not None else ()
        return list(dict.fromkeys([*found, *(one for one in troubles if one), *beside]))

    def heard(self, live: Live) -> None:
        """A new release, in the feed's thread: what is up serves it now, what is not is opened meanwhile."""
        with self._changing:
            self.live = live
            self._swap()
        missing = self.fleet.missing(live)
        if missing:
            threading.Thread(target=self._bring, args=(missing,), name="variants", daemon=True).start()
        stale = [one.name for one in needed(live) if one.name not in self.fleet.up(live) and one not in missing]
        for name in stale:
            self.fleet.failed[name] = f"{name}: was released anew with other bytes; start the gateway again to serve it"

    def _swap(self) -> None:
        try:
            self.router.swap(self.live, self.fleet.up(self.live))
            log.info("%s: revision %d is live", self.live.target, self.live.revision)
        except Refused as problem:
            self.router.tell(str(problem))
            log.error("%s: revision %d is not served: %s", self.live.target, self.live.revision, problem)

    def _bring(self, missing: list[Variant]) -> None:
        """Open what a release needs, and serve it once it is up."""
        assert self.loop is not None
        for variant in missing:
            try:
                upstream = self.fleet.open(variant)
                asyncio.run_coroutine_threadsafe(upstream.start(), self.loop).result()
            except Exception as problem:
                self.fleet.failed[variant.name] = told(variant.name, problem)
                log.error("%s", self.fleet.failed[variant.name])
                continue
            with self._changing:
                self.fleet.take(variant, upstream)
                self.router.tell(None)
                self._swap()

    def _count(self) -> None:
        """Figures that live outside of the request's path."""
        named: dict[str, tuple[str, Callable[[], float]]] = {
            "exchanges_dropped": ("Exchanges that were not written", lambda: self.journal.dropped),
            "exchanges_written": ("Exchanges that were written", lambda: self.journal.written),
            "revision": ("Of the release that is served", lambda: self.router.now.revision),
            "canary_share": ("Of sessions", lambda: self.router.now.share),
            "warnings": ("Things that are not as they should be", lambda: len(self.warnings())),
        }
        if self.shadow is not None:
            shadow = self.shadow
            named["shadow_asked"] = ("Copies that were asked", lambda: shadow.asked)
            named["shadow_dropped"] = ("Copies that were dropped", lambda: shadow.dropped)
        for name, (about, value) in named.items():
            Gauge(f"quantgate_{name}", about, registry=self.metrics.registry).set_function(value)


def open_gateway(config: ServeConfig, around: Around) -> ServedGateway:
    """Raises QuantgateError in one sentence; nothing is left open then."""
    return ServedGateway(Parts(config, around))
