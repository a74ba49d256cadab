"""What the first screen says: a target's release, verdict and alarms -> one state, one headline, who has which share.

Pure: records in, records out. The judge's own sentence is shown as it is; the headline above it is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quantgate.release import Live, Variant
from quantgate.release.history import WORDS, Move, same
from quantgate.watch import Alarm, Verdict
from quantgate.watch.dashboard import words
from quantgate.watch.dashboard.rows import Row

Tone = Literal["good", "watch", "warn", "bad", "idle"]
NEAR = 0.5  # of the way to going back, from which on a signal is named
LATE_S = 60.0  # that evidence may be behind before people are told


@dataclass(frozen=True, slots=True)
class State:
    """``tone`` chooses colour and icon together, so that neither is needed alone."""

    tone: Tone
    word: str
    headline: str
    because: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Who has which share of sessions."""

    name: str
    role: str
    share: float
    kind: Literal["baseline", "stable", "canary"]
    digest: str


def trial_variant(live: Live | None) -> Variant | None:
    """What is on trial now: the canary, or the stable variant that is not the baseline."""
    if live is None:
        return None
    if live.canary is not None:
        return live.canary
    return None if same(live.stable, live.baseline) else live.stable


def on_trial(live: Live | None, verdict: Verdict | None) -> bool:
    """Whether the newest verdict is about what is live."""
    subject = trial_variant(live)
    return verdict is not None and (
        live is None or (subject is not None and subject.artifact == verdict.trial.artifact)
    )


def traffic(live: Live) -> list[Part]:
    """The largest share first.

    >>> base = Variant(name="BF16", artifact="sha256:b", engine="none", is_baseline=True)
    >>> small = Variant(name="W4A16", artifact="sha256:w", engine="e")
    >>> found = traffic(Live(target="t", revision=2, baseline=base, stable=base, canary=small, share=0.05))
    >>> [(one.name, one.role, one.share) for one in found]
    [('BF16', 'baseline', 0.95), ('W4A16', 'canary', 0.05)]
    """
    based = same(live.stable, live.baseline)
    held = 0.0 if based else live.holdback
    kind: Literal["baseline", "stable"] = "baseline" if based else "stable"
    rest = max(0.0, 1.0 - live.share - held)
    found = [Part(live.stable.name, kind, rest, kind, live.stable.artifact)]
    if live.canary is not None:
        found.append(Part(live.canary.name, "canary", live.share, "canary", live.canary.artifact))
    if held:
        found.append(Part(live.baseline.name, "baseline, held back", held, "baseline", live.baseline.artifact))
    return sorted((one for one in found if one.share > 0), key=lambda one: -one.share)


def state_of(
    live: Live | None, verdict: Verdict | None, alarms: Sequence[Alarm], rows: Sequence[Row], behind_s: float | None
) -> State:
    """One state for all that is known; ``alarms`` the newest first, ``rows`` the worst first."""
    if verdict is not None and on_trial(live, verdict):
        return _judged(verdict, alarms, rows, behind_s)
    if live is None:
        return State("idle", "Nothing known", "Nothing is known yet of what is live")
    subject = trial_variant(live)
    if subject is not None:
        told = f"{subject.name} is live, and there is no evidence on it yet"
        return State("watch", "Watching", told, "Evidence begins with the first sessions on both sides.")
    back = next((one for one in alarms if one.verdict.action == "rollback" and one.done == "moved"), None)
    if back is not None and alarms[0].id == back.id:
        told = f"{back.verdict.trial.variant} was taken back. {live.stable.name} serves everyone again"
        return State("bad", "Rolled back", told, back.verdict.because)
    return State("idle", "Nothing on trial", f"{live.stable.name} serves everyone, and nothing is on trial")


def _judged(verdict: Verdict, alarms: Sequence[Alarm], rows: Sequence[Row], behind_s: float | None) -> State:
    trial, because = verdict.trial, verdict.because
    if verdict.action == "rollback":
        own = next((one for one in alarms if one.verdict.trial == trial and one.verdict.action == "rollback"), None)
        if own is not None and own.done == "refused":
            told = f"{trial.variant} is worse than {trial.control}, and was not taken back: {own.told}"
            return State("bad", "Needs you", told, because)
        return State("bad", "Rolling back", f"{trial.variant} is worse than {trial.control} and goes back", because)
    if behind_s is not None and behind_s > LATE_S:
        told = f"The evidence on {trial.variant} is {words.span(behind_s)} behind"
        return State("warn", "Behind", told, because)
    if verdict.action == "promote":
        to = "everyone" if verdict.next_share is None else f"{words.share(verdict.next_share)} of sessions"
        return State("good", "Ready for more", f"{trial.variant} is proven no worse. It may serve {to}", because)
    return _holding(verdict, rows)


def _holding(verdict: Verdict, rows: Sequence[Row]) -> State:
    trial, because = verdict.trial, verdict.because
    if rows and rows[0].evidence >= NEAR:
        worst = rows[0]
        told = f"{trial.variant} may be worse than {trial.control}: {worst.title.lower()}"
        return State("warn", "Look closer", told, because)
    if not any(one.seen for one in rows):
        return State("watch", "Watching", f"{trial.variant} waits for its first sessions", because)
    awaited = [one for one in rows if one.finding.log_better_threshold > 0]
    if awaited and all(one.proven for one in awaited):
        return State("good", "Watching", f"{trial.variant} is proven no worse than {trial.control}", because)
    return State("watch", "Watching", f"Nothing speaks against {trial.variant} so far", because)


def move_sentence(move: Move) -> str:
    """What a move did, as one line of a history."""
    live, before = move.live, move.before
    match move.what:
        case "canary":
            name = live.canary.name if live.canary else "?"
            return f"{name} starts with {words.share(live.share)} of sessions"
        case "ramp":
            name = live.canary.name if live.canary else "?"
            was = words.share(before.share) if before else "nothing"
            return f"{name} goes from {was} to {words.share(live.share)} of sessions"
        case "promote":
            return f"{live.stable.name} serves everyone" + (
                f", {words.share(live.holdback)} stay with {live.baseline.name}" if live.holdback else ""
            )
        case "rollback":
            left = trial_variant(before)
            return f"back to {live.stable.name}" + (f", away from {left.name}" if left else "")
        case "hold":
            return "held: nothing moves by itself"
        case "lift":
            return "the hold is lifted"
        case "rebase":
            return f"{live.baseline.name} {words.short(live.baseline.artifact)} is the new baseline"
        case "open":
            return f"opened with {live.baseline.name}"
    return f"{WORDS[move.what]}: {words.share(live.holdback)} stay with {live.baseline.name}"
