"""Suites: one file per capability. A suite draws problems; this door turns them into cases with disjoint splits.

A suite's file ends with ``SUITE = Suite(...)``. Its ``draw(rng, difficulty)`` returns a ``Draft``: one problem, its
prompt and its answer. The door streams drafts from a seed, hashes each problem's *identity* (what makes it the same
problem, whatever the wording: ``"add 47 85"``) under a key, and so assigns it to one split. Two wordings of one problem
always land in the same split, so nothing that was trained or calibrated on can come back at the gate.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import JsonValue

from quantgate import plugins
from quantgate.engines import Ask
from quantgate.errors import DataError
from quantgate.records import Record, digest_of

Split = Literal["train", "calibrate", "tune", "gate"]
Difficulty = Literal["default", "hard"]
Role = Literal["system", "user", "assistant", "tool"]

SPLITS: dict[Split, float] = {"train": 0.70, "calibrate": 0.05, "tune": 0.10, "gate": 0.15}  # share of identities
SPLIT_KEY = b"quantgate splits 1"
PATIENCE = 2000  # drafts drawn per case wanted before a suite is called exhausted


class Message(Record):
    role: Role
    content: str


class Case(Ask):
    """One prompt with its reference. ``digest`` (inherited) names its content."""

    suite: str
    id: str  # unique inside its suite
    messages: tuple[Message, ...]  # ends with the turn the model must answer
    scorer: str  # plug-in name: exact, numeric, contains ...
    reference: JsonValue  # what that scorer needs to judge an answer
    slices: tuple[str, ...] = ()  # "name=value", e.g. "depth=0.5"
    answer: str | None = None  # one right answer, where the suite knows it; calibration and training use it


@dataclass(frozen=True)
class Draft:
    """One drawn problem, before it has an id and a split."""

    identity: str  # what makes it the same problem, whatever the wording
    messages: list[tuple[Role, str]]
    answer: str  # a right answer in the very form the prompt asks for
    scorer: str
    reference: Any
    slices: dict[str, str] = field(default_factory=dict)
    max_tokens: int = 64


@dataclass(frozen=True)
class Suite:
    """A capability: a generator of problems that any instruction-tuned model can be asked."""

    name: str
    about: str  # one line: what breaks for users when this capability breaks
    draw: Callable[[random.Random, Difficulty], Draft]
    margin: float = 0.03  # default relative loss allowed, fraction of the baseline


def names() -> tuple[str, ...]:
    return plugins.names("suites")


def get(name: str) -> Suite:
    return plugins.get("suites", name)  # type: ignore[no-any-return]


def split_of(suite: str, identity: str) -> Split:
    """The one split that a problem belongs to: a keyed hash of suite and identity."""
    raw = hashlib.blake2b(f"{suite}\0{identity}".encode(), key=SPLIT_KEY, digest_size=8).digest()
    point, total = int.from_bytes(raw, "big") / 2**64, 0.0
    for split, share in SPLITS.items():
        total += share
        if point < total:
            return split
    return "gate"


def drafts(suite: Suite, split: Split, seed: int, difficulty: Difficulty = "default") -> Iterator[Draft]:
    """Endless drafts of one split, in an order that depends on the seed alone."""
    rng = random.Random(f"{suite.name}/{split}/{difficulty}/{seed}")
    while True:
        draft = suite.draw(rng, difficulty)
        if split_of(suite.name, draft.identity) == split:
            yield draft


def cases(name: str, split: Split, count: int, *, seed: int = 0, difficulty: Difficulty = "default") -> list[Case]:
    """``count`` distinct cases of one split.

    Raises DataError when the suite cannot make that many different problems.
    """
    suite, seen, made, tries = get(name), set[str](), list[Case](), 0
    rng = random.Random(f"{name}/{split}/{difficulty}/{seed}")
    while len(made) < count:
        tries += 1
        if tries > PATIENCE * max(count, 10):
            raise DataError(
                f"suite '{name}': only {len(made)} different {difficulty} {split} cases; ask for at most that"
            )
        draft = suite.draw(rng, difficulty)
        if draft.identity in seen or split_of(name, draft.identity) != split:
            continue
        seen.add(draft.identity)
        made.append(case_from(name, draft, difficulty))
    return made


def case_from(suite: str, draft: Draft, difficulty: Difficulty) -> Case:
    messages = tuple(Message(role=role, content=content) for role, content in draft.messages)
    name = digest_of([suite, draft.identity, draft.messages])[7:19]
    slices = (f"difficulty={difficulty}", *(f"{key}={value}" for key, value in sorted(draft.slices.items())))
    return Case(
        suite=suite,
        id=f"{suite}-{name}",
        messages=messages,
        scorer=draft.scorer,
        reference=draft.reference,
        slices=slices,
        max_tokens=draft.max_tokens,
        answer=draft.answer,
    )
