"""From the requests of a run to what is told of it: validity, quantiles, goodput, stages, the effect of batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from quantgate.loadtest import STAGES, Stage, Timed
from quantgate.loadtest.drive import Run
from quantgate.loadtest.objectives import ALPHA, LATENCIES, Kept, Latency, Objective, judge, keeps, latency_of, shown
from quantgate.records import Record
from quantgate.stats.intervals import clopper_pearson
from quantgate.stats.quantiles import Quantile, dependence, quantile

QUANTILES = (0.5, 0.95, 0.99)
HELD_SHARE = 0.99  # of the asked rate that must be achieved
LAG_SHARE = 0.05  # of the median latency that the lag's p99 may be
BEHIND = 0.05  # of the arriving requests that may stay unanswered late in a stretch
FEW = 5  # requests in the second halves that say nothing of a queue yet
FEWEST = 20  # requests of one batch size that are told apart


class Validity(Record):
    """Whether the generator did what was asked of it."""

    asked_rate: float  # requests a second over the run's stretches, as drawn
    achieved_rate: float
    lag_p99_s: float | None
    median_s: float | None  # of the latency that the lag is compared with: end to end
    because: str = ""  # why it is not valid; "" where it is

    @property
    def valid(self) -> bool:
        return not self.because


class Goodput(Record):
    """Requests that were within every objective."""

    good: int
    n: int  # requests of which it is known
    unknown: int
    share: float | None
    low: float | None  # exact limits of the share
    high: float | None
    rate: float | None  # good requests a second


class StageTimes(Record):
    """One stage; None where the engine reports none, which is not 0."""

    stage: Stage
    reported: int  # requests that had it
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class BatchTimes(Record):
    """Requests that ran beside about as many others."""

    low: int  # requests in flight, or rows decoded together, from
    high: int  # to
    n: int
    ttft: Quantile | None  # p95 from the sending, not from the intended time: what the batch does, not the queue
    tpot: Quantile | None  # p95
    e2e: Quantile | None  # p95, from the sending


class Measured(Record):
    """One arm at one rate and one limit."""

    sent: int
    answered: int
    lost: int
    why_lost: dict[str, int] = Field(default={}, exclude_if=lambda why: not why)
    validity: Validity
    quantiles: dict[Latency, tuple[Quantile, ...]]  # a latency that could not be measured is not among them
    known: dict[Latency, int]  # requests that it is known of
    request_rate: float  # answered a second, over sending and answering
    pace: float | None  # answered over arrived in the second half of each stretch: below 1 a queue grows
    keeps_up: bool | None  # whether that is within 5 %, or what chance does; None: too little to tell
    token_rate: float | None  # generated a second; None where tokens are not counted
    prompt_rate: float | None
    goodput: Goodput | None  # None: nothing was asked for
    stages: tuple[StageTimes, ...]
    batches: tuple[BatchTimes, ...]
    kept: tuple[Kept, ...]

    def at(self, latency: Latency, q: float) -> Quantile | None:
        return next((one for one in self.quantiles.get(latency, ()) if one.q == q), None)


def measure(
    runs: Sequence[Run], objectives: Sequence[Objective], *, partial: str = "", alpha: float = ALPHA
) -> Measured:
    """``runs`` are the stretches of one arm, ``partial`` why some are missing; then nothing is decided.

    Intervals of quantiles are at 1 - ``alpha``.
    """
    timed = [one for run in runs for one in sorted(run.timed, key=lambda one: one.due_s)]
    lost = [one for one in timed if one.lost]
    validity = validity_of(runs)
    seconds = sum(max(run.ended_s, run.span_s, run.window_s) for run in runs)
    quantiles, known = _quantiles(timed, objectives, alpha)
    doubt = partial or validity.because
    came, ended = _second_half(runs)
    why: dict[str, int] = {}
    for one in lost:
        why[one.lost] = why.get(one.lost, 0) + 1
    return Measured(
        sent=sum(run.sent for run in runs),
        answered=len(timed) - len(lost),
        lost=len(lost),
        why_lost=dict(sorted(why.items(), key=lambda row: (-row[1], row[0]))[:5]),
        validity=validity,
        quantiles=quantiles,
        known=known,
        request_rate=(len(timed) - len(lost)) / seconds if seconds else 0.0,
        pace=ended / came if came >= FEW else None,
        keeps_up=came - ended <= max(BEHIND * came, 2 * math.sqrt(came)) if came >= FEW else None,
        token_rate=_sum([one.tokens for one in timed if not one.lost], seconds),
        prompt_rate=_sum([one.prompt_tokens for one in timed if not one.lost], seconds),
        goodput=goodput_of(timed, objectives, seconds) if objectives else None,
        stages=tuple(_stage(timed, stage) for stage in STAGES),
        batches=tuple(_batches(timed)),
        kept=tuple(
            judge(one, next((q for q in quantiles.get(one.latency, ()) if q.q == one.q), None), doubt, alpha)
            for one in objectives
        ),
    )


def validity_of(runs: Sequence[Run]) -> Validity:
    """At least 99 % of the asked rate, and a lag whose p99 is within 5 % of the median latency.

    The time that sending took is compared with the time that it should have taken, over all stretches.
    """
    sent, window = sum(run.sent for run in runs), sum(run.window_s for run in runs)
    wanted, took = sum(run.wanted_s for run in runs), sum(run.span_s for run in runs)
    timed = [one for run in runs for one in run.timed]
    lags = [one.lag_s for one in timed if not one.held]
    ended = [one.e2e_s for one in timed if one.e2e_s is not None]
    lag = quantile(lags, 0.99).value if lags else None
    median = quantile(ended, 0.5).value if ended else None
    asked = sent / window if window else 0.0
    achieved = asked * min(1.0, wanted / took) if took else asked
    because = ""
    if not sent:
        because = "nothing was sent"
    elif achieved < HELD_SHARE * asked:
        because = f"asked for {asked:.4g} requests/s, sent {achieved:.4g}: the generator could not hold the rate"
    elif median is None:
        because = "no request was answered"
    elif lag is not None and lag > LAG_SHARE * median:
        because = f"the generator's lag (p99 {shown(lag)}) is over 5 % of the median latency ({shown(median)})"
    return Validity(asked_rate=asked, achieved_rate=achieved, lag_p99_s=lag, median_s=median, because=because)


def _quantiles(
    timed: Sequence[Timed], objectives: Sequence[Objective], alpha: float
) -> tuple[dict[Latency, tuple[Quantile, ...]], dict[Latency, int]]:
    """Every gap between two pieces counts by itself; a lost request is beyond all others of every other latency.

    An objective on gaps is judged on each request's longest one, since gaps of one answer are not independent.
    """
    lost = sum(bool(one.lost) for one in timed)
    found: dict[Latency, tuple[Quantile, ...]] = {}
    known: dict[Latency, int] = {}
    for latency in LATENCIES:
        wanted = sorted({*QUANTILES, *(one.q for one in objectives if one.latency == latency)})
        values = [value for one in timed if not one.lost and (value := latency_of(one, latency)) is not None]
        known[latency] = len(values)
        if values:
            found[latency] = tuple(_in_a_queue(timed, values, latency, q, lost, alpha) for q in wanted)
    return found, known


def _in_a_queue(
    timed: Sequence[Timed], values: Sequence[float], latency: Latency, q: float, lost: int, alpha: float
) -> Quantile:
    """A quantile whose interval knows that neighbours wait alike: requests in the order in which they were due."""
    plain = quantile(values, q, beyond=lost, alpha=alpha)
    if plain.value is None:
        return plain
    series = [math.inf if one.lost else latency_of(one, latency) for one in timed]
    alike = dependence([one > plain.value for one in series if one is not None])
    return quantile(values, q, beyond=lost, alpha=alpha, dependence=alike)


def goodput_of(timed: Sequence[Timed], objectives: Sequence[Objective], seconds: float) -> Goodput:
    """The share of requests within every objective, its exact interval, and how many a second that were."""
    verdicts = [keeps(one, objectives) for one in timed]
    good, n = sum(one is True for one in verdicts), sum(one is not None for one in verdicts)
    low, high = clopper_pearson(good, n, ALPHA) if n else (None, None)
    return Goodput(
        good=good,
        n=n,
        unknown=len(verdicts) - n,
        share=good / n if n else None,
        low=low,
        high=high,
        rate=good / seconds if n and seconds else None,
    )


def _second_half(runs: Sequence[Run]) -> tuple[int, int]:
    """Requests that came, and that were answered, from the middle request of each stretch to its last one.

    Both ends are moments at which a request came, so what is in flight is counted alike. A stretch that is over before
    a request can be answered shows no queue, and does not count.
    """
    came = ended = 0
    for run in runs:
        due = sorted(one.due_s for one in run.timed)
        answers = sorted(one.e2e_s for one in run.timed if one.e2e_s is not None)
        if not due:
            continue
        half, last = due[(len(due) - 1) // 2], due[-1]
        if answers and last - half < answers[len(answers) // 10]:
            continue
        came += sum(half < one <= last for one in due)
        ended += sum(one.e2e_s is not None and half < one.due_s + one.e2e_s <= last for one in run.timed)
    return came, ended


def _sum(counts: Sequence[int | None], seconds: float) -> float | None:
    known = [one for one in counts if one is not None]
    return sum(known) / seconds if known and len(known) == len(counts) and seconds else None


def _stage(timed: Sequence[Timed], stage: Stage) -> StageTimes:
    values = [one.stages[stage] for one in timed if not one.lost and stage in one.stages]
    p50, p95, p99 = (quantile(values, q).value if values else None for q in QUANTILES)
    return StageTimes(stage=stage, reported=len(values), p50_s=p50, p95_s=p95, p99_s=p99)


def _batches(timed: Sequence[Timed]) -> list[BatchTimes]:
    """Requests by how many were beside them, in powers of two: 1, 2, 3-4, 5-8 ..."""
    groups: dict[int, list[Timed]] = {}
    for one in timed:
        if not one.lost:
            groups.setdefault(math.ceil(math.log2(max(1, round(one.beside)))), []).append(one)
    return [
        BatchTimes(
            low=1 if not level else 2 ** (level - 1) + 1,
            high=2**level,
            n=len(group),
            ttft=_p95([one.ttft_s - one.lag_s for one in group if one.ttft_s is not None]),
            tpot=_p95([one.tpot_s for one in group if one.tpot_s is not None]),
            e2e=_p95([one.e2e_s - one.lag_s for one in group if one.e2e_s is not None]),
        )
        for level, group in sorted(groups.items())
    ]


def _p95(values: Sequence[float]) -> Quantile | None:
    return quantile(values, 0.95) if len(values) >= FEWEST else None
