"""A trial in the terminal: the verdict, and what each signal says of both sides."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantgate.release.history import percent
from quantgate.watch import Action, Alarm, Finding, Tally, Verdict
from quantgate.watch.signals import Signal
from quantgate.watch.verdicts import Answer
from quantgate.watch_config import WatchConfig

BAR = 14  # signs of a bar that is full where the variant is rolled back
STYLES: Mapping[Action, str] = {"rollback": "bold red", "hold": "bold", "promote": "bold green"}
WORDS: Mapping[Action, str] = {"rollback": "roll back", "hold": "hold", "promote": "promote"}
SHOWN = 3  # alarms
WAITS = 5  # things that a promotion waits for; --json tells all


def standing(target: str, found: Answer, alarms: Sequence[Alarm]) -> RenderableType:
    """Everything that one screen tells."""
    parts: list[RenderableType] = [_head(target, found), _sentence(found)]
    if found.verdict is not None:
        parts += _findings(found.verdict)
        missing = found.verdict.missing
        parts += [Text(f"waits for: {one}") for one in missing[:WAITS]]
        if len(missing) > WAITS:
            parts.append(Text(f"and for {len(missing) - WAITS} more, which --json tells", style="dim"))
    parts += [_alarm(one) for one in alarms[:SHOWN]]
    return Group(*parts)


def _head(target: str, found: Answer) -> Text:
    if found.verdict is None:
        return Text(target)
    trial = found.verdict.trial
    against = f"{trial.control}{', the baseline' if trial.control_is_baseline else ''}"
    said = f"{target}: {trial.variant} with {percent(found.verdict.share)} of sessions, against {against}"
    behind = f"; evidence is {found.behind_s:.0f} s behind" if found.behind_s and found.behind_s >= 2 else ""
    return Text(said + behind)


def _sentence(found: Answer) -> Text:
    because = found.because
    told = because if because.startswith(WORDS[found.action]) else f"{WORDS[found.action]}: {because}"
    return Text(told, style=STYLES[found.action])


def _findings(verdict: Verdict) -> list[RenderableType]:
    """A row for each that was read, and one line for those that were not."""
    read = [one for one in verdict.findings if one.trial.units or one.control.units]
    unread = dict.fromkeys(one.signal for one in verdict.findings if one not in read)
    parts: list[RenderableType] = [findings_table(verdict, read)] if read else []
    return [*parts, Text(f"read from no session yet: {', '.join(unread)}", style="dim")] if unread else parts


def findings_table(verdict: Verdict, found: Sequence[Finding]) -> Table:
    """The furthest on its way to a rollback first."""
    trial = verdict.trial
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("signal", trial.variant, trial.control, "times as often", "evidence", "of what rolls back"):
        table.add_column(heading, overflow="fold")
    for one in sorted(found, key=_way, reverse=True):
        name = one.signal if one.direction == "more" else f"{one.signal} ({one.direction})"
        style = "bold red" if one.log_threshold > 0 and _way(one) >= 1 else ""
        cells = (name, tally(one.trial), tally(one.control), ratio(one), bar(_way(one)), part(one))
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table


def tally(one: Tally) -> str:
    """
    >>> tally(Tally(units=1204, bad=41)), tally(Tally())
    ('41 of 1,204 (3.4 %)', 'none')
    """
    return f"{one.bad:,} of {one.units:,} ({100 * one.bad / one.units:.2g} %)" if one.units else "none"


def ratio(one: Finding) -> str:
    """
    >>> none = Tally()
    >>> of = {"signal": "a", "direction": "more", "trial": none, "control": none, "log_e": 1, "log_threshold": 9}
    >>> ratio(Finding(**of, weight=1, ratio=3.9, low=2.6)), ratio(Finding(**of, weight=1, low=1.14))
    ('3.9 (at least 2.6)', 'at least 1.1')
    >>> ratio(Finding(**of, weight=1))
    ''
    >>> ratio(Finding(**of, weight=1, ratio=0.97, low=0.5, high=12.34))
    '0.97 (0.5 to 12)'
    """
    ends = [f"{word} {end:.2g}" for word, end in (("at least", one.low), ("at most", one.high)) if end is not None]
    told = f"{one.low:.2g} to {one.high:.2g}" if one.low is not None and one.high is not None else "".join(ends)
    if one.ratio is None:
        return told
    return f"{one.ratio:.2g}" + (f" ({told})" if told else "")


def bar(way: float) -> str:
    """
    >>> bar(0.5), bar(-3.0), bar(2.0)
    ('███████░░░░░░░', '░░░░░░░░░░░░░░', '██████████████')
    """
    full = round(BAR * min(1.0, max(0.0, way)))
    return "█" * full + "░" * (BAR - full)


def part(one: Finding) -> str:
    """E-values as people read them; those that are below one are no evidence at all."""
    return f"{_power(max(0.0, one.log_e))} of {_power(one.log_threshold)}"


def _power(log_e: float) -> str:
    """
    >>> _power(0.0), _power(1.5), _power(5.86), _power(9.21), _power(1000.0)
    ('1', '4.5', '351', '9,997', '2e+434')
    """
    tens = log_e / 2.302585092994046
    if tens < 5:
        return f"{10**tens:.2g}" if tens < 1 else f"{10**tens:,.0f}"
    whole = int(tens)
    lead = f"{10 ** (tens - whole):.0f}"
    return f"1e+{whole + 1:02d}" if lead == "10" else f"{lead}e+{whole:02d}"


def _way(one: Finding) -> float:
    return one.log_e / one.log_threshold if one.log_threshold > 0 else 0.0


def _alarm(one: Alarm) -> Text:
    when = time.strftime("%F %R UTC", time.gmtime(one.decided_at))
    what = f"{WORDS[one.verdict.action]} {one.verdict.trial.variant}"
    return Text(f"alarm {one.id}, {when}: {what}, {one.done}{f' ({one.told})' if one.told else ''}", style="dim")


def signals_table(found: Sequence[Signal], config: WatchConfig) -> Table:
    """What is counted, which part of the error rate each signal has, and the ratio that a promotion excludes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("signal", "of alpha", "worse", "excludes", "counts"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "counts")
    for one, part in zip(found, parts(found, config), strict=True):
        asked = config.signals.get(one.name)
        margin = asked.margin if asked is not None and asked.margin is not None else one.margin
        promotes = asked.promotes if asked is not None and asked.promotes is not None else one.promotes
        share, waits = percent(round(part, 3)) if part else "off", f"{margin:g}x" if promotes else ""
        about = f"{one.about} ({one.unit})" if one.unit else one.about
        table.add_row(*(Text(cell) for cell in (one.name, share, one.worse, waits, about)))
    return table


def parts(found: Sequence[Signal], config: WatchConfig) -> list[float]:
    """Of alpha, for each signal; 0 for those that are off. They sum to 1 where any is on.

    >>> read = lambda exchange, before: None
    >>> two = [Signal(name, "", "event", read, weight=weight) for name, weight in (("a", 3.0), ("b", 1.0))]
    >>> parts(two, WatchConfig()), parts(two, WatchConfig.model_validate({"signals": {"a": {"off": True}}}))
    ([0.75, 0.25], [0.0, 1.0])
    """
    weights = []
    for one in found:
        asked = config.signals.get(one.name)
        own = asked.weight if asked is not None and asked.weight is not None else one.weight
        weights.append(0.0 if asked is not None and asked.off else own)
    total = sum(weights) or 1.0
    return [one / total for one in weights]
