"""load.html: one self-contained page of a load test, latency under load first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantgate.loadtest.measure import Measured
from quantgate.loadtest.objectives import LATENCIES, Latency, shown
from quantgate.loadtest.result import ArmResult, LoadResult, watched
from quantgate.report.load_charts import LoadLine, LoadPoint, Spread, spreads, under_load
from quantgate.report.loads import NAMES, interval, place, ratio_text
from quantgate.report.pages import rendered

WIDTH = 720  # of a plot: the page shows it no wider than 780


def load_page(result: LoadResult) -> str:
    """The whole result as one HTML document."""
    latency, q = watched(result.objectives)
    return rendered(
        "load.html",
        {"seconds": shown, "interval": interval, "ratio": ratio_text, "place": place},
        result=result,
        names=NAMES,
        latencies=LATENCIES,
        watched=f"{NAMES[latency]}, p{100 * q:g}",
        plot=_curve(result, latency, q) if len(result.asked) > 1 else "",
        spreads=[(NAMES[one], _spread(result, one)) for one in LATENCIES if _known(result, one)],
        pairs=_pairs(result),
        rows=[_row(one) for one in result.results],
        first=result.asked[0],
        invalid=[f"{one.arm}, {place(one)}" for one in result.results if not one.measured.validity.valid],
    )


def _most(result: LoadResult, latency: Latency, q: float) -> float | None:
    return next((one.most_s for one in result.objectives if (one.latency, one.q) == (latency, q)), None)


def _curve(result: LoadResult, latency: Latency, q: float) -> Any:
    """Of the first limit, which is no limit where none was asked for."""
    limit = result.results[0].limit if result.results else None
    lines = []
    for arm in result.arms:
        own = sorted((one for one in result.results if (one.arm, one.limit) == (arm, limit)), key=lambda one: one.rate)
        knee = result.knees[arm].knee if arm in result.knees else None
        lines.append(LoadLine(arm, [_point(one, latency, q) for one in own], knee))
    return under_load(lines, f"{NAMES[latency]} p{100 * q:g}", _most(result, latency, q), WIDTH)


def _point(one: ArmResult, latency: Latency, q: float) -> LoadPoint:
    found, valid = one.measured.at(latency, q), one.measured.validity
    title = f"{one.arm} at {place(one)}: {interval(found)}" + (
        f"; not valid: {valid.because}" if not valid.valid else ""
    )
    limits = (found.value, found.low, found.high) if found else (None, None, None)
    return LoadPoint(one.rate, *limits, valid=valid.valid, title=title, lost=one.measured.lost)


def _known(result: LoadResult, latency: Latency) -> bool:
    return any(one.measured.quantiles.get(latency) for one in _at_asked(result))


def _at_asked(result: LoadResult) -> Sequence[ArmResult]:
    return [one for one in result.results if one.rate == result.asked[0].rate]


def _spread(result: LoadResult, latency: Latency) -> Any:
    rows = [
        Spread(
            one.arm if one.limit is None else f"{one.arm}, {one.limit}",
            quantiles_of(one.measured, latency),
            valid=one.measured.validity.valid,
            note=lost_note(one.measured),
        )
        for one in _at_asked(result)
    ]
    return spreads(rows, [one for one in result.objectives if one.latency == latency], NAMES[latency], WIDTH)


def quantiles_of(found: Measured, latency: Latency) -> list[tuple[float, float | None, float | None, float | None]]:
    """Share, seconds and limits of each, for a plot."""
    return [(one.q, one.value, one.low, one.high) for one in found.quantiles.get(latency, ())]


def lost_note(found: Measured) -> str:
    """What must be seen beside a latency: requests that never came, a run that says nothing."""
    parts = [f"{found.lost} of {found.sent} lost"] if found.lost else []
    return "; ".join([*parts, *(["not valid"] if not found.validity.valid else [])])


def _row(one: ArmResult) -> dict[str, Any]:
    found, valid = one.measured, one.measured.validity
    good = found.goodput
    return {
        "one": one,
        "good": "-" if good is None or good.share is None else f"{100 * good.share:.1f} %",
        "good_rate": "-" if good is None or good.rate is None else f"{good.rate:.2f}/s",
        "tokens": "unknown" if found.token_rate is None else f"{found.token_rate:.1f}",
        "held": f"{100 * valid.achieved_rate / valid.asked_rate:.2f} %" if valid.asked_rate else "-",
    }


def _pairs(result: LoadResult) -> list[tuple[str, int, list[str]]]:
    """By rate and limit: the place, the stretches, and p50 and p95 of each latency."""
    places = list(dict.fromkeys((one.rate, one.limit) for one in result.pairs))
    found = []
    for rate, limit in places:
        own = {one.latency: one for one in result.pairs if (one.rate, one.limit) == (rate, limit)}
        first = next(iter(own.values()))
        cells = [
            ratio_text(own[name].ratios[at]) if name in own else "unknown" for name in LATENCIES for at in range(2)
        ]
        found.append((place(first), first.ratios[0].blocks, cells))
    return found
