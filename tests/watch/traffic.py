"""A registry with a canary, exchanges as its gateway would write them, and one signal that reads them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from tests.release.given import BASE, register
from tests.serve.test_exchanges import exchange

from quantgate.release import Live, Variant
from quantgate.release.lifecycle import promote
from quantgate.release.store import Registry
from quantgate.serve import Exchange
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Journal
from quantgate.watch.signals import Signal
from quantgate.watch_config import WatchConfig

BROKE = Signal("broke", "answers that broke their schema", "event", lambda one, _: one.marks.get("broke"))
CONFIG = WatchConfig.model_validate(
    {"steps": [{"share": "50%", "margin": 2, "least": 50, "stay": 0}, {"share": "100%", "margin": 1.5}]}
)


def canary(url: str, share: float = 0.5) -> Registry:
    """Of target fleet: A is proven and its canary."""
    registry = Registry.open(url, "ada", create=True)
    register(registry, A="pass", B="pass")
    promote(registry, "fleet", "A", canary=share)
    return registry


def exchanges(live: Live, n: int, *, bad: float, base: float = 0.02, seed: int = 1, first: int = 0) -> list[Exchange]:
    """One for each session; ``bad``: rate of the canary, ``base``: of the baseline."""
    draw = random.Random(seed)
    assert live.canary is not None
    return [_one(live, live.canary, number, draw, bad, base) for number in range(first, first + n)]


def _one(live: Live, variant: Variant, number: int, draw: random.Random, bad: float, base: float) -> Exchange:
    ours = draw.random() < live.share
    own, other = (variant, BASE) if ours else (BASE, variant)
    broke = float(draw.random() < (bad if ours else base))
    given: dict[str, Any] = {
        "target": live.target, "variant": own.name, "answered_by": own.name, "artifact": own.artifact,
        "cohort": "canary" if ours else "stable", "side": "trial" if ours else "control", "odds": live.share,
        "against": other.artifact, "share": live.share, "revision": live.revision, "session": f"s{number}",
        "marks": {"broke": broke}, "at": time.time(),
    }  # fmt: skip
    return exchange(number, **given)


def write(url: str, some: list[Exchange]) -> None:
    """On the disk when this returns."""
    journal = Journal(connect(url))
    journal.start()
    for one in some:
        journal.put(one)
    journal.close()
    assert journal.dropped == 0


def until(true: Callable[[], Any], *, limit_s: float = 60.0) -> Any:
    """What it says as soon as it says something."""
    end = time.monotonic() + limit_s
    while not (found := true()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)
    return found
