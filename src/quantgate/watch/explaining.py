"""Evidence in words: what was counted on both sides, how many times as often, how sure; and figures for people.

answers that broke their schema: 41 of 1,204 sessions of W3A16 against 96 of 10,920 of BF16: 3.9 times as often
(at least 2.6 times, 99 %); evidence 5.1e+05 against the 1.0e+04 needed
"""

from __future__ import annotations

import math

from quantgate.watch import Finding, Tally
from quantgate.watch.processes import Process, Rule
from quantgate.watch.proving import Sizes, applies, awaited, better, enough
from quantgate.watch.signals import Signal
from quantgate.watch_config import WatchConfig

Names = tuple[str, str]
"""Of the variant on trial and of its control."""


def finding(
    process: Process, config: WatchConfig, names: Names, step: float, seen: Sizes, *, lately: bool = False
) -> Finding:
    """``step``: margin of the step that the share is at; ``lately``: the interval may be that of a moment ago."""
    rule, seen = process.rule, seen.without(process.missed)
    whole = process.tallies()
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
        log_better=better(process, margin, seen),
        log_better_threshold=enough(config.beta) if awaited(rule, *whole, seen) else 0.0,
        margin=margin,
        ratio=ratio,
        low=low,
        high=high,
        weight=rule.weight,
        examples=tuple(process.examples),
    )
    if not any(one.units for one in whole) and not applies(rule, *whole, seen):
        told = f"{_head(rule)}: {nowhere(whole, seen)}"
    else:
        told = sentence(rule, found, names, 1.0 - level)
    return found.model_copy(update={"sentence": told})


def nowhere(whole: tuple[Tally, Tally], seen: Sizes) -> str:
    """Of a signal that hardly any session has, on both sides together."""
    units = whole[0].units + whole[1].units
    return f"does not apply here: {units or 'none'} of {count(seen.both, 'session')}"


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
    """How many times as often on the trial, and between which limits; nothing where nothing is known."""
    if found.ratio is None and found.low is None and found.high is None:
        return ""
    sure = f"{level * 100:.6g} %"
    if signal.kind == "graded":
        return _difference(found, sure)
    where = " at its most telling quantile" if signal.kind == "quantity" else ""
    bounds = _bounds(found)
    if found.ratio is None:
        if not bounds:
            return ""
        return f": {bounds} as often{where} ({sure})" if bounds != "more often" else f": {bounds}{where} ({sure})"
    return f": {often(found.ratio)}{where}" + (f" ({bounds}, {sure})" if bounds else "")


def _bounds(found: Finding) -> str:
    low, high = found.low or None, found.high  # at least 0 times says nothing
    if low is not None and high is not None:
        return f"{digits(low)} to {times(high)}"
    if high is not None:
        return f"at most {times(high)}"
    if low is None:
        return ""
    return "more often" if 1.0 <= low < 1.005 else f"at least {times(low)}"


def _difference(found: Finding, sure: str) -> str:
    """Of two means."""
    low, high = found.low, found.high
    if low is not None and high is not None:
        bounds = f"{low:+.2g} to {high:+.2g}"
    else:
        bounds = f"at least {low:+.2g}" if low is not None else f"at most {high:+.2g}" if high is not None else ""
    told = f"a difference of {found.ratio:+.2g}" if found.ratio is not None else "a difference"
    return f": {told} ({bounds}, {sure})" if bounds else f": {told}"


def _mean(side: Tally) -> str:
    return f"{side.total / side.units:.3g}" if side.units else "nothing"


def digits(ratio: float) -> str:
    """Two of them, and more near 1, where it matters on which side.

    >>> [digits(one) for one in (0.0, 0.05, 0.997, 1.0, 1.02, 1.25, 3.91, 41.4, 1204.0, 3e7)]
    ['0', '0.05', '0.997', '1', '1.02', '1.25', '3.9', '41', '1,204', '3e+07']
    """
    if ratio >= 1e6:
        return f"{ratio:.2g}"
    if ratio >= 10.0:
        return f"{ratio:,.0f}"
    return f"{ratio:.3g}" if 0.9 < ratio < 2.0 else f"{ratio:.2g}"


def times(ratio: float) -> str:
    """
    >>> times(3.91), times(0.5)
    ('3.9 times', '0.5 times')
    """
    return f"{digits(ratio)} times"


def often(ratio: float) -> str:
    """
    >>> often(0.0), often(1.0), often(1.7)
    ('never', 'as often', '1.7 times as often')
    """
    if ratio == 0.0:
        return "never"
    return "as often" if digits(ratio) == "1" else f"{times(ratio)} as often"


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
