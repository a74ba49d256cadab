"""What a run's load tests ask: of which targets, how many requests, for how long, and what they cost in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantgate import plugins
from quantgate.decide.findings import RUNTIMES
from quantgate.errors import MissingExtra, UsageError
from quantgate.hardware.profiles import HERE, normal
from quantgate.hardware.targets import Place
from quantgate.load_test_config import ROOM, USUAL_RATE, USUAL_SECONDS, LoadTestConfig
from quantgate.loadtest.objectives import ALPHA, Objective
from quantgate.models import OpenedModel
from quantgate.pipeline.loading import Wanted
from quantgate.quantize.manifest import SAFE_NAME
from quantgate.records import Record
from quantgate.release_config import ReleaseConfig
from quantgate.stats.quantiles import fewest

ENGINES = {runtime: engine for engine, runtimes in RUNTIMES.items() for runtime in runtimes}


class PlannedLoad(Record):
    """The load test of one variant on one target."""

    target: str
    rates: tuple[float, ...]  # requests a second, the asked one first
    limits: tuple[int, ...]  # in flight at most
    seconds: float  # that requests come, at each rate and limit
    requests: int  # at the asked rate, in the mean, of baseline and variant each
    percentile: float | None  # the largest one that is promised
    fewest: int | None  # requests that bound it at all
    takes_s: float  # at least, of baseline and variant together
    variants: int  # that may have to be tested, the smallest first


@dataclass(frozen=True)
class Asked:
    """The load test of a target: ``alpha`` is what the intervals of one variant may err by, on both sides together."""

    target: str
    place: Place
    settings: LoadTestConfig
    alpha: float
    traffic: Path | None
    seed: int

    @property
    def engine(self) -> str:
        return ENGINES[self.place.runtime]

    @property
    def rates(self) -> tuple[float, ...]:
        return tuple(dict.fromkeys((self.place.rate or USUAL_RATE, *self.settings.sweep)))

    @property
    def limits(self) -> tuple[int, ...]:
        """The target's own first."""
        return tuple(dict.fromkeys((self.place.concurrency, *sorted(self.settings.limits, reverse=True))))

    @property
    def percentile(self) -> float | None:
        return max((percentile / 100 for _, percentile in self.place.promises), default=None)

    @property
    def fewest(self) -> int | None:
        """Requests that bound the largest percentile from above at all."""
        return None if self.percentile is None else fewest(self.percentile, self.alpha / len(self.limits))

    @property
    def seconds(self) -> float:
        if self.settings.seconds is not None:
            return self.settings.seconds
        return max(USUAL_SECONDS, ROOM * (self.fewest or 0) / min(self.rates))

    @property
    def wanted(self) -> Wanted:
        promises = self.place.promises.items()
        return Wanted(
            rate=self.rates[0],
            sweep=self.rates[1:],
            seconds=self.seconds,
            limits=self.limits,
            objectives=tuple(
                Objective.model_validate({"latency": latency, "q": percentile / 100, "most_s": most})
                for (latency, percentile), most in promises
            ),
            traffic=self.traffic,
            prompt_tokens=self.place.prompt,
            answer_tokens=self.place.answer,
            blocks=self.settings.blocks,
            rows=self.place.concurrency,
            seed=self.seed,
            alpha=self.alpha,
        )

    def planned(self, variants: int) -> PlannedLoad:
        each = len(self.rates) + len(self.limits) - 1
        return PlannedLoad(
            target=self.target,
            rates=self.rates,
            limits=self.limits,
            seconds=self.seconds,
            requests=round(self.rates[0] * self.seconds),
            percentile=self.percentile,
            fewest=self.fewest,
            takes_s=2 * each * self.seconds,
            variants=variants,
        )


def asked_of(config: ReleaseConfig) -> list[Asked]:
    """Of every target that is this machine, promises anything and has a runtime that this process has an engine for.

    The best of all variants is chosen, so each is measured at its share of the judge's ``alpha``: a promise that is
    broken is taken for kept with that chance at most.
    """
    alpha = min(ALPHA, 2 * config.judge.alpha / max(1, len(config.variants)))
    traffic = config.calibration.traffic
    return [
        Asked(
            target=name,
            place=target.place,
            settings=target.load_test or LoadTestConfig(),
            alpha=alpha,
            traffic=Path(traffic) if traffic else None,
            seed=config.judge.seed,
        )
        for name, target in config.targets.items()
        if normal(target.hardware) == HERE
        and target.speed == "measured"
        and (target.promises or target.rate is not None)
        and target.runtime in ENGINES
    ]


def planned_loads(config: ReleaseConfig) -> Iterator[PlannedLoad]:
    """What the load tests of a run take, before anything is made."""
    for one in asked_of(config):
        yield one.planned(len(config.variants))


def check(config: ReleaseConfig, model: OpenedModel) -> None:
    """Before anything slow. Raises UsageError for a target that cannot be tested as it is written, MissingExtra."""
    for one in asked_of(config):
        place = one.place
        if not SAFE_NAME.fullmatch(one.target):
            raise UsageError(
                f"targets: '{one.target}' cannot name a folder of load tests; use letters, digits, '.', '_' and '-'"
            )
        if place.prompt + place.answer >= model.context:
            raise UsageError(
                f"targets.{one.target}: a prompt of {place.prompt} and an answer of {place.answer} tokens do not fit "
                f"the {model.context} tokens that {model.ref} holds; set 'prompt' and 'answer' to what is usual there"
            )
        try:
            plugins.get("engines", one.engine)
        except MissingExtra as missing:
            raise MissingExtra(
                f"targets.{one.target}: is load-tested here, and {missing}; or write 'speed: planned' into the target"
            ) from None
