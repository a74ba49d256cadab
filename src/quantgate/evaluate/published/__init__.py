"""Published suites: one file per benchmark that others publish, read as published and asked without a harness.

A suite's file ends with ``PUBLISHED = Published(...)``. Its ``tables`` say which files the publication has, what their
rows hold and where the same rows lie on the Hugging Face hub; its ``read`` turns rows into the cases that may judge a
variant. ``train`` does so for rows published for training, the only ones that calibration, drift and worked examples
may come from. A suite is refused, in one sentence, rather than read by halves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from quantgate import plugins
from quantgate.calibrate import Turns
from quantgate.errors import DataError, UnknownName
from quantgate.evaluate.published._hub import Hub
from quantgate.evaluate.published._tables import Rows, Table, rows_of
from quantgate.evaluate.suites import Case, Message
from quantgate.records import Record, digest_of, parse

Side = Literal["calibrate", "tune"]


class Options(Record):
    """What may be set of every published suite."""

    max_tokens: int | None = Field(default=None, ge=1, description="answer budget in tokens; left out, the suite's own")


class WithShots(Options):
    """What may be set of a suite that has rows for training."""

    shots: int = Field(default=0, ge=0, le=16, description="worked examples before each question, from training rows")


Reader = Callable[[Mapping[str, Rows], Any, int], list[Case]]  # rows by table, options, seed -> cases


@dataclass(frozen=True)
class Published:
    """A benchmark as published: its files, how its rows are asked, and under which licence they are."""

    name: str
    about: str  # one line: what breaks for users when this breaks
    margin: float  # default loss allowed, fraction of the baseline's score: what the suite's size can prove
    licence: str
    source: str  # repository and folder, or paper
    tables: Mapping[str, Table]
    read: Reader  # the cases of the test split
    train: Reader | None = None  # those of rows that are published for training
    options: type[Options] = Options
    guards: tuple[str, ...] = ()  # slices that must hold one by one: each is the positive control of the others


@dataclass(frozen=True)
class Loaded:
    """What was read: the cases that judge, and what stands before every question as a worked example."""

    cases: list[Case]
    shots: list[Turns]  # calibration side: question and answer each


def names() -> tuple[str, ...]:
    return plugins.names("published")


def get(name: str) -> Published:
    """Raises UnknownName with the nearest name."""
    if name not in names():
        raise UnknownName("published suite", name, names())
    return plugins.get("published", name)  # type: ignore[no-any-return]


def load(name: str, path: Path | None, options: Mapping[str, JsonValue] = {}, *, seed: int = 0) -> Loaded:
    """All test cases of a published suite, from ``path`` (its folder, or the file itself) or from the hub.

    ``seed`` fixes which language asks a row and which training rows are shown. Raises DataError for files that are not
    the published ones, UsageError for options that do not exist, MissingExtra where the hub's package is missing.
    """
    suite = get(name)
    wanted = parse(suite.options, dict(options), where=f"{name}: options")
    rows = rows_of(suite.name, suite.source, suite.tables, path)
    cases = suite.read(rows, wanted, seed)
    if wanted.max_tokens is not None:
        cases = [case.model_copy(update={"max_tokens": wanted.max_tokens}) for case in cases]
    _check(suite, cases, str(path or "the hub"))
    count = getattr(wanted, "shots", 0)
    if not count:
        return Loaded(cases, [])
    shots = _shots(suite, rows, wanted, count, seed)
    before = tuple(Message(role=role, content=text) for turns in shots for role, text in turns)  # type: ignore[arg-type]
    return Loaded([case.model_copy(update={"messages": (*before, *case.messages)}) for case in cases], shots)


def training(name: str, path: Path | None, side: Side, options: Mapping[str, JsonValue] = {}) -> list[Case]:
    """Cases from rows published for training, one of two disjoint halves; none where the files hold no such rows."""
    suite = get(name)
    if suite.train is None:
        return []
    wanted = parse(suite.options, dict(options), where=f"{name}: options")
    rows = rows_of(suite.name, suite.source, suite.tables, path)
    return [case for case in suite.train(rows, wanted, 0) if side_of(case) == side]


def side_of(case: Case) -> Side:
    """The half that a training case belongs to: a keyed hash of its question, whatever file it stands in."""
    text = f"{case.suite}\0{case.messages[-1].content}"
    return (
        "calibrate" if hashlib.blake2b(text.encode(), key=b"quantgate training halves 1").digest()[0] < 128 else "tune"
    )


def _shots(suite: Published, rows: Mapping[str, Rows], options: Options, count: int, seed: int) -> list[Turns]:
    """``count`` worked examples in a seeded order, from the half that calibration may see."""
    known = suite.train(rows, options, seed) if suite.train else []
    known = [case for case in known if case.answer is not None and side_of(case) == "calibrate"]
    if len(known) < count:
        raise DataError(
            f"{suite.name}: options: {count} shots need as many training rows, {len(known)} are there; put the file "
            f"of training rows beside the other one (see {suite.source}), or ask with fewer shots"
        )
    known.sort(key=lambda case: digest_of(["shot", seed, case.id]))
    return [(("user", case.messages[-1].content), ("assistant", case.answer or "")) for case in known[:count]]


def _check(suite: Published, cases: Sequence[Case], where: str) -> None:
    """Raises DataError for no case, ids or whole cases that occur twice, and for a control that is missing."""
    if not cases:
        raise DataError(f"{where}: holds no test case of {suite.name}; expected the files of {suite.source}")
    for what, keys in (
        ("id", [case.id for case in cases]),
        ("question", [case.model_copy(update={"id": "", "slices": ()}).digest for case in cases]),
    ):
        seen: dict[str, str] = {}
        for key, case in zip(keys, cases, strict=True):
            if key in seen:
                raise DataError(f"{where}: the {what} of '{seen[key]}' occurs twice in {suite.name}; keep one of them")
            seen[key] = case.id
    for guard in suite.guards:
        if not any(guard in case.slices for case in cases):
            others = " and ".join(one for one in suite.guards if one != guard)
            raise DataError(
                f"{where}: no case of {suite.name} has {guard}, and {others} alone proves nothing (a model that does "
                f"always the same would pass); add the file that holds such cases"
            )


def balanced(cases: Sequence[Case], guards: Sequence[str], count: int) -> list[Case]:
    """At most ``count`` cases in their order, as many of every guard as there can be.

    >>> def one(number, kind):
    ...     return Case(suite="s", id=str(number), messages=(), scorer="exact", reference="", slices=(kind,))
    >>> cases = [one(n, "kind=a") for n in range(5)] + [one(n, "kind=b") for n in range(5, 7)]
    >>> [case.id for case in balanced(cases, ["kind=a", "kind=b"], 5)]
    ['0', '1', '2', '5', '6']
    """
    if not guards:
        return list(cases[:count])
    groups = [[case for case in cases if guard in case.slices] for guard in guards]
    taken = [0] * len(groups)
    while sum(taken) < count and any(have < len(group) for have, group in zip(taken, groups, strict=True)):
        open_ = [at for at, group in enumerate(groups) if taken[at] < len(group)]
        taken[min(open_, key=lambda at: taken[at])] += 1
    kept = {case.id for have, group in zip(taken, groups, strict=True) for case in group[:have]}
    return [case for case in cases if case.id in kept]


__all__ = [
    "Hub",
    "Loaded",
    "Options",
    "Published",
    "Rows",
    "Table",
    "WithShots",
    "balanced",
    "get",
    "load",
    "names",
    "side_of",
    "training",
]
