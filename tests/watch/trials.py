"""Small signals, exchanges of a trial and what is live, for tests of the fold and of the judge."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

from quantgate.release import Live, Variant
from quantgate.serve import Exchange
from quantgate.watch.fold import Fold
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch_config import WatchConfig

BASE, GOOD, OTHER = ("BF16", "sha256:base"), ("W4A16", "sha256:good"), ("W3A16", "sha256:other")
BAD = Signal("bad", "answers that broke", "event", of_mark("bad"))
SLOW = Signal(
    "slow", "time to answer", "quantity", of_mark("slow"), unit="s", stratum=lambda one: "s" if one.stream else ""
)
GRADE = Signal("grade", "how far off", "graded", of_mark("grade"))
CALLS = Signal("calls", "answers that call a tool", "event", of_mark("calls"), worse="either")
LENGTH = Signal("length", "tokens of an answer", "quantity", of_mark("length"), worse="either", unit="tokens")
PAIR = Signal("pair", "prompts that the shadow answered worse", "pair", of_mark("pair"))
EACH = Signal("each", "requests that broke", "event", of_mark("bad"), each="request")
ALL = (BAD, SLOW, GRADE, CALLS, LENGTH, PAIR, EACH)
START = 1_800_000_000.0
CONFIG = WatchConfig()


def exchange(number: int, side: str = "trial", bad: float | None = 0.0, **told: Any) -> Exchange:
    """One of ``GOOD`` on trial against ``BASE``, at odds 0.1, a second after the one before.

    ``drawn``: the side that it tells, where that is another than whose variant it has.
    """
    pair: tuple[tuple[str, str], tuple[str, str]] = told.pop("pair", (GOOD, BASE))
    own, other = pair if side == "trial" else pair[::-1]
    marks = {} if bad is None else {"bad": bad}
    session = told.pop("session", None)
    standard: dict[str, Any] = {
        "id": f"r{number}",
        "at": START + number,
        "target": "t",
        "variant": own[0],
        "artifact": own[1],
        "answered_by": own[0],
        "cohort": "canary" if side == "trial" else "stable",
        "share": 0.1,
        "side": told.pop("drawn", side),
        "odds": 0.1,
        "against": other[1],
        "revision": 2,
        "route": "chat",
        "key": "k1",
        "session": session or f"s{number}",
        "told_session": session is not None,
        "stream": False,
        "structured": True,
        "status": 200,
        "marks": marks | told.pop("marks", {}),
    }
    return Exchange(**(standard | told))


def traffic(
    n: int, *, seed: int = 1, trial: float = 0.02, control: float = 0.02, odds: float = 0.1, first: int = 1, **told: Any
) -> list[tuple[int, Exchange]]:
    """Rows of sessions that are drawn at ``odds``; ``trial`` and ``control`` are rates of bad events."""
    chance = random.Random(seed)
    rows = []
    for number in range(first, first + n):
        ours = chance.random() < odds
        bad = float(chance.random() < (trial if ours else control))
        rows.append((number, exchange(number, "trial" if ours else "control", bad, odds=odds, share=odds, **told)))
    return rows


def folded(
    rows: Iterable[tuple[int, Exchange]], signals: Sequence[Signal] = (BAD,), config: WatchConfig = CONFIG
) -> Fold:
    made = Fold(config, "t", signals)
    for number, one in rows:
        made.add(number, one)
    return made


def restarted(fold: Fold, rows: Iterable[tuple[int, Exchange]]) -> Fold:
    """As after kill -9: out of the JSON that was saved, and the rows that were counted."""
    made = Fold.of(
        json.loads(json.dumps(fold.state())), fold.config, "t", list(dict.fromkeys(one.signal for one in fold.rules))
    )
    for number, one in rows:
        if made.rebuild_from <= number <= made.number:
            made.remember(number, one)
    return made


def variant(pair: tuple[str, str]) -> Variant:
    return Variant(name=pair[0], artifact=pair[1], engine="none", is_baseline=pair == BASE)


def live(**told: Any) -> Live:
    """``GOOD`` is the canary at 10 %, at revision 2."""
    base = variant(BASE)
    standard: dict[str, Any] = {
        "target": "t",
        "revision": 2,
        "baseline": base,
        "stable": base,
        "canary": variant(GOOD),
        "share": 0.1,
    }
    return Live(**(standard | told))
