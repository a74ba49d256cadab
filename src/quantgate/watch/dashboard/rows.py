"""One finding -> one row: what is counted, both sides, the ratio as a dot with whiskers, how far evidence has come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
NAMES = {
    "ttft": "Time to first token",
    "per_token": "Time per token",
    "end_to_end": "Time of whole answers",
    "logprob": "Log probability",
    "cut_off": "Cut off",
    "error": "No answer",
    "empty": "Empty answer",
    "looping": "Looping answer",
    "retry": "Asked again at once",
}
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
    title: str  # its name, for people
    about: str  # what it counts
    side: str  # in which direction, where a signal has two rows; else empty
    trial: str
    control: str
    trial_of: str
    control_of: str
    ratio: str
    between: str
    whisker: Whisker | None  # None: nothing is known, or a difference, which has no place on an axis of ratios
    evidence: float  # of the way to going back, 0 to 1
    proof: float  # of the way to "no worse than the margin", 0 to 1
    tone: str
    word: str
    href: str

    @property
    def seen(self) -> bool:
        return self.finding.trial.units > 0

    @property
    def quiet(self) -> bool:
        """Nothing was counted on either side: it may not apply here at all."""
        return not (self.finding.trial.units or self.finding.control.units)

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
    graded = signal is not None and signal.kind == "graded"
    unknown = one.ratio is None and one.low is None and one.high is None
    return Row(
        finding=one,
        title=title_of(one.signal),
        about=signal.about if signal is not None else "",
        side=side_of(one, signal),
        trial=figure(one.trial, signal),
        control=figure(one.control, signal),
        trial_of=of(one.trial, signal, one.direction),
        control_of=of(one.control, signal, one.direction),
        ratio="" if unknown else difference(one.ratio) if graded else words.times(one.ratio),
        between=between(one.low, one.high, difference if graded else words.times),
        whisker=None if graded or unknown else whisker(one.ratio, one.low, one.high),
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
    kind = signal.kind if signal is not None else "event"
    if signal is not None and kind == "quantity":
        mean = tally.total / tally.units
        return words.seconds(mean) if signal.unit == "s" else f"{mean:.3g} {signal.unit}".strip()
    if kind == "graded":
        return f"{tally.total / tally.units:.3g}"
    return words.count(tally.bad) if kind == "pair" else words.share(tally.rate)


def of(tally: Tally, signal: Signal | None, direction: str) -> str:
    """Out of how many, and of a quantity how many lie far out."""
    kind = signal.kind if signal is not None else "event"
    what = "requests" if signal is not None and signal.each == "request" else "sessions"
    if kind == "quantity":
        told = "beyond the p95" if direction == "more" else "below the p5"
        return f"{words.share(tally.rate)} {told}" if tally.units else ""
    if kind == "pair":
        return "of the prompts answered differently" if tally.units else ""
    return f"{tally.units:,} {what}" if kind == "graded" else f"{tally.bad:,} of {tally.units:,}"


def difference(value: float | None) -> str:
    """Of means of graded values, which have no ratio.

    >>> difference(0.021), difference(None)
    ('+0.021', '–')
    """
    return words.NOTHING if value is None else f"{value:+.2g}"


def between(low: float | None, high: float | None, told: Callable[[float | None], str] = words.times) -> str:
    """
    >>> between(0.8, 1.9), between(None, 3.0), between(2.0, None), between(None, None)
    ('0.8× to 1.9×', 'at most 3×', 'at least 2×', 'not known yet')
    """
    if low is None and high is None:
        return "not known yet"
    if low is None or high is None:
        return f"at most {told(high)}" if low is None else f"at least {told(low)}"
    return f"{told(low)} to {told(high)}"


def title_of(name: str) -> str:
    """
    >>> title_of("validation_failure"), title_of("ttft")
    ('Validation failure', 'Time to first token')
    """
    return NAMES.get(name) or name.replace("_", " ").capitalize()


def side_of(one: Finding, signal: Signal | None) -> str:
    if signal is None or signal.worse != "either":
        return ""
    if signal.kind == "quantity":
        return "higher" if one.direction == "more" else "lower"
    return "more often" if one.direction == "more" else "less often"


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
