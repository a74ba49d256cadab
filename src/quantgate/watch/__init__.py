"""Live evidence: exchanges -> signals -> sequential tests -> roll back, hold or promote, each with why.

    signals/       one file each: what is read from a text or an exchange, in which direction it is worse
    marking.py     at the gateway, off the path of requests: texts -> marks in their Exchange, and no text further
    units.py       what is counted once: sessions, and what a session did before
    processes.py   one signal's evidence: counts of both sides (counts.py), thresholds (scales.py), e-values, intervals
    fold.py        exchanges in the order of their numbers -> the evidence of one trial; the same for the same rows
    taking.py      what is taken from one exchange, once a session
    standing.py    who is on trial, and which exchange is whose; keeping.py: a fold to the disk and back
    judging.py     evidence -> Verdict: roll back, hold or promote; waiting.py has what a promotion waits for
    proving.py     what counts as proof for a promotion; explaining.py has the words of a finding
    alone.py       a released variant that nothing is compared with, held against rates that were stated
    steps.py       the ramp: shadow, 1 %, 5 %, 25 %, 100 % with a holdback; what each step must prove
    store.py       evidence and its place in the journal in one transaction; points over time, alarms; one leader
    watcher.py     the loop: read, fold, judge, act through ``release.lifecycle``
    counting.py    evidence in memory and its place: as it was saved, and what came since
    leading.py     one leader for each target among all replicas, and who may write
    acting.py      a verdict -> an alarm, and what it moves, once
    alarming.py    alarms between verdict and store: pending, settled, not written down yet
    troubles.py    what is not as it should be, told once
    showing.py     ``quantgate watch``: where a trial stands, for people
    classifier.py  a model of refusals in place of the rules
    webhooks.py    alarms to others        verdicts.py  /watch: Argo and Flagger ask, Prometheus reads
    attached.py    a gateway's watch: what ``quantgate serve`` puts beside it
    dashboard/     pages of the gateway at /dashboard

A *trial* is one pair of bytes on one target: the variant on trial and what it is compared with. Its evidence is kept
through every ramp, restart and replica. A session, once placed, is the unit; a request that names none is its own.

This door holds the nouns that the rooms share. Those that are kept are records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import Field

from quantgate.records import Record

Side = Literal["trial", "control"]
Action = Literal["rollback", "hold", "promote"]
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Talk:
    """The texts of one exchange, in memory for as long as marks are read from them, and never written."""

    prompt: Sequence[Message]  # OpenAI's, the last one is what was asked
    answers: Sequence[Message]  # one for each choice that left; empty where none did
    finish: str = ""
    structured: bool = False
    shadow: Talk | None = None  # what the variant nobody hears answered to the same prompt
    logprob: float | None = None  # mean log probability of the answer's tokens, nats, where the upstream told
    tools: bool = False  # whether the request offered any
    faulty: bool = False  # whether the guard refused the answer at first, also where it was mended

    @property
    def asked(self) -> str:
        """The text of the last turn of the user."""
        turns = (one for one in reversed(self.prompt) if one.get("role") == "user")
        return plain(next(turns, {}).get("content"))

    @property
    def said(self) -> str:
        """The text of the first answer; empty where it only calls tools."""
        return plain(self.answers[0].get("content")) if self.answers else ""


def plain(content: Any) -> str:
    """A message's content as text: what it is, or its parts of text.

    >>> plain([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}])
    'a\\nb'
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict) and "text" in part)


class Trial(Record):
    """Which bytes are held against which, where. Its key is its digest: ramps and holds change none of it."""

    target: str
    variant: str  # name
    artifact: str  # digest
    control: str  # name of what it is compared with: the baseline, or the stable variant where it has no traffic
    control_artifact: str
    control_is_baseline: bool = True


class Tally(Record):
    """One side of one signal, since the trial began."""

    units: int = 0  # sessions that the signal could be read from
    bad: int = 0  # of them
    total: float = 0.0  # of quantities: their sum, in the signal's unit

    @property
    def rate(self) -> float | None:
        return self.bad / self.units if self.units else None


class Finding(Record):
    """What one process of one signal says now."""

    signal: str
    direction: Literal["more", "less"]
    trial: Tally
    control: Tally
    log_e: float  # of "worse", natural logarithm
    log_threshold: float  # rolled back at; ln(1 / (alpha * weight))
    log_better: float = 0.0  # of "not worse than the margin": what a promotion waits for
    log_better_threshold: float = 0.0  # 0: a promotion does not wait for it
    margin: float = 1.0  # the ratio of risks that a promotion excludes
    ratio: float | None = None  # of the risks, trial over control; None while unknown. Of grades: the means' difference
    low: float | None = None  # confidence sequence of the ratio, valid at every moment; None: not bounded
    high: float | None = None
    weight: float = Field(gt=0, le=1)
    examples: tuple[str, ...] = ()  # ids of exchanges, the newest last, at most 5
    sentence: str = ""  # for people: what, how often on both sides, how sure


class Verdict(Record):
    """What is to become of a trial, and why."""

    trial: Trial
    action: Action
    because: str  # one sentence for people
    at: float  # seconds since 1970 of the newest exchange that it rests on
    number: int  # of that exchange in the journal: everything up to it was counted
    revision: int  # of the release that was live then
    share: float  # of sessions that were the trial's then
    next_share: float | None = None  # where a promotion goes
    signal: str = ""  # that decided it; empty: none did
    log_e: float = 0.0  # weighted mean over all signals: the trial's evidence in one number
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()  # what a promotion still waits for, a sentence each
    not_here: tuple[str, ...] = ()  # signals that hardly any session of either side has: no promotion waits for them


class Point(Record):
    """One moment of one process, for a chart over time."""

    at: float
    signal: str
    direction: Literal["more", "less"]
    log_e: float
    log_threshold: float
    trial: Tally
    control: Tally
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    share: float = 0.0


class Alarm(Record):
    """A verdict that moved something, or should have, and what came of it."""

    id: str
    verdict: Verdict
    done: Literal["pending", "moved", "refused", "stale"] = "pending"
    told: str = ""  # what the registry said: the revision that it moved to, or why it did not
    decided_at: float = 0.0  # seconds since 1970, by the clock of who decided
    done_at: float | None = None
    webhooks: tuple[str, ...] = ()  # what each of them answered


class Standings(Protocol):
    """What the dashboard, Prometheus and other controllers read: ``store.Store`` is one."""

    def verdict(self, target: str) -> Verdict | None:
        """The newest; None where nothing was ever on trial."""
        ...

    def points(self, trial: str, *, since: float = 0.0, signal: str | None = None) -> Sequence[Point]:
        """Of a trial by its digest, the oldest first; thinned out to at most some 500 moments for each process."""
        ...

    def alarms(self, target: str, *, limit: int = 50) -> Sequence[Alarm]:
        """The newest first."""
        ...

    def alarm(self, id: str) -> Alarm | None: ...

    def behind_s(self, target: str) -> float | None:
        """How far the evidence is behind the newest exchange; None where there is no exchange."""
        ...
