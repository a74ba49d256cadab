"""A verdict -> an alarm, and what it moves: through ``release.lifecycle``, once, and only what it is about.

The alarm is written down as pending before the move and settled after it. Whoever finds one pending, in this process or
after a crash in the next, settles it the same way: a move that bears its name is looked for first; a trial that has
lost its traffic meanwhile makes it stale; else it is moved now, in a compare-and-swap that names the trial's bytes.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from quantgate.errors import NotPromoted, UsageError
from quantgate.release import Live
from quantgate.release.database import held
from quantgate.release.history import Move, percent
from quantgate.serve.live import RegistryLink
from quantgate.watch import Alarm, Finding, Verdict
from quantgate.watch_config import WatchConfig

if TYPE_CHECKING:
    from quantgate.release.capacity import Capacity
    from quantgate.release.store import Registry

TOLD = 5  # findings in the details of a move: those nearest to their thresholds
BACK = 200  # moves that are looked at for one of ours


def alarm_of(verdict: Verdict, now: float) -> Alarm:
    """Pending. Its id is the same for the same trial, action and release, so that one verdict has one alarm."""
    told = f"{verdict.trial.digest} {verdict.action} {verdict.revision}"
    return Alarm(id=hashlib.sha256(told.encode()).hexdigest()[:20], verdict=verdict, decided_at=now)


def hurry(*, over: bool = False) -> None:
    """Between a verdict and its move, threads of this process take turns ten times as often.

    Each statement of a database gives this thread's turn away, and a busy gateway keeps it for 5 ms: for the thirty
    between a verdict and its move that came to 60 ms and more.
    """
    usual_s = 0.005
    if over != (sys.getswitchinterval() > 0.9 * usual_s):
        sys.setswitchinterval(usual_s if over else 0.1 * usual_s)


def details_of(alarm: Alarm) -> dict[str, JsonValue]:
    """What a move's record tells of the verdict behind it."""
    verdict = alarm.verdict
    near = sorted(verdict.findings, key=lambda one: (one.signal != verdict.signal, one.log_threshold - one.log_e))
    return {
        "alarm": alarm.id,
        "trial": verdict.trial.digest,
        "variant": verdict.trial.variant,
        "control": verdict.trial.control,
        "signal": verdict.signal,
        "sentence": verdict.because,
        "number": verdict.number,
        "log_e": verdict.log_e,
        "findings": [_short(one) for one in near[:TOLD]],
    }


def _short(one: Finding) -> dict[str, JsonValue]:
    kept = {"signal", "direction", "log_e", "log_threshold", "ratio", "low", "high", "examples", "sentence"}
    told: dict[str, JsonValue] = one.model_dump(mode="json", include=kept)
    sides: dict[str, JsonValue] = {
        "trial": [one.trial.bad, one.trial.units],
        "control": [one.control.bad, one.control.units],
    }
    return told | sides  # bad of units


@dataclass(frozen=True, slots=True)
class Actor:
    """``registry``: None where what is live stands in serve.yaml, which nobody moves but a person."""

    target: str
    config: WatchConfig
    registry: RegistryLink | None = None
    capacity: Capacity | None = None  # whether what is gone back to is up
    clock: Callable[[], float] = lambda: 0.0

    def changed(self, since: int) -> Live | None:
        """What is live, if its revision is beyond ``since``. Raises ReleaseError."""
        return None if self.registry is None else self.registry.get().changed(self.target, since)

    def hold(self) -> Callable[[], None]:
        """See ``release.database.held``. Raises ReleaseError, sqlite3.Error."""
        return (lambda: None) if self.registry is None else held(self.registry.get().engine)

    def ready(self) -> None:
        """What a move needs is in memory before there is one to be made."""
        import quantgate.release.lifecycle  # noqa: F401

    def settle(self, alarm: Alarm, *, fresh: bool = False, still: bool = True) -> Alarm:
        """Moved, refused or stale. ``fresh``: nobody can have tried before, so its move is not looked for; ``still``:
        the newest verdict says the same, without which a promotion that had to wait is not made any more.

        Raises QuantgateError where it cannot be done now: it is then tried again.
        """
        done, told = self._settle(alarm, fresh, still)
        return alarm.model_copy(update={"done": done, "told": told, "done_at": self.clock()})

    def _settle(self, alarm: Alarm, fresh: bool, still: bool) -> tuple[str, str]:
        verdict = alarm.verdict
        if verdict.action == "hold":
            return "refused", "a hold moves nothing"
        if self.registry is None:
            return "refused", "what is live stands in serve.yaml, so only a person moves it"
        hand = _by_hand(verdict)
        if verdict.action == "rollback" and not self.config.rollback:
            return "refused", f"watch.rollback is false, so a person does it: {hand}"
        if verdict.action == "promote" and not self.config.ramp:
            return "refused", f"watch.ramp is false, so a person does it: {hand}"
        registry = replace(self.registry.get(), actor="watch")
        if not fresh and (found := self._already(registry, alarm)):
            return found
        if verdict.action == "promote" and not still:
            return "stale", "while it waited, the evidence changed"
        try:
            return self._back(registry, alarm) if verdict.action == "rollback" else self._on(registry, alarm)
        except (NotPromoted, UsageError) as refused:
            return "refused", str(refused)

    def _already(self, registry: Registry, alarm: Alarm) -> tuple[str, str] | None:
        """Of a move that was made before a crash, or of a trial that was taken away since the verdict."""
        verdict = alarm.verdict
        for move in reversed(registry.history(self.target, limit=BACK)):
            if move.revision <= verdict.revision:
                continue
            if move.details.get("alarm") == alarm.id:
                return "moved", f"revision {move.revision}"
            if not _is_in(move.live, verdict.trial.artifact):
                return "stale", f"{verdict.trial.variant} was taken away by {_by(move)}"
        return None

    def _back(self, registry: Registry, alarm: Alarm) -> tuple[str, str]:
        from quantgate.release.lifecycle import rollback

        verdict = alarm.verdict
        move = rollback(
            registry,
            self.target,
            why=verdict.because or f"{verdict.signal} is worse",
            capacity=self.capacity,
            automatic=True,
            of=verdict.trial.artifact,
            details=details_of(alarm),
        )
        if move is not None:
            return "moved", f"revision {move.revision}"
        found = self._already(registry, alarm)
        return found or ("stale", f"{verdict.trial.variant} has no traffic that a rollback would take")

    def _on(self, registry: Registry, alarm: Alarm) -> tuple[str, str]:
        from quantgate.release.lifecycle import promote, ramp

        verdict = alarm.verdict
        share, of = verdict.next_share, verdict.trial.artifact
        now = registry.live(self.target)
        if now.revision != verdict.revision:
            return "stale", f"it was judged at revision {verdict.revision}, and {now.revision} is live"
        if share is None:
            return "refused", "there is no further step"
        told: Mapping[str, Any] = {"why": verdict.because, "details": details_of(alarm)}
        if verdict.share == 0.0 and now.canary is None:  # it answered copies alone so far
            live = promote(registry, self.target, of, canary=share, **told)
        elif share >= 1:
            live = promote(registry, self.target, of, holdback=self.config.holdback, of=of, **told)
        else:
            live = ramp(registry, self.target, share, of=of, **told)
        return ("moved", f"revision {live.revision}") if live.revision > now.revision else ("stale", "it is so already")


def _by_hand(verdict: Verdict) -> str:
    target = verdict.trial.target
    if verdict.action == "rollback":
        return f"quantgate rollback {target} --reason '...'"
    if verdict.next_share is None or verdict.next_share >= 1:
        return f"quantgate promote {target} {verdict.trial.variant}"
    share = percent(verdict.next_share).replace(" ", "")
    if verdict.share == 0.0:
        return f"quantgate promote {target} {verdict.trial.variant} --canary {share}"
    return f"quantgate ramp {target} {share}"


def _is_in(live: Live, artifact: str) -> bool:
    return artifact in (live.stable.artifact, live.canary.artifact if live.canary else "")


def _by(move: Move) -> str:
    return f"revision {move.revision}" + (f" of {move.who}" if move.who else "")
