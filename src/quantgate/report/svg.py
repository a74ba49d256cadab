"""What every plot is drawn with: lines, words, marks that differ by shape as well as colour, labels that never overlap.

Plots are inline SVG. Colours are the page's own (``var(--pass)`` ...), so that they follow light and dark. A plot that
must be read on a phone is drawn twice, once for each width of page: shrunk letters cannot be read.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

COLOURS = {"pass": "var(--pass)", "fail": "var(--fail)", "inconclusive": "var(--open)", "any": "var(--soft)"}
INKS = ("var(--a)", "var(--b)", "var(--c)", "var(--d)", "var(--e)", "var(--f)")
WIDE, NARROW = 600, 350  # of a drawing, in the units that its letters are 12 of

Box = tuple[float, float, float, float]  # left, top, right, bottom


def open_svg(width: float, height: float, label: str) -> str:
    """``label`` is what is read aloud in the drawing's place."""
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'


def rule(x1: float, y1: float, x2: float, y2: float, kind: str, colour: str = "") -> str:
    style = f' stroke="{colour}"' if colour else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"{style}/>'


def text(x: float, y: float, told: str, kind: str = "tick", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(told)}</text>'


def dot(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" stroke="var(--paper)" stroke-width="2"/>'


def mark(x: float, y: float, verdict: str, *, other_model: bool = False, trained: bool = False) -> str:
    """A full circle for pass, a cross for fail, a hollow triangle for what is not decided; a grey dot for any of them.

    The same, smaller, in a star for a model of its own, in a diamond where codes were trained, in both for both.
    """
    colour = COLOURS[verdict]
    around = (_diamond(x, y, 13 if other_model else 10, colour) if trained else "") + (
        _star(x, y, 10, colour) if other_model else ""
    )
    return around + _sign(x, y, verdict, 3.2) if around else _sign(x, y, verdict, 6)


def _diamond(x: float, y: float, size: float, colour: str) -> str:
    way = f"M{x:.1f},{y - size:.1f}l{size},{size}l{-size},{size}l{-size},{-size}z"
    return f'<path d="{way}" fill="var(--paper)" stroke="{colour}" stroke-width="1.5"/>'


def _sign(x: float, y: float, verdict: str, size: float) -> str:
    colour = COLOURS[verdict]
    if verdict in ("pass", "any"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="{colour}"/>'
    if verdict == "fail":
        both_ways = 2 * size
        way = f"M{x - size:.1f},{y - size:.1f}l{both_ways},{both_ways}m0,{-both_ways}l{-both_ways},{both_ways}"
        return f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="{size / 2:.1f}"/>'
    way = f"M{x:.1f},{y - size:.1f}l{size:.1f},{1.8 * size:.1f}h{-2 * size:.1f}z"
    return f'<path d="{way}" fill="var(--paper)" stroke="{colour}" stroke-width="2"/>'


def _star(x: float, y: float, size: float, colour: str) -> str:
    points = []
    for at in range(10):
        reach, angle = size if at % 2 == 0 else 0.55 * size, math.pi * (at / 5 - 0.5)
        points.append(f"{x + reach * math.cos(angle):.1f},{y + reach * math.sin(angle):.1f}")
    return f'<polygon points="{" ".join(points)}" fill="var(--paper)" stroke="{colour}" stroke-width="1.5"/>'


def square(x: float, y: float) -> str:
    """The baseline's mark."""
    return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" class="baseline"/>'


def width_of(told: str, size: float = 12.0) -> float:
    """About how wide a text is set in letters of ``size``; those of East Asia take twice as much."""
    return sum(size if unicodedata.east_asian_width(one) in "WF" else 0.62 * size for one in told)


def shortened(told: str, most: int) -> str:
    """
    >>> shortened("a-very-long-name", 8), shortened("W4A16", 8)
    ('a-very-…', 'W4A16')
    """
    return told if len(told) <= most else told[: most - 1] + "…"


def round_steps(high: float, count: int = 4) -> list[float]:
    """0 and about ``count`` round values up to ``high``.

    >>> round_steps(10.7)
    [0.0, 2.5, 5.0, 7.5, 10.0]
    """
    power = 10.0 ** math.floor(math.log10(high / count)) if high > 0 else 1.0
    step = next(one * power for one in (1, 2, 2.5, 5, 10) if one * power * count >= high * 0.8)
    return [step * at for at in range(int(high / step + 1e-9) + 1)]


class Labels:
    """Names beside their marks: each is put where nothing else stands, or left out; its mark's title still tells it."""

    def __init__(self, inside: Box, taken: Sequence[Box] = ()) -> None:
        self.inside, self.taken = inside, list(taken)

    def put(self, x: float, y: float, wordings: Sequence[str], kind: str = "label") -> str:
        """The first of ``wordings`` that finds room near (x, y), from near to far, with a line to one that is far."""
        for told in wordings:
            width = width_of(told)
            for away in (0.0, 16.0, 32.0, 48.0):
                for box in _places(x, y, width, away):
                    if self._free(box):
                        self.taken.append(box)
                        middle = (box[0] + box[2]) / 2
                        end = box[3] + 1 if box[3] < y else box[1] - 1
                        lead = rule(x, y, middle, end, "lead") if away else ""
                        return lead + text(middle, box[3] - 3, told, kind)
        return ""

    def _free(self, box: Box) -> bool:
        left, top, right, bottom = self.inside
        if box[0] < left or box[1] < top or box[2] > right or box[3] > bottom:
            return False
        return not any(overlap(box, other) for other in self.taken)


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _places(x: float, y: float, width: float, away: float) -> list[Box]:
    """Above, below, right and left of a mark; ``away`` further from it."""
    near, tall = 12.0, 14.0
    corners = [(x - width / 2, y - near - tall - away), (x - width / 2, y + near + away)]
    if not away:
        corners += [(x + near, y - tall / 2), (x - near - width, y - tall / 2)]
    corners += [(x + away / 2, y - near - tall - away), (x - width - away / 2, y - near - tall - away)]
    corners += [(x + away / 2, y + near + away), (x - width - away / 2, y + near + away)]
    return [(left, top, left + width, top + tall) for left, top in corners]


def both(draw: Callable[[int], Markup]) -> Markup:
    """The drawing for a wide page and, of which only one is shown, for a narrow one."""
    return Markup(f'<div class="on-wide">{draw(WIDE)}</div><div class="on-narrow">{draw(NARROW)}</div>')
