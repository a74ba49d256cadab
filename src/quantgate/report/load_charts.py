"""Plots of a load test as inline SVG: latency under load against its objective, and the distribution of one rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from quantgate.loadtest.objectives import Objective, shown
from quantgate.report.svg import WIDE, open_svg, rule, shortened, text, width_of

INKS = ("var(--a)", "var(--d)", "var(--c)", "var(--e)")  # red is the objective's
LEFT, HEIGHT = 66, 250
MOST_TICKS = 9  # labels that stand beside each other; more decades get the powers of ten alone
DODGE = 7  # between the points of two arms at one rate: intervals beside each other, not on top


@dataclass(frozen=True)
class LoadPoint:
    """One rate: the watched latency in seconds, with its interval."""

    rate: float
    value: float | None
    low: float | None
    high: float | None
    valid: bool
    title: str
    lost: int = 0  # requests that never came


@dataclass(frozen=True)
class LoadLine:
    """One arm over rates."""

    name: str
    points: Sequence[LoadPoint]
    knee: float | None
    ink: str = ""  # its own, where it is not to have the next one


@dataclass(frozen=True)
class _Scale:
    """Seconds on a logarithmic axis, between round values."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> _Scale:
        known = [one for one in values if 0 < one < math.inf] or [0.1, 1.0]
        return cls(_round(min(known) / 1.15, up=False), _round(max(known) * 1.15, up=True))

    def share(self, value: float) -> float:
        """Of the axis, from its low end."""
        inside = min(max(value, self.low), self.high)
        return math.log(inside / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        found, power = list[float](), math.floor(math.log10(self.low))
        while 10**power <= self.high:
            found += [
                step * 10.0**power for step in (1, 2, 5) if self.low <= step * 10.0**power * 1.0001 <= self.high * 1.001
            ]
            power += 1
        tens = [one for one in found if math.isclose(math.log10(one), round(math.log10(one)))]
        return found if len(found) <= MOST_TICKS or len(tens) < 2 else tens


def _round(value: float, *, up: bool) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = [step * power for step in (1, 2, 5, 10)]
    return (
        next(one for one in steps if one >= value * 0.9999)
        if up
        else max(one for one in steps if one <= value * 1.0001)
    )


def under_load(lines: Sequence[LoadLine], watched: str, most_s: float | None, width: int = WIDE) -> Markup:
    """The watched quantile by rate, an arm a line; red is the objective, a ring the knee, a hollow dot not valid.

    A point at the top edge, with an arrow, is a quantile that falls among lost requests: it never came.
    """
    points = [point for line in lines for point in line.points]
    bounds = [one for point in points for one in (point.value, point.low, point.high) if one]
    scale = _Scale.over(bounds + ([most_s] if most_s else []))
    legend, top = _legend(lines, most_s, width)
    right, edge = width - 14.0, 1.08 * max([point.rate for point in points], default=1.0)

    def x(rate: float) -> float:
        return LEFT + (right - LEFT) * rate / edge

    def y(seconds: float) -> float:
        return top + HEIGHT * (1 - scale.share(seconds))

    parts = [open_svg(width, top + HEIGHT + 46, f"{watched} by rate"), legend]
    for tick in scale.ticks():
        parts += [rule(LEFT, y(tick), right, y(tick), "grid"), text(LEFT - 8, y(tick) + 4, shown(tick), anchor="end")]
    parts += [
        text(at, top + HEIGHT + 18, told)
        for at, told in _apart(sorted({x(one.rate): f"{one.rate:.3g}" for one in points}.items()))
    ]
    if most_s:
        beyond = max(0.0, y(most_s) - top)
        parts += [
            f'<rect x="{LEFT}" y="{top}" width="{right - LEFT:.1f}" height="{beyond:.1f}" class="beyond"/>',
            rule(LEFT, y(most_s), right, y(most_s), "margin"),
        ]
    for at, line in enumerate(lines):
        aside = DODGE * (at - (len(lines) - 1) / 2)
        parts += _line(line, line.ink or INKS[at % len(INKS)], [x(one.rate) + aside for one in line.points], y, top)
    parts += [text((LEFT + right) / 2, top + HEIGHT + 40, "requests a second, asked"), "</svg>"]
    return Markup("".join(parts))


def _legend(lines: Sequence[LoadLine], most_s: float | None, width: int) -> tuple[str, float]:
    """A dot and a name for each arm, then the objective, in as many lines as they take; where the plot begins."""
    most = 40 if width > 500 else 24
    entries = [(line.ink or INKS[at % len(INKS)], shortened(line.name, most)) for at, line in enumerate(lines)]
    x, y, parts = 8.0, 14.0, list[str]()
    for ink, told in [*entries, *([("", f"objective, {shown(most_s)}")] if most_s else [])]:
        if x > 8 and x + 34 + width_of(told) > width:
            x, y = 8.0, y + 18
        sign = _ring(x, y - 4, 5, ink, filled=True) if ink else rule(x - 6, y - 4, x + 7, y - 4, "margin")
        parts += [sign, text(x + 12, y, told, "label", "start")]
        x += 34 + width_of(told)
    return "".join(parts), y + 20


def _within(ticks: Sequence[tuple[float, str]], width: float) -> list[tuple[float, str]]:
    """Moved so far that none leaves the drawing."""
    halves = [(at, told, width_of(told) / 2) for at, told in ticks]
    return [(min(max(at, half), width - half), told) for at, told, half in halves]


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those that do not cover the one before."""
    found: list[tuple[float, str]] = []
    for at, told in ticks:
        if not found or at - found[-1][0] > 4 + (width_of(told) + width_of(found[-1][1])) / 2:
            found.append((at, told))
    return found


def _line(line: LoadLine, ink: str, xs: Sequence[float], y: Callable[[float], float], top: float) -> list[str]:
    """A polyline through what was measured, each point at its x with its interval and what it says."""
    beside = zip(xs, line.points, strict=True)
    placed = [(x, top if one.value is None else y(one.value), one) for x, one in beside]
    placed = [(across, down, one) for across, down, one in placed if one.value is not None or one.lost]
    way = " ".join(f"{across:.1f},{down:.1f}" for across, down, _ in placed)
    parts = [f'<polyline points="{way}" fill="none" stroke="{ink}" stroke-width="2"/>']
    for across, down, point in placed:
        low = down if point.low is None else y(point.low)
        high = top if point.high is None else y(point.high)
        parts += [f"<g><title>{escape(point.title)}</title>", rule(across, low, across, high, "bar", ink)]
        if line.knee == point.rate:
            parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="10" fill="none" stroke="{ink}"/>')
        parts.append(_never(across, down, ink) if point.value is None else _ring(across, down, 4.5, ink, point.valid))
        if point.lost:
            parts.append(text(across, down + (18 if point.value is None else -12), f"{point.lost} lost", "edge"))
        parts.append("</g>")
    return parts


def _ring(x: float, y: float, radius: float, ink: str, filled: bool) -> str:
    """Full where it is valid."""
    fill = ink if filled else "var(--paper)"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{ink}" stroke-width="2"/>'


def _never(x: float, y: float, ink: str) -> str:
    """An arrow off the end of the axis."""
    return f'<path d="M{x - 6:.1f},{y + 9:.1f}l6,-9l6,9" fill="none" stroke="{ink}" stroke-width="2" class="never"/>'


@dataclass(frozen=True)
class Spread:
    """One arm's quantiles of one latency: (share, seconds, low, high), None where not known."""

    name: str
    points: Sequence[tuple[float, float | None, float | None, float | None]]
    valid: bool = True
    note: str = ""  # "12 of 600 lost"
    ink: str = ""  # its own, where it is not to have the next one


def spreads(rows: Sequence[Spread], limits: Sequence[Objective], what: str = "latency", width: int = WIDE) -> Markup:
    """p50, p95 and p99 of each arm on one logarithmic axis of time, with intervals; red rules are the objectives."""
    values = [one for row in rows for point in row.points for one in point[1:] if one]
    scale = _Scale.over(values + [one.most_s for one in limits])
    top, step, right = 8.0 + 16 * len(limits), 62, width - 16.0
    height = top + step * len(rows)

    def x(seconds: float) -> float:
        return 10 + (right - 10) * scale.share(seconds)

    parts = [open_svg(width, height + 24, f"{what}: p50, p95 and p99 of {', '.join(row.name for row in rows)}")]
    parts += [rule(x(tick), top, x(tick), height, "grid") for tick in scale.ticks()]
    parts += [
        text(at, height + 18, told)
        for at, told in _apart(_within([(x(one), shown(one)) for one in scale.ticks()], width))
    ]
    for at, one in enumerate(sorted(limits, key=lambda one: one.most_s)):
        place, side = x(one.most_s), "start" if x(one.most_s) < width / 2 else "end"
        told = f"p{100 * one.q:g} at most {shown(one.most_s)}"
        parts += [rule(place, 4 + 16 * at, place, height, "margin")]
        parts += [text(place + (5 if side == "start" else -5), 14 + 16 * at, told, "edge", side)]
    for at, row in enumerate(rows):
        parts += _spread(row, row.ink or INKS[at % len(INKS)], top + step * at, x, right)
    return Markup("".join([*parts, "</svg>"]))


def _spread(row: Spread, ink: str, top: float, x: Callable[[float], float], right: float) -> list[str]:
    """The name, below it an interval for each quantile, one under the other, and below these which dot is which."""
    most = int(right / 7.5)
    told = shortened(f"{row.name}: {row.note}" if row.note else row.name, most)
    parts, marks = [text(2, top + 14, told, "label", "start")], list[tuple[float, str]]()
    for at, (share, value, low, high) in enumerate(row.points):
        y = top + 24 + 7 * at
        name = f"p{100 * share:g}"
        title = f"{row.name}, {name}: {'never came' if value is None else shown(value)}"
        parts.append(f"<g><title>{escape(title)}</title>")
        if value is None:
            parts += [] if low is None else [rule(x(low), y, right, y, "wide", ink)]
            parts.append(f'<path d="M{right - 8:.1f},{y - 6}l9,6l-9,6" fill="none" stroke="{ink}" class="never"/>')
        else:
            left, end = x(value if low is None else low), right if high is None else x(high)
            parts.append(rule(left, y, end, y, "wide", ink))
            parts.append(_ring(x(value), y, 5, ink, row.valid))
        marks.append((right - 8 if value is None else x(value), f"{name} never" if value is None else name))
        parts.append("</g>")
    return parts + _labels(marks, top + 40 + 7 * max(0, len(row.points) - 1), right)


def _labels(marks: Sequence[tuple[float, str]], y: float, right: float) -> list[str]:
    """Names below their dots; those that would cover each other become one."""
    groups: list[tuple[float, str]] = []
    for at, name in sorted(marks):
        if groups and at - groups[-1][0] < 12 + (width_of(name) + width_of(groups[-1][1])) / 2:
            groups[-1] = at, f"{groups[-1][1]} {name}"
        else:
            groups.append((at, name))
    return [text(at, y, names) for at, names in _within(groups, right)]
