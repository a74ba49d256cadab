"""A fold to the disk and back, exactly: floats survive JSON bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from quantgate.watch import Trial
from quantgate.watch.processes import Process
from quantgate.watch.standing import Standing, Uncounted
from quantgate.watch.units import Clock, Filter, Seen

if TYPE_CHECKING:
    from quantgate.watch.fold import Fold

VERSION = 1


def state(fold: Fold) -> dict[str, Any]:
    standing = None
    if fold.standing is not None:
        standing = asdict(fold.standing) | {"drawn": [[odds, *row] for odds, row in fold.drawn().items()]}
    return {
        "version": VERSION,
        "number": fold.number,
        "at": fold.at,
        "order": fold.order,
        "clock": fold.clock.state(),
        "standing": standing,
        "named": fold.named.body() if fold.named else None,
        "uncounted": asdict(fold.uncounted),
        "seen": fold.took.seen.state(),
        "bad": fold.took.bad.state(),
        "processes": {_key(one): one.state() for one in fold.processes},
        "alone": fold.alone.state(),
    }


def load(fold: Fold, state: Mapping[str, Any]) -> None:
    """Into a fold that has counted nothing. Raises KeyError, TypeError, ValueError for what is no state."""
    fold.number, fold.at = state["number"], state["at"]
    fold.clock = Clock.of(state["clock"], fold.config.late)
    fold.named = None if state["named"] is None else Trial(**state["named"])
    fold.uncounted = fold.took.uncounted = Uncounted(**state["uncounted"])
    if fold.order[: len(state["order"])] == state["order"]:
        fold.took.seen = Seen.of(state["seen"])
    fold.took.bad = Filter.of(state["bad"])
    fold.alone.load(state["alone"])
    if state["standing"] is None:
        return
    now = fold.standing = Standing(**state["standing"])
    fold.drawn().update({odds: [n, ours] for odds, n, ours in now.drawn})
    now.drawn = []
    known = state["processes"]
    for one in fold.processes:
        if _key(one) in known:
            one.load(known[_key(one)])
        else:
            _new(one, fold, now)


def _new(one: Process, fold: Fold, now: Standing) -> None:
    """A signal that is new since: what came before, it has not seen."""
    if now.held:
        one.begin(renewed=True)
        for start in range(1, now.copied_at + 1):
            one.copy(start)
    one.missed = [*fold.sessions(), now.copies]


def _key(process: Process) -> str:
    rule = process.rule
    return f"{rule.signal.name}/{rule.signal.kind}/{rule.direction}"
