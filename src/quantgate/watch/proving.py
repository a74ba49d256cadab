"""What counts as proof for a promotion: which signals it waits for, and when evidence is evidence of anything.

Three rules, none of which can be met by one side's silence:

- A signal that hardly any session of *both sides together* has does not apply here. It is not waited for, and named.
- One that is read much less often on one side than on the other proves nothing until a person has looked at it: a
  variant whose answers cannot be read has no bad ones either.
- What a signal did not see (it is new since an upgrade) is no proof of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from quantgate.stats import rates
from quantgate.stats.renewal import log_mix
from quantgate.watch import Tally
from quantgate.watch.processes import Process, Rule

RARE = 0.05  # of sessions that have a quantity or a grade; of an event it is the signal's floor
KNOWN = 400  # sessions of both sides together, before a signal is said not to apply
LOPSIDED = 2.0  # times as often read on one side as on the other


class Sizes(NamedTuple):
    """Of a trial, whatever its signals could be read from."""

    control: int  # sessions
    trial: int
    copies: int = 0  # prompts that both answered

    @property
    def both(self) -> int:
        return self.control + self.trial

    def without(self, missed: list[int]) -> Sizes:
        return Sizes(*(max(mine - its, 0) for mine, its in zip(self, missed, strict=True)))


def applies(rule: Rule, control: Tally, trial: Tally, seen: Sizes) -> bool:
    """Also while too few sessions came to say otherwise."""
    if rule.signal.kind == "pair" or seen.both < KNOWN:
        return True
    least = rule.floor if rule.signal.kind == "event" else RARE
    return control.units + trial.units >= max(least * seen.both, 1)


def lopsided(control: Tally, trial: Tally, seen: Sizes) -> bool:
    """Whether it is read from a much smaller part of one side's sessions than of the other's."""
    if not seen.control or not seen.trial or not (control.units or trial.units):
        return False
    low, high = sorted((control.units / seen.control, trial.units / seen.trial))
    return low * LOPSIDED < high


def awaited(rule: Rule, control: Tally, trial: Tally, seen: Sizes) -> bool:
    """Whether a promotion waits for it. Pairs are the proof of copies alone: with sessions none may come any more."""
    if rule.signal.kind == "pair":
        return rule.promotes and not seen.both
    return rule.promotes and applies(rule, control, trial, seen)


def better(process: Process, margin: float, seen: Sizes) -> float:
    """log E against "beyond the margin, and not rare": a promotion is wrong only where both are so."""
    rule, log_margin = process.rule, process.log_better(margin)
    control, trial = process.tallies()
    if rule.signal.kind != "pair" and (lopsided(control, trial, seen) or not (control.units or trial.units)):
        return min(log_margin, 0.0)
    if rule.signal.kind not in ("event", "pair"):
        return log_margin
    side = rule.direction == "more"  # fewer of what the control hardly has is no loss
    tally = (control, trial)[side]
    units = seen[side] if rule.signal.each == "session" else tally.units
    if rule.signal.kind == "pair":
        units = seen.copies
    floor = min(rule.floor * margin / rule.margin, 0.5)  # as wide as the margin, where the share is small
    return log_mix([(0.5, log_margin), (0.5, rates.log_below(tally.bad, max(units, tally.bad), floor))])


def enough(beta: float) -> float:
    """ln(1 / beta): what proof must reach."""
    return -math.log(beta)
