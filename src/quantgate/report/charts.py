"""Plots as inline SVG: the interval of every capability against its margin, curves and spreads of drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from quantgate.report.svg import COLOURS, INKS, dot, open_svg, rule, text


@dataclass(frozen=True)
class Bar:
    """One capability of one variant: the change with its interval, as fractions; negative is a loss."""

    label: str
    verdict: str
    effect: float
    low: float
    high: float
    margin: float
    title: str


def intervals(bars: Sequence[Bar]) -> Markup:
    """A forest plot: a dot for what was seen, a line for where the truth lies, a red rule for the margin."""
    left, width, row, top = 130, 470, 26, 26
    edge = max([0.05, *(1.4 * bar.margin for bar in bars), *(min(0.6, 1.05 * abs(bar.effect)) for bar in bars)])
    low, high = -edge, edge * 0.45
    height = top + row * len(bars) + 24

    def x(value: float) -> float:
        return left + width * (min(max(value, low), high) - low) / (high - low)

    parts = [open_svg(left + width + 20, height, "change per capability with its interval")]
    for tick in _ticks(low, high):
        parts += [
            rule(x(tick), top - 6, x(tick), height - 22, "grid"),
            text(x(tick), height - 6, f"{100 * tick:+.0f} %"),
        ]
    parts.append(rule(x(0), top - 6, x(0), height - 22, "zero"))
    for index, bar in enumerate(bars):
        y, colour = top + row * index + row / 2, COLOURS[bar.verdict]
        beyond = max(0.0, x(-bar.margin) - x(low))
        parts += [
            f"<g><title>{escape(bar.title)}</title>",
            text(left - 12, y + 4, bar.label, "label", "end"),
            f'<rect x="{x(low):.1f}" y="{y - 9:.1f}" width="{beyond:.1f}" height="18" class="beyond"/>',
            rule(x(-bar.margin), y - 10, x(-bar.margin), y + 10, "margin"),
            rule(x(bar.low), y, x(bar.high), y, "span", colour),
            dot(x(bar.effect), y, 5.5, colour),
            "</g>",
        ]
    parts += [text(x(0), 14, "no change"), text(left, 14, "loss", anchor="start"), "</svg>"]
    return Markup("".join(parts))


def curves(
    lines: Sequence[tuple[str, Sequence[float]]], along: str, what: str, *, ticks: Sequence[str] = (), unit: str = "%"
) -> Markup:
    """Lines over numbered blocks, or over ``ticks``, on a logarithmic scale, each with its name at its end.

    ``unit`` "%" shows fractions as percent; any other stands beside what is shown along.
    """
    left, width, top, height = 70, 500, 16, 240
    values = [value for _, line in lines for value in line if value > 0]
    low = 10 ** math.floor(math.log10(min(values))) if values else 1e-6
    high = 10 ** math.ceil(math.log10(max(values)) + 1e-9) if values else 1.0
    longest = max((len(line) for _, line in lines), default=1)
    decades = max(1, round(math.log10(high / low)))

    def x(at: int) -> float:
        return left + width * (at / (longest - 1) if longest > 1 else 0.5)

    def y(value: float) -> float:
        return top + height * (1 - math.log10(max(value, low) / low) / decades)

    parts = [open_svg(left + width + 150, top + height + 44, f"{what} by {along}")]
    for decade in range(decades + 1):
        at = low * 10**decade
        parts += [
            rule(left, y(at), left + width, y(at), "grid"),
            text(left - 8, y(at) + 4, f"{100 * at:g} %" if unit == "%" else f"{at:g}", anchor="end"),
        ]
    for at in range(0, longest, max(1, longest // 8)):
        parts.append(text(x(at), top + height + 18, ticks[at] if ticks else str(at)))
    taken: list[float] = []
    for index, (name, line) in sorted(enumerate(lines), key=lambda one: -one[1][1][-1]):
        ink, points = INKS[index % len(INKS)], " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(line))
        label = y(line[-1]) + 4
        while any(abs(label - other) < 13 for other in taken):
            label += 13
        taken.append(label)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="2"/>')
        parts += [dot(x(at), y(value), 3, ink) for at, value in enumerate(line)]
        parts.append(text(x(len(line) - 1) + 10, label, name, "label", "start"))
    parts += [text(left + width / 2, top + height + 38, along if unit == "%" else f"{what} in {unit}, by {along}")]
    return Markup("".join([*parts, "</svg>"]))


@dataclass(frozen=True)
class Dot:
    """One variant in one group: a mean above 0 and its interval, if there is one."""

    name: str
    value: float
    low: float | None
    high: float | None


def spreads(rows: Sequence[tuple[str, Sequence[Dot]]], what: str, unit: str) -> Markup:
    """A dot with its interval for every variant, one row for each group, on a logarithmic scale."""
    left, width, row, top = 190, 430, 22, 30
    every = [spot for _, spots in rows for spot in spots]
    values = [one for spot in every for one in (spot.value, spot.low, spot.high) if one is not None and one > 0]
    low = 10 ** math.floor(math.log10(min(values))) if values else 1e-6
    decades = max(1, math.ceil(math.log10(max(values) / low) - 1e-9)) if values else 1
    names = list(dict.fromkeys(spot.name for spot in every))
    height = top + row * len(rows) + 26

    def x(value: float) -> float:
        return left + width * min(1.0, max(0.0, math.log10(max(value, low) / low) / decades))

    parts = [open_svg(left + width + 20, height, f"{what} by group")]
    for decade in range(decades + 1):
        at = low * 10**decade
        parts += [rule(x(at), top - 6, x(at), height - 22, "grid"), text(x(at), height - 6, f"{at:g}")]
    for index, name in enumerate(names):
        parts += [dot(left + 110 * index, 10, 4, INKS[index % len(INKS)])]
        parts += [text(left + 110 * index + 9, 14, name, "label", "start")]
    for index, (group, spots) in enumerate(rows):
        y = top + row * index + row / 2
        parts.append(text(left - 12, y + 4, group, "label", "end"))
        for spot in spots:
            ink = INKS[names.index(spot.name) % len(INKS)]
            told = f"{spot.name}, {group}: {spot.value:.3g} {unit}"
            parts.append(f"<g><title>{escape(told)}</title>")
            if spot.low is not None and spot.high is not None:
                parts.append(rule(x(spot.low), y, x(spot.high), y, "", ink))
            parts += [dot(x(spot.value), y, 4, ink), "</g>"]
    parts.append("</svg>")
    return Markup("".join(parts))


def _ticks(low: float, high: float) -> list[float]:
    """Round values between low and high, five or so."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        if (high - low) / step <= 8:
            break
    return [step * index for index in range(int(low / step), int(high / step) + 1)]


def strip(points: Sequence[tuple[str, float]], what: str) -> Markup:
    """Values on one line each from zero on; the first is the one that the others are held against."""
    left, width, row, top = 130, 430, 24, 12
    right_edge = 1.15 * max((value for _, value in points), default=0.0) or 1.0
    height = top + row * len(points)

    def x(value: float) -> float:
        return left + width * value / right_edge

    parts = [open_svg(left + width + 90, height + 44, what)]
    for step in range(5):
        at = right_edge * step / 4
        parts += [rule(x(at), top, x(at), height, "grid"), text(x(at), height + 18, f"{at:.3g}")]
    for index, (name, value) in enumerate(points):
        y, ink = top + row * index + row / 2, INKS[0] if index == 0 else INKS[3]
        parts += [text(left - 12, y + 4, name, "label", "end"), rule(left, y, x(value), y, "span", ink)]
        parts += [dot(x(value), y, 5, ink), text(x(value) + 10, y + 4, f"{value:.3g}", "tick", "start")]
    parts += [text(left + width / 2, height + 38, what), "</svg>"]
    return Markup("".join(parts))
