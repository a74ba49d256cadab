"""The load tests of one target as plots: each promised latency beside its objective, and its curve over rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from markupsafe import Markup

from quantgate.decide.rules import LoadEvidence
from quantgate.loadtest.measure import Measured
from quantgate.loadtest.objectives import LATENCIES, Latency, Objective
from quantgate.report.load_charts import LoadLine, LoadPoint, Spread, spreads, under_load
from quantgate.report.load_page import lost_note, quantiles_of
from quantgate.report.loads import NAMES, interval
from quantgate.report.svg import both

BASELINE = "var(--soft)"  # its ink, beside whatever variant


@dataclass(frozen=True)
class Shown:
    """One plot and what stands above it."""

    title: str
    plot: Markup


def load_plots(loads: Sequence[LoadEvidence], objectives: Sequence[Objective]) -> list[Shown]:
    """Of each latency that was measured: its percentiles beside its objectives, then its curve over swept rates."""
    found = list[Shown]()
    for latency in LATENCIES:
        own = [one for one in objectives if one.latency == latency]
        rows = [row for load in loads for row in _rows(load, latency)]
        if any(row.points for row in rows) and (own or latency != "gap"):
            found.append(Shown(NAMES[latency], both(partial(spreads, rows, own, NAMES[latency]))))
        found += _curves(loads, latency, own)
    return found


def _rows(load: LoadEvidence, latency: Latency) -> Iterator[Spread]:
    """The baseline beside it, where there was one, and the variant."""
    if load.baseline is not None:
        beside = _spread(f"baseline beside {load.variant}", load.baseline, latency, "")
        yield replace(beside, ink=BASELINE)
    yield _spread(load.variant, load.measured, latency, load.partial)


def _spread(name: str, found: Measured, latency: Latency, partial_: str) -> Spread:
    notes = [lost_note(found), *(["partial"] if partial_ else [])]
    valid = found.validity.valid and not partial_
    return Spread(name, quantiles_of(found, latency), valid=valid, note="; ".join(one for one in notes if one))


def _curves(loads: Sequence[LoadEvidence], latency: Latency, objectives: Sequence[Objective]) -> Iterator[Shown]:
    """Of each promised percentile, over every rate that was tried."""
    swept = [load for load in loads if load.curve]
    for objective in objectives if swept else ():
        what = f"{NAMES[latency]} p{100 * objective.q:g}"
        lines = [line for load in swept for line in _lines(load, objective)]
        yield Shown(f"{what}, by rate", both(partial(under_load, lines, what, objective.most_s)))


def _lines(load: LoadEvidence, objective: Objective) -> Iterator[LoadLine]:
    rates = {one.rate: (one.measured, one.baseline) for one in load.curve}
    rates[load.rate] = (load.measured, load.baseline)
    points = [_point(load.variant, rate, found, objective) for rate, (found, _) in sorted(rates.items())]
    beside = [
        _point(f"baseline beside {load.variant}", rate, found, objective)
        for rate, (_, found) in sorted(rates.items())
        if found is not None
    ]
    if beside:
        yield LoadLine(f"baseline beside {load.variant}", beside, None, BASELINE)
    yield LoadLine(load.variant, points, load.knee)


def _point(name: str, rate: float, found: Measured, objective: Objective) -> LoadPoint:
    at = found.at(objective.latency, objective.q)
    lost = f"; {found.lost} of {found.sent} lost" if found.lost else ""
    doubt = "" if found.validity.valid else f"; not valid: {found.validity.because}"
    return LoadPoint(
        rate=rate,
        value=at.value if at else None,
        low=at.low if at else None,
        high=at.high if at else None,
        valid=found.validity.valid,
        title=f"{name} at {rate:g}/s: {interval(at)}{lost}{doubt}",
        lost=found.lost,
    )


def load_sentence(load: LoadEvidence) -> str:
    """What one load test was, what was lost, and why it decides nothing where it does not."""
    found = load.measured
    parts = [f"{load.variant}: {found.sent} requests at {load.rate:g}/s, {found.lost} lost"]
    parts += [f"{count} {why}" for why, count in found.why_lost.items()]
    parts += [f"at most {load.limit} in flight"] if load.limit is not None else []
    parts += [f"latency bends at {load.knee:g}/s"] if load.knee is not None else []
    parts += [f"every objective is proven up to {load.safe:g}/s"] if load.safe is not None else []
    parts += [load.policy] if load.policy else []
    parts += ["that the server ran just these bytes is its operator's word"] if load.declared else []
    parts += [f"decides nothing: {load.doubt}"] if load.doubt else []
    return "; ".join([*parts, *load.notes])
