"""Evidence in words: what was counted on both sides, how many times as often, how sure; and figures for people.

answers that broke their schema: 41 of 1,204 sessions of W3A16 against 96 of 10,920 of BF16: 3.9 times as often
(at least 2.6 times, 99 %); evidence 5.1e+05 against the 1.0e+04 needed
"""

from __future__ import annotations

import math
from typing import NamedTuple

from quantgate.stats import rates
from quantgate.stats.renewal import log_mix
from quantgate.watch import Finding, Tally
from quantgate.watch.processes import Process, Rule
from quantgate.watch.signals import Signal
from quantgate.watch_config import WatchConfig

RARE = 0.05  # of sessions that have a quantity: fewer, and a promotion does not wait for it
Names = tuple[str, str]
"""Of the variant on trial and of its control."""


class Sizes(NamedTuple):
    """Of a trial, whatever its signals could be read from."""

    control: int  # sessions
    trial: int
    copies: int = 0  # prompts that both answered


def finding(
    process: Process, config: WatchConfig, names: Names, step: float, seen: Sizes, *, lately: bool = False
) -> Finding:
    """``step``: margin of the step that the share is at; ``lately``: the interval may be that of a moment ago."""
    rule = process.rule
    copy = process.telling(config.ratio)
    control, trial = process.tallies(copy)
    level = min(config.alpha * max(1.0, 2.0 * rule.weight), 0.5) * process.shares[copy]
    ratio, low, high = process.limits(copy, level, lately=lately)
    margin = max(rule.margin, step)
    found = Finding(
        signal=rule.signal.name,
        direction=rule.direction,
        trial=trial,
        control=control,
        log_e=process.log_e(config.ratio),
        log_threshold=rule.log_threshold,
        log_better=_better(process, margin, seen),
        log_better_threshold=-math.log(config.beta) if awaited(process, seen) else 0.0,
        margin=margin,
        ratio=ratio,
        low=low,
        high=high,
        weight=rule.weight,
        examples=tuple(process.examples),
    )
    return found.model_copy(update={"sentence": sentence(rule, found, names, 1.0 - level)})


def awaited(process: Process, seen: Sizes) -> bool:
    """Whether a promotion waits for it: not for what hardly any session has."""
    rule = process.rule
    if not rule.promotes:
        return False
    if rule.signal.kind == "event":
        return True  # what hardly any session has is soon below its floor
    control, trial = process.tallies()
    return control.units >= RARE * seen.control and trial.units >= RARE * seen.trial


def _better(process: Process, margin: float, seen: Sizes) -> float:
    """log E against "beyond the margin, and not rare": a promotion is wrong only where both are so."""
    rule, log_margin = process.rule, process.log_better(margin)
    if rule.signal.kind not in ("event", "pair"):
        return log_margin
    side = rule.direction == "more"  # fewer of what the control hardly has is no loss
    tally = process.tallies()[side]
    units = seen[side] if rule.signal.each == "session" else tally.units
    if rule.signal.kind == "pair":
        units = seen.copies
    floor = min(rule.floor * margin / rule.margin, 0.5)  # as wide as the margin, where the share is small
    return log_mix([(0.5, log_margin), (0.5, rates.log_below(tally.bad, max(units, tally.bad), floor))])


def sentence(rule: Rule, found: Finding, names: Names, level: float) -> str:
    """For people. ``level``: of the interval."""
    signal = rule.signal
    counted = _counted(signal, rule, found, names)
    if not counted:
        return f"{_head(rule)}: nothing to compare yet"
    needed = f"evidence {figure(found.log_e)} against the {figure(found.log_threshold)} needed"
    return f"{_head(rule)}: {counted}{_times(signal, found, level)}; {needed}"


def _head(rule: Rule) -> str:
    """What is counted; of a signal that goes wrong in both directions, in which one."""
    less = {"event": "too few", "quantity": "too low", "graded": "too low", "pair": "too few"}[rule.signal.kind]
    return f"{rule.signal.about} ({less})" if rule.direction == "less" else rule.signal.about


def _counted(signal: Signal, rule: Rule, found: Finding, names: Names) -> str:
    trial, control = found.trial, found.control
    if signal.kind == "pair":
        both = trial.bad + control.bad
        return (
            f"of {count(both, 'prompt')} answered differently, {names[0]}'s was worse in {trial.bad:,}" if both else ""
        )
    if not (trial.units or control.units):
        return ""
    what = "request" if signal.each == "request" else "session"
    if signal.kind == "graded":
        return (
            f"{_mean(trial)} on average of {count(trial.units, what)} of {names[0]} against {_mean(control)} of "
            f"{control.units:,} of {names[1]}"
        )
    where = ""
    if signal.kind == "quantity":
        where = "beyond the control's 95 % in " if rule.direction == "more" else "below the control's 5 % in "
    return (
        f"{where}{trial.bad:,} of {count(trial.units, what)} of {names[0]} against {control.bad:,} of "
        f"{control.units:,} of {names[1]}"
    )


def _times(signal: Signal, found: Finding, level: float) -> str:
    if found.ratio is None and found.low is None and found.high is None:
        return ""
    sure = f"{level * 100:.6g} %"
    if signal.kind == "graded":
        return f": {found.ratio or 0.0:+.2g} ({found.low or 0.0:+.2g} to {found.high or 0.0:+.2g}, {sure})"
    where = " at its most telling quantile" if signal.kind == "quantity" else ""
    if found.low is not None and found.high is not None:
        bounds = f"{found.low:.2g} to {times(found.high)}"
    else:
        bounds = f"at least {times(found.low)}" if found.low is not None else ""
        bounds = f"at most {times(found.high)}" if found.high is not None else bounds
    if found.ratio is None:
        return f": {bounds} as often{where} ({sure})"
    return f": {times(found.ratio)} as often{where}" + (f" ({bounds}, {sure})" if bounds else "")


def _mean(side: Tally) -> str:
    return f"{side.total / side.units:.3g}" if side.units else "nothing"


def times(ratio: float) -> str:
    """
    >>> times(3.91), times(0.5)
    ('3.9 times', '0.5 times')
    """
    return f"{ratio:.2g} times"


def count(n: int, what: str) -> str:
    """
    >>> count(1, "session"), count(1204, "session")
    ('1 session', '1,204 sessions')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def figure(log_e: float) -> str:
    """An e-value, out of its natural logarithm, however great.

    >>> figure(13.142), figure(0.0), figure(5000.0), figure(-50.0)
    ('5.1e+05', '1', '1e+2171', '1.9e-22')
    """
    if abs(log_e) > 600.0:
        return f"1e{math.floor(log_e / math.log(10.0)):+d}"
    return f"{math.exp(log_e):.2g}"


def lasting(seconds: float) -> str:
    """
    >>> lasting(40), lasting(720), lasting(9000), lasting(400000)
    ('a minute', '12 minutes', '2.5 hours', '4.6 days')
    """
    if seconds < 90.0:
        return "a minute"
    if seconds < 5400.0:
        return f"{seconds / 60.0:.0f} minutes"
    return f"{seconds / 3600.0:.2g} hours" if seconds < 2 * 86400.0 else f"{seconds / 86400.0:.2g} days"
