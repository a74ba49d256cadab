"""One finding -> one row: what is counted, both sides, the ratio as a dot with whiskers, how far the evidence has come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

from quantgate.errors import QuantgateError
from quantgate.watch import Finding, Tally
from quantgate.watch.dashboard import words
from quantgate.watch.signals import Signal

WIDE, HIGH = 168.0, 26.0  # of a drawing, in its own units
ENDS = 4.0  # times: where the axis ends, on both sides of 1
INSET = 10.0
MARKS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Whisker:
    """A ratio and its confidence sequence along a logarithmic axis, in units of the drawing."""

    dot: float | None
    left: float
    right: float
    left_open: bool  # it goes on beyond the axis
    right_open: bool


@dataclass(frozen=True, slots=True)
class Row:
    finding: Finding
    title: str
    side: str  # "more", "less" where a signal has two rows; else empty
    trial: str
    control: str
    trial_of: str
    control_of: str
    ratio: str
    between: str
    whisker: Whisker
    evidence: float  # of the way to going back, 0 to 1
    proof: float  # of the way to "no worse than the margin", 0 to 1
    tone: str
    word: str
    href: str

    @property
    def seen(self) -> bool:
        return self.finding.trial.units > 0

    @property
    def proven(self) -> bool:
        return self.proof >= 1.0

    @property
    def id(self) -> str:
        return f"{self.finding.signal}-{self.finding.direction}"


def rows_of(findings: Sequence[Finding]) -> list[Row]:
    """The most worrying first."""
    return sorted((row_of(one) for one in findings), key=lambda row: (-row.evidence, row.proof, row.title))


def row_of(one: Finding) -> Row:
    signal = known(one.signal)
    evidence = way(one.log_e, one.log_threshold)
    proof = way(one.log_better, one.log_better_threshold)
    tone, word = _state(one, evidence, proof)
    return Row(
        finding=one,
        title=title_of(one.signal),
        side=one.direction if signal is not None and signal.worse == "either" else "",
        trial=figure(one.trial, signal),
        control=figure(one.control, signal),
        trial_of=of(one.trial, signal),
        control_of=of(one.control, signal),
        ratio=words.times(one.ratio),
        between=between(one.low, one.high),
        whisker=whisker(one.ratio, one.low, one.high),
        evidence=evidence,
        proof=proof,
        tone=tone,
        word=word,
        href=f"/dashboard/signals/{quote(one.signal, safe='')}?direction={one.direction}",
    )


def way(log_e: float, threshold: float) -> float:
    """How much of the way to a threshold, on the logarithmic scale on which evidence grows steadily.

    >>> way(4.6, 9.2), way(-3.0, 9.2), way(12.0, 9.2), way(1.0, 0.0)
    (0.5, 0.0, 1.0, 0.0)
    """
    if threshold <= 0 or math.isnan(log_e):
        return 0.0
    return min(1.0, max(0.0, log_e / threshold))


def place(ratio: float) -> float:
    """Where a ratio lies on the axis.

    >>> place(1.0), place(0.0), place(float("inf"))
    (84.0, 10.0, 158.0)
    """
    if ratio <= 1.0 / ENDS:
        return INSET
    half = WIDE / 2
    return half + min(1.0, math.log(ratio) / math.log(ENDS)) * (half - INSET)


def whisker(ratio: float | None, low: float | None, high: float | None) -> Whisker:
    known = None if ratio is None or math.isnan(ratio) else round(place(ratio), 1)
    least, most = 0.0 if low is None else low, math.inf if high is None else high
    return Whisker(
        dot=known,
        left=round(place(least), 1),
        right=round(place(most), 1),
        left_open=least < 1.0 / ENDS,
        right_open=most > ENDS,
    )


def figure(tally: Tally, signal: Signal | None) -> str:
    """What one side comes to: a rate of events, or the mean of a quantity."""
    if not tally.units:
        return words.NOTHING
    if signal is not None and signal.kind == "quantity":
        mean = tally.total / tally.units
        return words.seconds(mean) if signal.unit == "s" else f"{mean:.3g} {signal.unit}".strip()
    if signal is not None and signal.kind == "graded":
        return words.share(tally.total / tally.units)
    return words.share(tally.rate)


def of(tally: Tally, signal: Signal | None) -> str:
    """Out of how many."""
    if signal is not None and signal.kind in ("quantity", "graded"):
        return f"{tally.units:,} sessions"
    return f"{tally.bad:,} of {tally.units:,}"


def between(low: float | None, high: float | None) -> str:
    """
    >>> between(0.8, 1.9), between(None, 3.0), between(2.0, None), between(None, None)
    ('0.8× to 1.9×', 'at most 3×', 'at least 2×', 'not known yet')
    """
    if low is None and high is None:
        return "not known yet"
    if low is None or high is None:
        return f"at most {words.times(high)}" if low is None else f"at least {words.times(low)}"
    return f"{words.times(low)} to {words.times(high)}"


def title_of(name: str) -> str:
    """What a signal counts, for people; of one that is not known here any more, its name."""
    signal = known(name)
    return signal.about if signal is not None and signal.about else name.replace("_", " ")


@cache
def known(name: str) -> Signal | None:
    from quantgate.watch import signals

    try:
        return signals.get(name)
    except QuantgateError:
        return None


def _state(one: Finding, evidence: float, proof: float) -> tuple[str, str]:
    if evidence >= 1.0:
        return "bad", "worse"
    if not one.trial.units or not one.control.units:
        return "idle", "no sessions yet" if not one.trial.units else "nothing to compare with"
    if evidence >= 0.5:
        return "warn", "may be worse"
    if proof >= 1.0:
        return "good", "no worse, proven"
    return "watch", "open"
