"""Where the time goes: quantiles of each stage by variant, of the newest exchanges, drawn along one axis."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from quantgate.serve import STAGES, Exchange
from quantgate.serve.exchanges import Reader

ROWS = 2000  # of the journal that are looked at: a few tens of milliseconds of reading
LEAST = 20  # requests, below which a tail is not shown
ABOUT = {
    "parse": "reading the request",
    "context": "building the prompt",
    "cache": "looking for kept work",
    "queue": "waiting for a seat",
    "prefill": "reading the prompt",
    "decode": "writing the answer",
    "validate": "checking the answer",
    "stream": "sending it",
    "upstream": "all of the upstream",
    "first token": "until the client sees something",
    "overhead": "the gateway itself",
    "total": "the whole request",
}
WIDE, LEFT = 320.0, 8.0  # of the drawing


@dataclass(frozen=True, slots=True)
class Times:
    """Of one stage of one variant, seconds."""

    variant: str
    n: int
    p50: float
    p95: float | None
    p99: float | None
    x50: float = 0.0  # places on the axis
    x95: float | None = None
    x99: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    about: str
    times: tuple[Times, ...]


@dataclass(frozen=True, slots=True)
class Latency:
    stages: tuple[Stage, ...]
    variants: tuple[str, ...]  # the most asked first
    requests: int
    since: float | None  # of the oldest that was looked at
    ticks: tuple[tuple[float, float], ...]  # seconds, place


def newest(reader: Reader, target: str) -> list[Exchange]:
    """The last of a target's exchanges. Raises QuantgateError."""
    start = max(0, reader.last() - ROWS)
    return [one for _, one in reader.since(start, target=target)]


def latency_of(exchanges: Sequence[Exchange]) -> Latency:
    """Answers that left, not copies; each for the variant that it was drawn for."""
    told = [one for one in exchanges if not one.shadow and one.status < 400]
    taken: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    asked: dict[str, int] = defaultdict(int)
    for one in told:
        asked[one.variant] += 1
        for stage, took in _times(one).items():
            if math.isfinite(took) and took >= 0:
                taken[stage][one.variant].append(took)
    variants = tuple(sorted(asked, key=lambda name: (-asked[name], name)))
    stages = [(name, [_quantiles(v, taken[name][v]) for v in variants if taken[name][v]]) for name in ABOUT]
    return _drawn([(name, rows) for name, rows in stages if rows], variants, told)


def _times(one: Exchange) -> dict[str, float]:
    found = {name: one.stages[name] for name in (*STAGES, "upstream") if name in one.stages}
    found |= {"total": one.total_s, "overhead": one.overhead_s}
    return found if one.ttft_s is None else found | {"first token": one.ttft_s}


def _quantiles(variant: str, took: list[float]) -> Times:
    took.sort()
    tail = len(took) >= LEAST
    return Times(
        variant, len(took), _at(took, 0.5), _at(took, 0.95) if tail else None, _at(took, 0.99) if tail else None
    )


def _at(took: Sequence[float], q: float) -> float:
    """
    >>> _at([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    return took[max(0, math.ceil(q * len(took)) - 1)]


def _drawn(stages: list[tuple[str, list[Times]]], variants: tuple[str, ...], told: Sequence[Exchange]) -> Latency:
    ends = [end for _, rows in stages for one in rows for end in (one.p50, one.p99 or one.p50) if end > 0]
    low = 10.0 ** math.floor(math.log10(min(ends))) if ends else 0.001
    high = 10.0 ** math.ceil(math.log10(max(ends)) + 1e-9) if ends else 1.0
    spread = max(1.0, math.log10(high / low))

    def x(took: float | None) -> float | None:
        if took is None:
            return None
        at = math.log10(max(took, low) / low) / spread
        return round(LEFT + at * (WIDE - 2 * LEFT), 1)

    drawn = tuple(
        Stage(
            name,
            ABOUT[name],
            tuple(
                Times(one.variant, one.n, one.p50, one.p95, one.p99, x(one.p50) or LEFT, x(one.p95), x(one.p99))
                for one in rows
            ),
        )
        for name, rows in stages
    )
    step = 1 if spread <= 4 else 2  # so that no two labels touch
    decades = [low * 10.0**at for at in range(0, round(spread) + 1, step)]
    ticks = tuple((took, x(took) or LEFT) for took in decades)
    return Latency(drawn, variants, len(told), min((one.at for one in told), default=None), ticks)
