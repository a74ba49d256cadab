"""Size or cost against the worst capability bound: which variants are small, and how near each is to its margin.

A variant's height is the least, over its capabilities and judged slices, of the lower bound of the change over the
margin: 0 where no loss at all is possible, -1 at the margin's edge, -2 where twice the margin may be lost. Below the
edge the scale is logarithmic, so that a ruined variant does not press the others together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup, escape

from quantgate.report.svg import (
    Box,
    Labels,
    both,
    mark,
    open_svg,
    round_steps,
    rule,
    shortened,
    square,
    text,
    width_of,
)  # fmt: skip

QAT, DISTILL = "qat", "distill"
WORDS = {"pass": "passes", "fail": "fails", "inconclusive": "not decided"}
TRAINED = {DISTILL: "distilled", QAT: "its codes trained (QAT)"}
LEAST = -20.0  # margins; what is worse stands there
LEFT, HEIGHT = 46, 250


@dataclass(frozen=True)
class Worst:
    """The worst of a variant's bounds, in margins; None where one of them is not known."""

    bound: float | None
    seen: float | None  # the change that was seen there, in margins
    about: str  # the capability or slice; where nothing is known, what is missing


@dataclass(frozen=True)
class Point:
    """One variant."""

    name: str
    across: float | None  # in the axis' unit; None: not known
    worst: Worst
    verdict: str
    chosen: tuple[str, ...] = ()  # what it is chosen for
    other_model: str = ""  # "student" and the like; empty: made of the baseline's weights
    trained: tuple[str, ...] = ()  # QAT, DISTILL; empty: rounded after training, or not at all


@dataclass(frozen=True)
class Axis:
    """What is shown across."""

    what: str  # "size of all tensors"
    unit: str  # "MB"
    baseline: float | None


def size_axis(baseline_bytes: int, sizes: Sequence[int]) -> tuple[Axis, float]:
    """The axis, and what bytes are divided by."""
    unit, scale = ("GB", 1e9) if max([baseline_bytes, *sizes]) >= 1e9 else ("MB", 1e6)
    return Axis("size of all tensors", unit, baseline_bytes / scale), scale


def frontier(points: Sequence[Point], axis: Axis) -> Markup:
    """To the left is smaller, or cheaper; up is nearer to no loss at all."""
    return both(partial(_drawn, points, axis))


@dataclass(frozen=True)
class _Frame:
    """Where the axes lie in a drawing ``width`` wide."""

    width: int
    most: float  # across
    high: float  # of the margins shown, at the top
    low: float
    strip: bool  # below: variants without a bound
    top: float

    @classmethod
    def around(cls, points: Sequence[Point], axis: Axis, width: int, top: float) -> _Frame:
        known = [point.worst.bound for point in points if point.worst.bound is not None]
        across = [one for one in (axis.baseline, *(point.across for point in points)) if one is not None]
        return cls(
            width=width,
            most=1.06 * (max(across, default=1.0) or 1.0),
            high=max([0.3, *(1.15 * one for one in known)]),
            low=max(LEAST, min([-1.6, *(1.2 * one for one in known)])),
            strip=any(point.worst.bound is None for point in points),
            top=top,
        )

    @property
    def right(self) -> float:
        return self.width - 14.0

    @property
    def bottom(self) -> float:
        return self.top + HEIGHT

    @property
    def unknown_y(self) -> float:
        return self.bottom + 26

    @property
    def end(self) -> float:
        """Below everything that is drawn between the axes."""
        return self.bottom + (46 if self.strip else 0)

    def x(self, across: float) -> float:
        return LEFT + (self.right - LEFT) * across / self.most

    def y(self, bound: float | None) -> float:
        if bound is None:
            return self.unknown_y
        high, low = _bent(self.high), _bent(self.low)
        return self.top + HEIGHT * (high - _bent(max(bound, self.low))) / (high - low)


def _bent(bound: float) -> float:
    """As it is down to -1, and from there by its logarithm."""
    return bound if bound >= -1 else -1 - math.log(-bound)


def _drawn(points: Sequence[Point], axis: Axis, width: int) -> Markup:
    legend, top = _legend(points, width)
    frame = _Frame.around(points, axis, width, top + 36)
    placed = [(one, frame.x(one.across), frame.y(one.worst.bound)) for one in points if one.across is not None]
    title = f"{'Size' if axis.unit in ('MB', 'GB') else 'Cost'} against the worst capability bound"
    parts = [open_svg(width, frame.end + 46, f"{title}: {_told(points)}"), text(0, 14, title, "head", "start"), legend]
    parts.append(text(0, top + 20, "worst bound, in margins", anchor="start"))
    parts += _axes(frame, axis)
    labels = _room(frame, axis, placed)
    if axis.baseline is not None:
        x, y = frame.x(axis.baseline), frame.y(0)
        told = f"baseline: {_amount(axis.baseline, axis)}, what all are held against"
        parts += [f"<g><title>{told}</title>", square(x, y), "</g>", labels.put(x, y, ["baseline"])]
    for point, x, y in sorted(placed, key=lambda one: bool(one[0].chosen)):
        parts += _mark(frame, point, axis, x, y)
    for point, x, y in sorted(placed, key=lambda one: _worth_a_name(one[0])):
        parts.append(labels.put(x, y, list(_wordings(point, width)), "label picked" if point.chosen else "label"))
    return Markup("".join([*parts, "</svg>"]))


def _room(frame: _Frame, axis: Axis, placed: Sequence[tuple[Point, float, float]]) -> Labels:
    """Where names may stand: beside all marks, their lines, and what the axes say inside."""
    taken: list[Box] = [(x - 11, y - 11, x + 11, y + 11) for _, x, y in placed]
    for point, x, y in placed:
        if point.worst.seen is not None and point.worst.bound is not None:
            seen = frame.y(min(point.worst.seen, frame.high))
            taken.append((x - 2, min(y, seen), x + 2, max(y, seen)))
    edge = frame.y(-1)
    taken.append((LEFT, edge - 15, LEFT + width_of("margin's edge") + 10, edge - 1))
    if axis.baseline is not None:
        x, y = frame.x(axis.baseline), frame.y(0)
        taken.append((x - 9, y - 9, x + 9, y + 9))
    return Labels((LEFT + 2, frame.top - 2, frame.width, frame.end + 4), taken)


def _worth_a_name(point: Point) -> tuple[bool, bool, float]:
    """Where not all names have room: the chosen first, then those that pass, the small ones before the large."""
    return not point.chosen, point.verdict != "pass", point.across or 0.0


def _wordings(point: Point, width: int) -> Iterator[str]:
    """From the longest to the shortest that still names the variant."""
    name = shortened(point.name, 26 if width > 500 else 16)
    chosen = f", {_for(point.chosen)}" if point.chosen else ""
    if point.worst.bound is not None:
        yield f"{name} ({shortened(point.worst.about, 22)}){chosen}"
    yield f"{name}{chosen}"
    yield name


def _for(targets: Sequence[str]) -> str:
    if not any(targets):
        return "chosen"
    return f"for {shortened(' and '.join(targets), 28)}" if len(targets) < 3 else f"for {len(targets)} targets"


def _mark(frame: _Frame, point: Point, axis: Axis, x: float, y: float) -> Iterator[str]:
    yield f"<g><title>{escape(_sentence(point, axis))}</title>"
    if point.worst.seen is not None and point.worst.bound is not None:
        yield rule(x, y, x, frame.y(min(point.worst.seen, frame.high)), "seen")
    if point.chosen:
        reach = 10.5 + 2.5 * bool(point.other_model) + 2.5 * (QAT in point.trained)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{reach}" class="ring"/>'
    yield mark(x, y, point.verdict, other_model=bool(point.other_model), trained=QAT in point.trained)
    yield "</g>"


def _sentence(point: Point, axis: Axis) -> str:
    """Of one mark.

    >>> _sentence(Point("W4A16", 3.2, Worst(-0.8, -0.2, "math"), "pass", ("",)), Axis("size", "MB", 10.0))
    'W4A16: 3.20 MB, passes; worst bound -0.80 margins (math), seen -0.20; chosen'
    """
    worst = point.worst
    told = f"worst bound not known ({worst.about})"
    if worst.bound is not None:
        seen = "" if worst.seen is None else f", seen {worst.seen:.2f}"
        told = f"worst bound {worst.bound:.2f} margins ({worst.about}){seen}"
    across = "" if point.across is None else f" {_amount(point.across, axis)},"
    own = f" a model of its own ({point.other_model})," if point.other_model else ""
    own += "".join(f" {TRAINED[one]}," for one in point.trained)
    targets = [one for one in point.chosen if one]
    chosen = f"; chosen for {', '.join(targets)}" if targets else "; chosen" if point.chosen else ""
    return f"{point.name}:{across}{own} {WORDS[point.verdict]}; {told}{chosen}"


def _amount(across: float, axis: Axis) -> str:
    return f"{across:.2f} {axis.unit}" if axis.unit in ("MB", "GB") else f"{across:.3g} {axis.unit}"


def _told(points: Sequence[Point]) -> str:
    """For those who do not see it."""
    words = {"pass": "pass", "fail": "fail", "inconclusive": "not decided"}
    parts = [f"{sum(one.verdict == kind for one in points)} {word}" for kind, word in words.items()]
    chosen = ", ".join(one.name for one in points if one.chosen)
    return f"{', '.join(parts)}; {f'chosen: {chosen}' if chosen else 'none is chosen'}"


def _axes(frame: _Frame, axis: Axis) -> Iterator[str]:
    bottom, edge = frame.bottom, frame.y(-1)
    yield (
        f'<rect x="{LEFT}" y="{edge:.1f}" width="{frame.right - LEFT:.1f}" '
        f'height="{bottom - edge:.1f}" class="beyond"/>'
    )
    for bound in (1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -5.0, -10.0, -20.0):
        if frame.low <= bound <= frame.high:
            y, kind = frame.y(bound), {0.0: "zero", -1.0: "margin"}.get(bound, "grid")
            yield rule(LEFT, y, frame.right, y, kind)
            yield text(LEFT - 8, y + 4, f"{bound:g}", anchor="end")
    yield text(LEFT + 6, edge - 5, "margin's edge", "edge", "start")
    if frame.strip:
        yield rule(LEFT, bottom, frame.right, bottom, "grid")
        yield text(LEFT - 8, frame.unknown_y + 4, "none", anchor="end")
    for step in round_steps(frame.most, 4 if frame.width > 500 else 3):
        yield text(frame.x(step), frame.end + 18, f"{step:g}")
    yield text((LEFT + frame.right) / 2, frame.end + 38, f"{axis.what}, {axis.unit}")


def _legend(points: Sequence[Point], width: int) -> tuple[str, float]:
    """The marks that occur and what they say, in as many lines as they take; and where the last of these ends."""
    signs = [(kind, word) for kind, word in WORDS.items() if any(one.verdict == kind for one in points)]
    signs += [("chosen", "chosen")] if any(one.chosen for one in points) else []
    signs += _kinds(points)
    signs += [("seen", "from the bound to what was seen")] if any(one.worst.seen is not None for one in points) else []
    x, y, parts = 8.0, 38.0, list[str]()
    for kind, word in signs:
        needs = 14 + width_of(word) + 22
        if x + needs > width and x > 8:
            x, y = 8.0, y + 18
        parts += [_sign(kind, x, y - 4), text(x + 14, y, word, anchor="start")]
        x += needs
    return "".join(parts), y + 4


def _kinds(points: Sequence[Point]) -> list[tuple[str, str]]:
    """Marks that tell how the numbers of a variant came about, where not all of them came about alike."""
    own, trained = [one for one in points if one.other_model], any(one.trained for one in points)
    plain = any(not one.other_model and not one.trained for one in points)
    star = "distilled student" if own and all(DISTILL in one.trained for one in own) else "a model of its own"
    found = [("any", "rounded after training")] if trained and plain else []
    found += [(QAT, "QAT: trained with its rounding")] if any(QAT in one.trained for one in points) else []
    return found + ([("other", star)] if own else [])


def _sign(kind: str, x: float, y: float) -> str:
    if kind == "chosen":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="ring"/>'
    if kind == "seen":
        return rule(x, y - 7, x, y + 7, "seen")
    if kind in ("other", QAT):
        return mark(x, y, "any", other_model=kind == "other", trained=kind == QAT)
    return mark(x, y, kind)
