"""What a promotion waits for, a sentence each; and the signals that it does not wait for, because nothing has them."""

from __future__ import annotations

from typing import Protocol

from quantgate.release import Live
from quantgate.watch import Finding, Trial
from quantgate.watch.explaining import count, figure, lasting, nowhere, times
from quantgate.watch.fold import Fold
from quantgate.watch.processes import Process
from quantgate.watch.proving import Sizes, applies, enough, lopsided
from quantgate.watch.standing import Standing
from quantgate.watch.steps import step_of
from quantgate.watch_config import WatchConfig

BEHIND_S = 30.0  # of evidence, for a promotion; a rollback is held up by ``late`` at the earliest
BROKEN = 0.01  # of sessions that a signal failed on


class Case(Protocol):
    """One moment of a trial."""

    fold: Fold
    live: Live | None
    config: WatchConfig
    behind_s: float
    share: float


def proofs(case: Case, trial: Trial, standing: Standing, findings: tuple[Finding, ...]) -> list[str]:
    """What the next share waits for."""
    step = step_of(case.config, case.share)
    control, ours = case.fold.sessions()
    found = [
        f"{more(step.least - n, 'session')} of {name} ({n:,} of {step.least:,})"
        for name, n in ((trial.variant, ours), (trial.control, control))
        if n < step.least
    ]
    stayed_s = case.fold.clock.elapsed_s - standing.share_since_s
    if stayed_s < step.stay:
        found.append(f"time at {case.share * 100:g} %: {lasting(step.stay - stayed_s)} more of {lasting(step.stay)}")
    found += [awaits(case, one, trial) for one in findings if one.log_better < one.log_better_threshold > 0.0]
    if any(one.promotes for one in case.fold.rules) and len(absent(case.fold)) == sum(
        one.promotes and one.signal.kind != "pair" for one in case.fold.rules
    ):
        found.append("a signal that can be read: hardly any session has one, so nothing is proven; are marks dropped?")
    return found + hindrances(case)


def awaits(case: Case, one: Finding, trial: Trial) -> str:
    """One signal's proof, how far it is, and a guess how long it takes."""
    process = _process(case.fold, one)
    rule, needed = process.rule, enough(case.config.beta)
    less = " too few" if one.direction == "less" else ""
    control, ours = process.tallies()
    seen = _seen(case.fold, process)
    if rule.signal.kind != "pair" and lopsided(control, ours, seen):
        return (
            f"{rule.signal.about}: read from {ours.units:,} of {count(seen.trial, 'session')} of {trial.variant} and "
            f"{control.units:,} of {seen.control:,} of {trial.control}, so they cannot be compared; look why"
        )
    told = f"{rule.signal.about}{less}: less than {times(one.margin)} as bad is not shown yet"
    proof = f"proof {figure(one.log_better)} of the {figure(needed)} needed"
    age_s = case.fold.clock.elapsed_s - (case.fold.standing.began_s if case.fold.standing else 0.0)
    if one.log_better <= 0.1 or age_s <= 0.0:
        return f"{told}; {proof}"
    return f"{told}; {proof}, about {lasting(age_s * (needed / one.log_better - 1.0))} at this rate"


def hindrances(case: Case) -> list[str]:
    """What stands in the way of every promotion."""
    found, fold, live = [], case.fold, case.live
    if live is not None and live.frozen:
        found.append(f"{live.target} is held by a person; lift it with: quantgate hold {live.target} --off")
    if case.behind_s > BEHIND_S:
        found.append(f"the newest exchanges: the evidence is {lasting(case.behind_s)} behind")
    if fold.standing and live is not None and live.revision != fold.standing.revision:
        found.append(f"an exchange of release {live.revision}; the newest is of {fold.standing.revision}")
    most = max(BROKEN * sum(fold.sessions()), 1.0)
    for name, n in sorted(fold.uncounted.broken.items()):
        if n > most:
            found.append(f"the signal {name}, which failed on {count(n, 'exchange')}; mend it, or set 'off: true'")
    if fold.uncounted.crowded:
        found.append("fewer moves of the share: more than 256 different ones cannot be counted apart")
    return found


def not_here(fold: Fold) -> list[str]:
    """Signals that would be waited for, and that hardly any session of either side has."""
    return sorted({f"{one.rule.signal.name} {nowhere(one.tallies(), _seen(fold, one))}" for one in absent(fold)})


def absent(fold: Fold) -> list[Process]:
    """Processes of those signals."""
    return [
        one for one in fold.processes if one.rule.promotes and not applies(one.rule, *one.tallies(), _seen(fold, one))
    ]


def _seen(fold: Fold, process: Process) -> Sizes:
    return fold.sizes().without(process.missed)


def more(n: int, what: str) -> str:
    """
    >>> more(1, "session"), more(100, "copy")
    ('1 more session', '100 more copies')
    """
    many = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{n:,} more {what if n == 1 else many}"


def _process(fold: Fold, one: Finding) -> Process:
    return next(
        process
        for process in fold.processes
        if (process.rule.signal.name, process.rule.direction) == (one.signal, one.direction)
    )
