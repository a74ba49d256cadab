"""Plots as inline SVG: the interval of every capability against its margin, and size against the worst loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

COLOURS = {"pass": "var(--pass)", "fail": "var(--fail)", "inconclusive": "var(--open)"}


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

    parts = [_open(left + width + 20, height, "change per capability with its interval")]
    for tick in _ticks(low, high):
        parts += [
            _rule(x(tick), top - 6, x(tick), height - 22, "grid"),
            _text(x(tick), height - 6, f"{100 * tick:+.0f} %"),
        ]
    parts.append(_rule(x(0), top - 6, x(0), height - 22, "zero"))
    for index, bar in enumerate(bars):
        y, colour = top + row * index + row / 2, COLOURS[bar.verdict]
        beyond = max(0.0, x(-bar.margin) - x(low))
        parts += [
            f"<g><title>{escape(bar.title)}</title>",
            _text(left - 12, y + 4, bar.label, "label", "end"),
            f'<rect x="{x(low):.1f}" y="{y - 9:.1f}" width="{beyond:.1f}" height="18" class="beyond"/>',
            _rule(x(-bar.margin), y - 10, x(-bar.margin), y + 10, "margin"),
            _rule(x(bar.low), y, x(bar.high), y, "span", colour),
            _dot(x(bar.effect), y, 5.5, colour),
            "</g>",
        ]
    parts += [_text(x(0), 14, "no change"), _text(left, 14, "loss", anchor="start"), "</svg>"]
    return Markup("".join(parts))


@dataclass(frozen=True)
class Point:
    """One variant: megabytes, and the largest observed relative loss over its capabilities."""

    name: str
    megabytes: float
    loss: float  # fraction, 0 or more
    verdict: str
    chosen: bool


def frontier(points: Sequence[Point], baseline_mb: float) -> Markup:
    """Size against the worst capability's loss: down and to the left is better.

    The loss goes by its square root, so that small losses are told apart beside a ruined variant.
    """
    left, width, top, height = 60, 560, 16, 250
    right_edge = 1.05 * max([baseline_mb, *(point.megabytes for point in points)])
    worst = max([0.06, *(1.1 * point.loss for point in points)])

    def x(value: float) -> float:
        return left + width * value / right_edge

    def y(value: float) -> float:
        return top + height * (1 - math.sqrt(value / worst))

    parts = [_open(left + width + 90, top + height + 44, "size against worst loss")]
    parts += [
        _text(x(right_edge * step / 4), top + height + 18, f"{right_edge * step / 4:.1f} MB") for step in range(5)
    ]
    for loss in (one for one in (0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0) if one <= worst):
        parts.append(_rule(left, y(loss), left + width, y(loss), "grid"))
        parts.append(_text(left - 8, y(loss) + 4, f"{100 * loss:.0f} %", anchor="end"))
    parts.append(_rule(x(baseline_mb), top, x(baseline_mb), top + height, "zero"))
    parts.append(_text(x(baseline_mb) + 6, top + 12, "baseline", anchor="start"))
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda one: (one.megabytes, one.loss)):
        px, py = x(point.megabytes), y(point.loss)
        label = py - 10
        while any(abs(label - other) < 13 and abs(px - at) < 90 for at, other in taken):
            label -= 13  # two labels never cover each other
        taken.append((px, label))
        title = f"{escape(point.name)}: {point.megabytes:.2f} MB, worst loss {100 * point.loss:.1f} %"
        ring = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="11" class="ring"/>' if point.chosen else ""
        parts += [f"<g><title>{title}</title>{ring}", _dot(px, py, 6, COLOURS[point.verdict]), "</g>"]
        parts.append(_text(px, label, point.name, "label"))
    parts += [_text(left + width / 2, top + height + 38, "size on disk (all tensors)"), "</svg>"]
    return Markup("".join(parts))


INKS = ("var(--a)", "var(--b)", "var(--c)", "var(--d)", "var(--e)", "var(--f)")


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

    parts = [_open(left + width + 150, top + height + 44, f"{what} by {along}")]
    for decade in range(decades + 1):
        at = low * 10**decade
        parts += [
            _rule(left, y(at), left + width, y(at), "grid"),
            _text(left - 8, y(at) + 4, f"{100 * at:g} %" if unit == "%" else f"{at:g}", anchor="end"),
        ]
    for at in range(0, longest, max(1, longest // 8)):
        parts.append(_text(x(at), top + height + 18, ticks[at] if ticks else str(at)))
    taken: list[float] = []
    for index, (name, line) in sorted(enumerate(lines), key=lambda one: -one[1][1][-1]):
        ink, points = INKS[index % len(INKS)], " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(line))
        label = y(line[-1]) + 4
        while any(abs(label - other) < 13 for other in taken):
            label += 13
        taken.append(label)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="2"/>')
        parts += [_dot(x(at), y(value), 3, ink) for at, value in enumerate(line)]
        parts.append(_text(x(len(line) - 1) + 10, label, name, "label", "start"))
    parts += [_text(left + width / 2, top + height + 38, along if unit == "%" else f"{what} in {unit}, by {along}")]
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
    every = [dot for _, dots in rows for dot in dots]
    values = [one for dot in every for one in (dot.value, dot.low, dot.high) if one is not None and one > 0]
    low = 10 ** math.floor(math.log10(min(values))) if values else 1e-6
    decades = max(1, math.ceil(math.log10(max(values) / low) - 1e-9)) if values else 1
    names = list(dict.fromkeys(dot.name for dot in every))
    height = top + row * len(rows) + 26

    def x(value: float) -> float:
        return left + width * min(1.0, max(0.0, math.log10(max(value, low) / low) / decades))

    parts = [_open(left + width + 20, height, f"{what} by group")]
    for decade in range(decades + 1):
        at = low * 10**decade
        parts += [_rule(x(at), top - 6, x(at), height - 22, "grid"), _text(x(at), height - 6, f"{at:g}")]
    for index, name in enumerate(names):
        parts += [_dot(left + 110 * index, 10, 4, INKS[index % len(INKS)])]
        parts += [_text(left + 110 * index + 9, 14, name, "label", "start")]
    for index, (group, dots) in enumerate(rows):
        y = top + row * index + row / 2
        parts.append(_text(left - 12, y + 4, group, "label", "end"))
        for dot in dots:
            ink = INKS[names.index(dot.name) % len(INKS)]
            told = f"{dot.name}, {group}: {dot.value:.3g} {unit}"
            parts.append(f"<g><title>{escape(told)}</title>")
            if dot.low is not None and dot.high is not None:
                parts.append(_rule(x(dot.low), y, x(dot.high), y, "", ink))
            parts += [_dot(x(dot.value), y, 4, ink), "</g>"]
    parts.append("</svg>")
    return Markup("".join(parts))


def _open(width: float, height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}">'


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str, colour: str = "") -> str:
    style = f' stroke="{colour}"' if colour else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"{style}/>'


def _text(x: float, y: float, text: str, kind: str = "tick", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" stroke="var(--paper)" stroke-width="2"/>'


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

    parts = [_open(left + width + 90, height + 44, what)]
    for step in range(5):
        at = right_edge * step / 4
        parts += [_rule(x(at), top, x(at), height, "grid"), _text(x(at), height + 18, f"{at:.3g}")]
    for index, (name, value) in enumerate(points):
        y, ink = top + row * index + row / 2, INKS[0] if index == 0 else INKS[3]
        parts += [_text(left - 12, y + 4, name, "label", "end"), _rule(left, y, x(value), y, "span", ink)]
        parts += [_dot(x(value), y, 5, ink), _text(x(value) + 10, y + 4, f"{value:.3g}", "tick", "start")]
    parts += [_text(left + width / 2, height + 38, what), "</svg>"]
    return Markup("".join(parts))
