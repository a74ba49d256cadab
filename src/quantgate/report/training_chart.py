"""The curve of a training run as inline SVG: what was minimised, and the distance to the teacher, over steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from markupsafe import Markup, escape

from quantgate.report.svg import both, dot, open_svg, rule, text

LEFT, HEIGHT, TOP = 58, 260, 26
POINTS = 160  # of the loss that are drawn; more are averaged
FINE = 4  # powers of ten from which on only they are ticked
Point = tuple[int, float]
Place = Callable[[float], float]


def training_curve(loss: Sequence[Point], kl: Sequence[Point], best: int) -> Markup:
    """``loss`` and tune ``kl`` in nats by step, on one logarithmic axis; ``best`` is the step that was kept."""
    return both(partial(_drawn, loss, kl, best))


def averaged(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most ``most`` points, each the mean of its neighbours.

    >>> averaged([(1, 4.0), (2, 2.0), (3, 1.0), (4, 3.0)], most=2)
    [(2, 3.0), (4, 2.0)]
    """
    size = max(1, math.ceil(len(points) / most))
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _drawn(loss: Sequence[Point], kl: Sequence[Point], best: int, width: int) -> Markup:
    line = averaged(loss)
    ticks = log_ticks([value for _, value in (*line, *kl)])
    last = max([1, *(step for step, _ in (*loss, *kl))])
    right, bottom = width - 16.0, TOP + HEIGHT

    def x(step: float) -> float:
        return LEFT + (right - LEFT) * step / last

    def y(value: float) -> float:
        inside = min(max(value, ticks[0]), ticks[-1])
        return bottom - HEIGHT * math.log(inside / ticks[0]) / math.log(ticks[-1] / ticks[0])

    parts = [open_svg(width, bottom + 44, "loss and tune KL over the steps of training")]
    for tick in ticks:
        parts += [rule(LEFT, y(tick), right, y(tick), "grid"), text(LEFT - 8, y(tick) + 4, f"{tick:g}", anchor="end")]
    for step in step_ticks(last, 5 if width > 500 else 3):
        parts.append(text(min(x(step), right - 8), bottom + 18, f"{step:,}"))
    parts.append(_line(line, x, y, "var(--soft)", 1))
    parts += [*_looks(kl, best, x, y), text((LEFT + right) / 2, bottom + 38, "optimizer steps")]
    return Markup("".join([*parts, *_legend(bool(line), best), "</svg>"]))


def _looks(kl: Sequence[Point], best: int, x: Place, y: Place) -> list[str]:
    """The tune KL, a dot for each look, a ring around the one whose state was kept."""
    parts = [_line(kl, x, y, "var(--a)", 2)]
    for step, value in kl:
        parts.append(f"<g><title>{escape(f'step {step:,}: tune KL {value:.4g} nats')}</title>")
        parts.append(dot(x(step), y(value), 4, "var(--a)"))
        if step == best:
            parts.append(f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="8" class="ring"/>')
        parts.append("</g>")
    return parts


def _line(points: Sequence[Point], x: Place, y: Place, ink: str, wide: float) -> str:
    places = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
    return f'<polyline points="{places}" fill="none" stroke="{ink}" stroke-width="{wide}"/>'


def _legend(loss: bool, best: int) -> list[str]:
    parts = [dot(LEFT + 6, 10, 4, "var(--a)"), text(LEFT + 16, 14, "tune KL, nats", "label", "start")]
    at = LEFT + 122
    parts += [
        f'<circle cx="{at}" cy="10" r="6" class="ring"/>',
        text(at + 12, 14, f"kept: step {best:,}", "label", "start"),
    ]
    if loss:
        at += 122 if best < 1000 else 136
        parts += [rule(at, 10, at + 14, 10, "seen"), text(at + 20, 14, "loss", "label", "start")]
    return parts


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round values that hold all of ``values`` between the first and the last.

    >>> log_ticks([0.3, 0.021])
    [0.02, 0.05, 0.1, 0.2, 0.5]
    """
    known = [one for one in values if 0 < one < math.inf] or [0.1, 1.0]
    low, high = min(known), max(known)
    # one power more below: the logarithm of 999999.9999999999 is 6
    powers = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
    every = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    if len(powers) - 1 > FINE:
        every = [float(f"1e{power}") for power in powers]
    start = max(at for at, one in enumerate(every) if one <= low)
    end = min(at for at, one in enumerate(every) if one >= high and at > start)
    return every[start : end + 1]


def step_ticks(last: int, count: int) -> list[int]:
    """0, and about ``count`` round steps up to the last.

    >>> step_ticks(400, 5), step_ticks(7, 5)
    ([0, 100, 200, 300, 400], [0, 2, 4, 6])
    """
    power = 10 ** max(0, math.floor(math.log10(max(1, last))) - 1)
    wide = next(one * power for one in (1, 2, 5, 10, 20, 50, 100) if last / (one * power) <= count)
    return list(range(0, last + 1, int(wide)))
