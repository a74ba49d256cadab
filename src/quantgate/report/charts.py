"""Plots as inline SVG: the interval of every capability against its margin, and size against the worst loss."""

from __future__ import annotations

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

    def x(value: float) -> float:
        return left + width * (min(max(value, low), high) - low) / (high - low)

    height = top + row * len(bars) + 24
    parts = [f'<svg viewBox="0 0 {left + width + 20} {height}" role="img" aria-label="change per capability with its interval">']
    for tick in _ticks(low, high):
        parts.append(f'<line x1="{x(tick):.1f}" y1="{top - 6}" x2="{x(tick):.1f}" y2="{height - 22}" class="grid"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 6}" class="tick" text-anchor="middle">{100 * tick:+.0f} %</text>')
    parts.append(f'<line x1="{x(0):.1f}" y1="{top - 6}" x2="{x(0):.1f}" y2="{height - 22}" class="zero"/>')
    for index, bar in enumerate(bars):
        y = top + row * index + row / 2
        colour = COLOURS[bar.verdict]
        parts.append(f"<g><title>{escape(bar.title)}</title>")
        parts.append(f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end" class="label">{escape(bar.label)}</text>')
        parts.append(f'<rect x="{x(low):.1f}" y="{y - 9:.1f}" width="{max(0, x(-bar.margin) - x(low)):.1f}" height="18" class="beyond"/>')
        parts.append(f'<line x1="{x(-bar.margin):.1f}" y1="{y - 10:.1f}" x2="{x(-bar.margin):.1f}" y2="{y + 10:.1f}" class="margin"/>')
        parts.append(f'<line x1="{x(bar.low):.1f}" y1="{y:.1f}" x2="{x(bar.high):.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="4" stroke-linecap="round"/>')
        parts.append(f'<circle cx="{x(bar.effect):.1f}" cy="{y:.1f}" r="5.5" fill="{colour}" stroke="var(--paper)" stroke-width="2"/></g>')
    parts.append(f'<text x="{x(0):.1f}" y="14" class="tick" text-anchor="middle">no change</text>')
    parts.append(f'<text x="{left}" y="14" class="tick">loss</text></svg>')
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
    """Size against the worst capability's loss: down and to the left is better."""
    left, width, top, height = 60, 560, 16, 250
    right_edge = 1.05 * max([baseline_mb, *(point.megabytes for point in points)])
    worst = max([0.08, *(1.15 * point.loss for point in points)])

    def x(value: float) -> float:
        return left + width * value / right_edge

    def y(value: float) -> float:
        return top + height * (1 - value / worst)

    parts = [f'<svg viewBox="0 0 {left + width + 90} {top + height + 44}" role="img" aria-label="size against worst loss">']
    for step in range(5):
        value = worst * step / 4
        parts.append(f'<line x1="{left}" y1="{y(value):.1f}" x2="{left + width}" y2="{y(value):.1f}" class="grid"/>')
        parts.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" class="tick" text-anchor="end">{100 * value:.0f} %</text>')
    for step in range(5):
        value = right_edge * step / 4
        parts.append(f'<text x="{x(value):.1f}" y="{top + height + 18}" class="tick" text-anchor="middle">{value:.1f} MB</text>')
    parts.append(f'<line x1="{x(baseline_mb):.1f}" y1="{top}" x2="{x(baseline_mb):.1f}" y2="{top + height}" class="zero"/>')
    parts.append(f'<text x="{x(baseline_mb) + 6:.1f}" y="{top + 12}" class="tick">baseline</text>')
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda one: (one.megabytes, one.loss)):
        px, py = x(point.megabytes), y(point.loss)
        label = py - 10
        while any(abs(label - other) < 13 and abs(px - at) < 90 for at, other in taken):
            label -= 13
        taken.append((px, label))
        ring = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="11" fill="none" stroke="var(--pass)" stroke-width="2"/>' if point.chosen else ""
        parts.append(f'{ring}<circle cx="{px:.1f}" cy="{py:.1f}" r="6" fill="{COLOURS[point.verdict]}"><title>{escape(point.name)}: {point.megabytes:.2f} MB, worst loss {100 * point.loss:.1f} %</title></circle>')
        parts.append(f'<text x="{px:.1f}" y="{label:.1f}" class="label" text-anchor="middle">{escape(point.name)}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 38}" class="tick" text-anchor="middle">size on disk (all tensors)</text></svg>')
    return Markup("".join(parts))


def _ticks(low: float, high: float) -> list[float]:
    """Round values between low and high, five or so."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        if (high - low) / step <= 8:
            break
    first = int(low / step)
    return [step * index for index in range(first, int(high / step) + 1)]
