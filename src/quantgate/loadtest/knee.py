"""Where a rate curve bends, and how far a limit of concurrency may go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from quantgate.loadtest.objectives import shown
from quantgate.records import Record

BEND = 0.2  # how far below its chord, of the whole height, a curve must sag to have a knee
RISE = 1.5  # the highest point over the lowest that a curve must have to bend at all


class RatePoint(Record):
    """One arm at one rate."""

    rate: float  # arriving, requests a second
    keeps_up: bool | None  # whether requests are answered as fast as they come; None: not known
    latency_s: float | None  # the watched quantile; None where it fell among lost requests
    kept: Literal["pass", "fail", "inconclusive", "none"]  # of all objectives; "none": there are none
    valid: bool


class Knee(Record):
    """What a rate curve says. None where the rates that were asked do not show it."""

    watched: str  # "ttft p95"
    knee: float | None  # the rate behind which latency rises faster than the rate does
    keeps_up: float | None  # the largest rate up to which, at each, requests are answered as fast as they come
    safe: float | None  # the largest rate up to which all objectives are proven kept
    sentence: str


def knee_of(points: Sequence[RatePoint], watched: str) -> Knee:
    """Of the valid points: the knee is the largest distance below the chord (Satopaa et al., Finding a Kneedle in a
    Haystack, ICDCSW 2011, for convex increasing curves); it takes four points, and a sag of a fifth of the height."""
    valid = sorted((one for one in points if one.valid), key=lambda one: one.rate)
    knee = bend([(one.rate, one.latency_s) for one in valid if one.latency_s is not None])
    up = _up_to(valid, lambda one: one.keeps_up is True)
    safe = _up_to(valid, lambda one: one.kept == "pass")
    if len(points) < 2:
        said = ["one rate shows no curve"]
    else:
        said = [f"{watched} bends at {knee:g}/s" if knee else f"{watched} shows no knee between the asked rates"]
        said += [_keeping_up(valid, up)]
    if any(one.kept != "none" for one in points):
        said.append(f"objectives proven up to {safe:g}/s" if safe else "objectives proven at none")
    return Knee(watched=watched, knee=knee, keeps_up=up, safe=safe, sentence="; ".join(said))


def _keeping_up(valid: Sequence[RatePoint], up: float | None) -> str:
    if up:
        return f"keeps up to {up:g}/s"
    if not valid:
        return "no run was valid, so nothing is told of it"
    if valid[0].keeps_up is None:
        return "too few requests, or too short stretches, to tell whether it keeps up"
    return "keeps up with none of the asked rates"


def bend(curve: Sequence[tuple[float, float]]) -> float | None:
    """The x of the knee of a convex increasing curve; a point above one to its right is taken to be noise.

    >>> bend([(1, 10.0), (2, 10.0), (3, 10.0), (4, 10.0), (5, 100.0)])
    4
    >>> bend([(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]) is None
    True
    """
    heights = [min(y for _, y in curve[at:]) for at in range(len(curve))]
    curve = [(x, y) for (x, _), y in zip(curve, heights, strict=True)]
    if len(curve) < 4 or curve[-1][1] < RISE * curve[0][1]:
        return None
    (x0, y0), (x1, y1) = curve[0], curve[-1]
    sag = [((x - x0) / (x1 - x0) - (y - y0) / (y1 - y0), x) for x, y in curve]
    depth, at = max(sag, key=lambda one: one[0])
    return at if depth >= BEND else None


def _up_to(points: Sequence[RatePoint], fits: Callable[[RatePoint], bool]) -> float | None:
    largest = None
    for one in points:
        if not fits(one):
            break
        largest = one.rate
    return largest


class LimitPoint(Record):
    """One arm under one limit of concurrency."""

    limit: int
    kept: Literal["pass", "fail", "inconclusive", "none"]
    latency_s: float | None  # the watched quantile


class Policy(Record):
    """The limit of concurrency to run with."""

    arm: str
    limit: int | None  # None: no tested limit is proven to keep the objectives
    sentence: str


def policy_of(arm: str, points: Sequence[LimitPoint], watched: str) -> Policy:
    """The largest tested limit under which every objective is proven kept.

    A larger one answers more at a time, and each of them later: a faster model invites larger batches and a worse
    tail. So it is taken for its throughput, and only as far as the tail's objective is proven.
    """
    fits = [one for one in points if one.kept == "pass"]
    if not fits:
        tried = ", ".join(str(one.limit) for one in sorted(points, key=lambda one: one.limit))
        sentence = f"{arm}: no tested limit ({tried}) is proven to keep the objectives"
        return Policy(arm=arm, limit=None, sentence=sentence)
    best = max(fits, key=lambda one: one.limit)
    beyond = [one for one in points if one.limit > best.limit]
    then = ""
    if beyond:
        first = min(beyond, key=lambda one: one.limit)
        then = f"; at {first.limit}, {watched} is {shown(first.latency_s)} ({first.kept})"
    sentence = f"{arm}: limit concurrency to {best.limit} ({watched} {shown(best.latency_s)}{then})"
    return Policy(arm=arm, limit=best.limit, sentence=sentence)
