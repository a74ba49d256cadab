"""A made-up trial, minute by minute, with real evidence: for a look at the dashboard, its tests and its pictures.

    python -m quantgate.watch.dashboard.sample --story worse

Counts are drawn from a seed; e-values and intervals are computed from them by ``stats.attribution``, as the watch does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from quantgate.records import digest_of
from quantgate.serve import Exchange
from quantgate.stats import attribution, rates
from quantgate.stats.renewal import log_mix
from quantgate.watch import Action, Alarm, Finding, Point, Tally, Trial, Verdict
from quantgate.watch.dashboard.words import share as told
from quantgate.watch.explaining import times

Story = Literal["healthy", "worse"]
MINUTE_S = 60.0
CONTROL_A_MINUTE = 540  # sessions of everybody in a minute
ALPHA, BETA, MARGIN, FLOOR = 0.01, 0.05, 1.5, 0.005
TURNS = 130  # the minute from which on the story is told
EVERY = 4  # minutes between two looks at what is past when it begins
SHARES = ((0, 0.01), (40, 0.05))  # minute, share of the canary


@dataclass(frozen=True, slots=True)
class Told:
    """One process: how often on the control, how many times as often on the trial, and from when on in ``worse``."""

    signal: str
    rate: float
    direction: Literal["more", "less"] = "more"
    factor: float = 1.0
    worse: float = 1.0
    weight: float = 1.0
    mean: float = 0.0  # of a quantity
    applies: float = 1.0  # to which part of sessions


TOLD = (
    Told("validation_failure", 0.021, worse=4.0, weight=40, applies=0.6),
    Told("repair", 0.034, worse=2.0, weight=6, applies=0.6),
    Told("retry", 0.018, worse=1.8, weight=8),
    Told("repeated_prompt", 0.031, factor=0.98, worse=1.3, weight=10),
    Told("empty", 0.002, weight=4),
    Told("looping", 0.0015, weight=6),
    Told("cut_off", 0.012, factor=1.02, weight=3),
    Told("error", 0.004, factor=0.9, weight=8),
    Told("ttft", 0.05, factor=0.84, weight=5, mean=0.31),
    Told("end_to_end", 0.05, factor=0.86, weight=5, mean=4.2),
    Told("output_length", 0.05, factor=1.01, weight=2.5, mean=231.0),
    Told("output_length", 0.05, direction="less", factor=0.99, weight=2.5, mean=231.0),
)
WEIGHTS = math.fsum(one.weight for one in TOLD)


@dataclass(slots=True)
class Process:
    told: Told
    counts: dict[float, list[int]] = field(default_factory=dict)  # as ``stats.attribution.Counts``
    sides: dict[str, list[float]] = field(default_factory=lambda: {"trial": [0, 0, 0.0], "control": [0, 0, 0.0]})
    examples: list[str] = field(default_factory=list)


class Sample:
    """See ``watch.Standings``. ``step`` lets a minute pass; ``taken_back`` and ``moved`` tell it what became of it."""

    def __init__(
        self,
        trial: Trial,
        story: Story = "healthy",
        *,
        began: float,
        minutes: int = 100,
        seed: int = 7,
        revision: int = 3,
    ) -> None:
        self.trial, self.story, self.began = trial, story, began
        self.minute = 0
        self.share = SHARES[0][1]
        self.revision = revision
        self._draw = random.Random(seed)
        self._processes = [Process(one) for one in TOLD]
        self._points: list[Point] = []
        self._alarms: list[Alarm] = []
        self._verdict: Verdict | None = None
        for left in reversed(range(minutes)):
            self._pass()
            if left % EVERY == 0:
                self._look()

    @property
    def now(self) -> float:
        return self.began + self.minute * MINUTE_S

    def step(self) -> Verdict:
        """A minute of traffic, counted and judged."""
        self._pass()
        return self._look()

    def _pass(self) -> None:
        self.minute += 1
        self.share = [share for at, share in SHARES if at < self.minute][-1]
        for one in self._processes:
            self._count(one, round(CONTROL_A_MINUTE * (1 - self.share)), round(CONTROL_A_MINUTE * self.share))

    def _look(self) -> Verdict:
        findings = tuple(self._finding(one) for one in self._processes)
        self._points += [_point(self.now, one, self.share) for one in findings]
        self._verdict = self._judge(findings)
        if self._verdict.action == "rollback" and not self._alarms:
            self._alarms.append(
                Alarm(id=f"a{digest_of(self.trial.digest)[7:17]}", verdict=self._verdict, decided_at=self.now)
            )
        return self._verdict

    def settle(self, done: Literal["moved", "refused"], said: str) -> None:
        """What became of the alarm that is pending."""
        self._alarms[0] = self._alarms[0].model_copy(update={"done": done, "told": said, "done_at": self.now + 0.041})

    def verdict(self, target: str) -> Verdict | None:
        return self._verdict if target == self.trial.target else None

    def points(self, trial: str, *, since: float = 0.0, signal: str | None = None) -> Sequence[Point]:
        if trial != self.trial.digest:
            return ()
        return [one for one in self._points if one.at >= since and signal in (None, one.signal)]

    def alarms(self, target: str, *, limit: int = 50) -> Sequence[Alarm]:
        return self._alarms[:limit] if target == self.trial.target else ()

    def alarm(self, id: str) -> Alarm | None:
        return next((one for one in self._alarms if one.id == id), None)

    def behind_s(self, target: str) -> float | None:
        return 0.4

    def exchanges(self, most: int = 600) -> Iterator[Exchange]:
        """The newest, both sides: what the findings' examples and the page of latencies are made of."""
        draw = random.Random(11)
        wanted = {id: one.told.signal for one in self._processes for id in one.examples}
        for at, (id, signal) in enumerate(wanted.items()):
            yield self._exchange(draw, id, True, self.now - 40.0 * (len(wanted) - at), signal)
        for at in range(most):
            when = self.now - (most - at) * 2.5
            yield self._exchange(draw, f"req_{at:05d}{draw.getrandbits(32):08x}", draw.random() < 0.2, when, "")

    def _count(self, one: Process, control: int, trial: int) -> None:
        spec, draw = one.told, self._draw
        times = spec.worse if self.story == "worse" and self.minute > TURNS else spec.factor
        row = one.counts.setdefault(self.share, [0, 0])
        for side, sessions, rate in (("control", control, spec.rate), ("trial", trial, spec.rate * times)):
            units = round(sessions * spec.applies)
            bad = sum(draw.random() < rate for _ in range(units))
            tally = one.sides[side]
            tally[0] += units
            tally[1] += bad
            tally[2] += units * spec.mean * (1 + 0.4 * (times - 1) * (side == "trial"))
            row[0] += bad
            row[1] += bad if side == "trial" else 0
            if side == "trial" and bad and spec.mean == 0:
                one.examples = [*one.examples, f"req_{draw.getrandbits(48):012x}"][-5:]

    def _finding(self, one: Process) -> Finding:
        spec, weight = one.told, one.told.weight / WEIGHTS
        counts = one.counts if spec.direction == "more" else attribution.mirrored(one.counts)
        low, high = attribution.interval(one.counts, ALPHA)
        trial, control = _tally(one.sides["trial"]), _tally(one.sides["control"])
        rare = rates.log_below(trial.bad, trial.units, FLOOR) if not spec.mean else 0.0
        found = Finding(
            signal=spec.signal,
            direction=spec.direction,
            trial=trial,
            control=control,
            log_e=attribution.log_worse(counts),
            log_threshold=math.log(1 / (ALPHA * weight)),
            log_better=log_mix([(0.5, attribution.log_better(counts, MARGIN)), (0.5, rare)]),
            log_better_threshold=math.log(1 / BETA),
            margin=MARGIN,
            ratio=attribution.estimate(one.counts),
            low=low,
            high=high,
            weight=weight,
            examples=tuple(one.examples),
        )
        return found.model_copy(update={"sentence": _sentence(found, self.trial)})

    def _judge(self, findings: Sequence[Finding]) -> Verdict:
        worst = max(findings, key=lambda one: one.log_e / one.log_threshold)
        waiting = [one for one in findings if one.log_better < one.log_better_threshold]
        action: Action = "hold"
        if worst.log_e >= worst.log_threshold:
            action, because = "rollback", worst.sentence
        elif not waiting:
            action, because = "promote", f"every signal is proven to be at most {MARGIN:g} times as bad"
        else:
            done = len(findings) - len(waiting)
            because = f"{done} of {len(findings)} signals are proven no worse, and none is proven worse"
        wait = [f"{one.signal}: {one.trial.units:,} sessions do not show yet that it is no worse" for one in waiting]
        return Verdict(
            trial=self.trial,
            action=action,
            because=because,
            at=self.now,
            number=self.minute * CONTROL_A_MINUTE,
            revision=self.revision,
            share=self.share,
            next_share=0.25,
            signal=worst.signal if action == "rollback" else "",
            log_e=log_mix([(one.weight, one.log_e) for one in findings]),
            findings=tuple(findings),
            missing=tuple(wait) if action == "hold" else (),
        )

    def _exchange(self, draw: random.Random, id: str, on_trial: bool, at: float, signal: str) -> Exchange:
        trial, odds = self.trial, self.share
        fast = 0.82 if on_trial else 1.0
        queue, prefill = draw.expovariate(1 / 0.006), draw.lognormvariate(math.log(0.26 * fast), 0.45)
        decode = draw.lognormvariate(math.log(3.6 * fast), 0.5)
        stages = {"parse": 0.0001, "context": 0.0002, "queue": queue, "prefill": prefill, "decode": decode}
        broken = signal in ("validation_failure", "repair")
        return Exchange(
            id=id,
            at=at,
            target=trial.target,
            variant=trial.variant if on_trial else trial.control,
            artifact=trial.artifact if on_trial else trial.control_artifact,
            answered_by=trial.variant if on_trial else trial.control,
            cohort="canary" if on_trial else "stable",
            share=self.share,
            side="trial" if on_trial else "control",
            odds=odds,
            against=trial.control_artifact if on_trial else trial.artifact,
            revision=self.revision,
            route="chat",
            key="k01",
            session=digest_of(id)[7:39],
            told_session=True,
            stream=draw.random() < 0.7,
            structured=broken or draw.random() < 0.5,
            status=502 if signal == "error" else 200,
            error="upstream_cut" if signal == "error" else "",
            finish="length" if signal == "cut_off" else "stop",
            step="corrected" if broken else "passed",
            faults=("invalid_json",) if broken else (),
            retry=1 if signal == "retry" else 0,
            prompt_tokens=draw.randint(200, 3000),
            answer_tokens=draw.randint(30, 500),
            stages=stages | {"validate": draw.expovariate(1 / 0.0004), "stream": 0.0008},
            ttft_s=queue + prefill,
            total_s=queue + prefill + decode,
            overhead_s=0.0011,
            marks={signal: 1.0} if signal in ("empty", "looping", "repeated_prompt") else {},
        )


def _tally(side: Sequence[float]) -> Tally:
    return Tally(units=int(side[0]), bad=int(side[1]), total=side[2])


def _point(at: float, one: Finding, share: float) -> Point:
    kept = {
        name: getattr(one, name) for name in ("signal", "direction", "log_e", "log_threshold", "ratio", "low", "high")
    }
    return Point(at=at, trial=one.trial, control=one.control, share=share, **kept)


def _sentence(one: Finding, trial: Trial) -> str:
    sides = f"{one.trial.bad:,} of {one.trial.units:,} sessions of {trial.variant} against {one.control.bad:,} of "
    known = f": {times(one.ratio)} as often" if one.ratio is not None else ""
    sure = f" (at least {times(one.low)}, {told(1 - ALPHA)})" if one.low else ""
    what = one.signal.replace("_", " ")
    return f"{what}: {sides}{one.control.units:,} of {trial.control}{known}{sure}"


if __name__ == "__main__":
    from quantgate.watch.dashboard.sample_gateway import main

    main()
