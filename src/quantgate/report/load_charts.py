"""Plots of a load test as inline SVG: latency under load against its objective, and the distribution of one rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup, escape

from quantgate.loadtest.objectives import shown
from quantgate.report.charts import _dot, _open, _rule, _text

INKS = ("var(--a)", "var(--d)", "var(--c)", "var(--e)")  # red is the objective's
LEFT, WIDTH, TOP, HEIGHT = 78, 560, 18, 260
MOST_TICKS = 9  # labels that stand beside each other; more decades get the powers of ten alone
LONGEST_NAME = 20  # characters of an arm beside its row
DODGE = 7  # pixels between the points of two arms at one rate


@dataclass(frozen=True)
class LoadPoint:
    """One rate: the watched latency in seconds, with its interval."""

    rate: float
    value: float | None
    low: float | None
    high: float | None
    valid: bool
    title: str


@dataclass(frozen=True)
class LoadLine:
    """One arm over rates."""

    name: str
    points: Sequence[LoadPoint]
    knee: float | None


@dataclass(frozen=True)
class _Scale:
    """Seconds on a logarithmic axis, between round values."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> _Scale:
        known = [one for one in values if 0 < one < math.inf] or [0.1, 1.0]
        return cls(_round(min(known) / 1.15, up=False), _round(max(known) * 1.15, up=True))

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return TOP + HEIGHT * (1 - math.log(inside / self.low) / math.log(self.high / self.low))

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


def under_load(lines: Sequence[LoadLine], watched: str, most_s: float | None) -> Markup:
    """The watched quantile by rate, an arm a line; red is the objective, a ring the knee, a hollow dot not valid."""
    points = [point for line in lines for point in line.points]
    bounds = [one for point in points for one in (point.value, point.low, point.high) if one]
    scale = _Scale.over(bounds + ([most_s] if most_s else []))
    right = 1.08 * max([point.rate for point in points], default=1.0)

    def x(rate: float, aside: float = 0.0) -> float:
        return LEFT + WIDTH * rate / right + aside

    parts = [_open(LEFT + WIDTH + 130, TOP + HEIGHT + 46, f"{watched} by rate")]
    for tick in scale.ticks():
        parts += [
            _rule(LEFT, scale.y(tick), LEFT + WIDTH, scale.y(tick), "grid"),
            _text(LEFT - 8, scale.y(tick) + 4, shown(tick), anchor="end"),
        ]
    for rate in sorted({point.rate for point in points}):
        parts.append(_text(x(rate), TOP + HEIGHT + 18, f"{rate:.3g}"))
    if most_s:
        y = scale.y(most_s)
        parts += [
            f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{max(0.0, y - TOP):.1f}" class="beyond"/>',
            _rule(LEFT, y, LEFT + WIDTH, y, "margin"),
            _text(LEFT + WIDTH + 8, y + 4, f"objective {shown(most_s)}", "label", "start"),
        ]
    taken: list[float] = [scale.y(most_s) + 4] if most_s else []
    for at, line in enumerate(lines):
        aside = DODGE * (at - (len(lines) - 1) / 2)  # intervals of two arms beside each other, not on top
        parts += _line(line, INKS[at % len(INKS)], partial(x, aside=aside), scale, taken)
    parts += [_text(LEFT + WIDTH / 2, TOP + HEIGHT + 40, "requests a second, asked"), "</svg>"]
    return Markup("".join(parts))


def _line(line: LoadLine, ink: str, x: Callable[[float], float], scale: _Scale, taken: list[float]) -> list[str]:
    """A polyline through what was measured, each point with its interval and what it says."""
    known = [(x(one.rate), scale.y(one.value), one) for one in line.points if one.value is not None]
    way = " ".join(f"{at:.1f},{y:.1f}" for at, y, _ in known)
    parts = [f'<polyline points="{way}" fill="none" stroke="{ink}" stroke-width="2"/>']
    for at, y, point in known:
        low = y if point.low is None else scale.y(point.low)
        high = TOP if point.high is None else scale.y(point.high)
        fill = ink if point.valid else "var(--paper)"
        parts.append(f"<g><title>{escape(point.title)}</title>")
        parts.append(
            f'<line x1="{at:.1f}" y1="{low:.1f}" x2="{at:.1f}" y2="{high:.1f}" stroke="{ink}" stroke-width="1.5"/>'
        )
        if line.knee == point.rate:
            parts.append(f'<circle cx="{at:.1f}" cy="{y:.1f}" r="10" fill="none" stroke="{ink}" stroke-width="1.5"/>')
        parts.append(f'<circle cx="{at:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{ink}" stroke-width="2"/></g>')
    if known:
        label = known[-1][1] + 4
        while any(abs(label - other) < 14 for other in taken):
            label += 14
        taken.append(label)
        parts.append(_text(known[-1][0] + 12, label, line.name, "label", "start"))
    return parts


@dataclass(frozen=True)
class Spread:
    """One arm's quantiles of one latency: (share, seconds, low, high), None where not known."""

    name: str
    points: Sequence[tuple[float, float | None, float | None, float | None]]


def spreads(rows: Sequence[Spread], most_s: float | None) -> Markup:
    """p50, p95 and p99 of each arm on one logarithmic axis of time, with intervals."""
    values = [one for row in rows for point in row.points for one in point[1:] if one]
    scale = _Scale.over(values + ([most_s] if most_s else []))
    height, step = 30 + 34 * len(rows), 34

    def x(seconds: float) -> float:
        inside = min(max(seconds, scale.low), scale.high)
        return 150 + 480 * math.log(inside / scale.low) / math.log(scale.high / scale.low)

    parts = [_open(700, height + 26, "quantiles of each arm")]
    for tick in scale.ticks():
        parts += [_rule(x(tick), 8, x(tick), height, "grid"), _text(x(tick), height + 18, shown(tick))]
    if most_s:
        parts.append(_rule(x(most_s), 8, x(most_s), height, "margin"))
    for at, row in enumerate(rows):
        y, ink = 30 + step * at, INKS[at % len(INKS)]
        parts.append(_text(138, y + 4, _shortened(row.name), "label", "end"))
        for share, value, low, high in row.points:
            if value is None:
                continue
            left, right = x(value if low is None else low), 630.0 if high is None else x(high)
            title = f"{row.name}, p{100 * share:g}: {shown(value)}"
            parts += [
                f"<g><title>{escape(title)}</title>",
                f'<line x1="{left:.1f}" y1="{y}" x2="{right:.1f}" y2="{y}" stroke="{ink}" class="wide"/>',
                _dot(x(value), y, 5, ink),
                "</g>",
            ]
        parts += _labels([(x(value), f"p{100 * share:g}") for share, value, _, _ in row.points if value is not None], y)
    return Markup("".join([*parts, "</svg>"]))


def _shortened(name: str) -> str:
    """
    >>> _shortened("W4A16"), _shortened("gateway.example.org:8000#llama, 16")
    ('W4A16', '...rg:8000#llama, 16')
    """
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"


def _labels(marks: Sequence[tuple[float, str]], y: float) -> list[str]:
    """Names above their dots; those that would cover each other become one."""
    groups: list[tuple[float, str]] = []
    for at, name in marks:
        if groups and at - groups[-1][0] < 30:
            groups[-1] = at, f"{groups[-1][1]} {name}"
        else:
            groups.append((at, name))
    return [_text(at, y - 9, names) for at, names in groups]
