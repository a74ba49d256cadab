"""Tailored suites: one file per capability whose cases are made for a model's tokenizer and context, or for traffic.

A suite's file ends with ``TAILORED = Tailored(...)``. Its ``cells`` say what is crossed (depth x length, rounds,
kinds); the cases go round them, so every cell has as many as any other, within one. Its ``draw`` returns the *identity*
of one problem, which is hashed into one split as those of built-in suites are, and a function that writes it; only
problems of the split asked for are written, since fitting a text to a length in tokens takes time.

    wanted = order_of(name, {"lengths": [512, 1024]})
    made = cases(name, place, wanted, split="gate", count=400, seed=0)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from pydantic import Field, JsonValue

from quantgate import plugins
from quantgate.calibrate import Turns
from quantgate.errors import DataError, UsageError
from quantgate.evaluate.suites import PATIENCE, Case, Draft, Split, case_from, split_of
from quantgate.records import Record, digest_of, parse

ENOUGH = 0.95  # of a length, below which a haystack is too short for it
NEAR, ENDS = 6, (".", " .", " so", " ...")  # sizes below the best that are tried as well, and what behind each
HELD_OUT = ("tune", "gate")  # splits of traffic that calibration leaves alone where cases are made of it
Tool = dict[str, JsonValue]


@dataclass(frozen=True, eq=False)
class Place:
    """What cases are made for: how its tokenizer cuts texts and whole prompts, its context, and the user's traffic."""

    encode: Callable[[str], list[int]]  # a text's ids, nothing added
    measure: Callable[[Turns, Sequence[Tool]], int]  # tokens of a prompt as the model reads it, template and all
    context: int  # tokens, answers included
    traffic: Sequence[Turns] = ()


@dataclass(frozen=True)
class Piece(Draft):
    """A draft that may offer functions or ask for a form."""

    tools: tuple[Tool, ...] = ()
    answer_schema: dict[str, JsonValue] = field(default_factory=dict)


class Options(Record):
    """What may be set of a suite under ``options``."""


class Lengths(Options):
    """Options of a suite that fills contexts."""

    lengths: tuple[int, ...] = Field(
        default=(), description="tokens of the whole prompt; left out, powers of two from 512 that fit the context"
    )
    depths: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0), description="where the answer stands, 0 the beginning and 1 the end"
    )


Problem = tuple[str, Callable[[], Piece]]  # identity, and what writes it
Draw = Callable[[random.Random, Any, Place, Any], Problem]  # chance, cell, place, options


@dataclass(frozen=True)
class Tailored:
    """A capability whose cases fit one model, or one product's traffic."""

    name: str
    about: str  # one line: what breaks for users when this breaks
    options: type[Options]
    cells: Callable[[Place, Any], Sequence[Any]]
    draw: Draw
    margin: float = 0.03  # loss allowed, fraction of the baseline's score
    of_traffic: bool = False  # its cases are made of the user's conversations


def names() -> tuple[str, ...]:
    return plugins.names("tailored")


def get(name: str) -> Tailored:
    return plugins.get("tailored", name)  # type: ignore[no-any-return]


def order_of(name: str, options: Mapping[str, JsonValue]) -> Options:
    """The options of a suite, checked. Raises UsageError with the nearest known key."""
    return parse(get(name).options, dict(options), where=f"{name}: options")


def cases(
    name: str, place: Place, options: Options, *, split: Split, count: int, seed: int = 0, capability: str = ""
) -> list[Case]:
    """``count`` distinct cases of one split; the same for the same tokenizer, options, traffic, split and seed.

    Raises UsageError for options that the context cannot hold, DataError when the suite cannot make that many different
    problems.
    """
    suite, made, seen, tries = get(name), list[Case](), set[str](), 0
    if suite.of_traffic:
        place = replace(place, traffic=[one for one in place.traffic if held_out(one) == split])
    cells = suite.cells(place, options)
    if not cells:
        raise UsageError(f"{name}: options leave nothing to ask; give every list at least one entry")
    rng = random.Random(f"{name}/{split}/{seed}")
    while len(made) < count:
        tries += 1
        if tries > PATIENCE * max(count, 10):
            raise DataError(f"suite '{name}': only {len(made)} different {split} cases; ask for at most that")
        identity, write = suite.draw(rng, cells[len(made) % len(cells)], place, options)
        if identity in seen or _split(suite, identity) != split:
            continue
        seen.add(identity)
        made.append(_case(name, write(), capability or name))
    return made


def _split(suite: Tailored, identity: str) -> Split:
    """By what stands before a NUL, if there is one. Traffic is split already, so its words are shared among two."""
    found = split_of(suite.name, identity.partition("\0")[0])
    if not suite.of_traffic:
        return found
    return "tune" if found in ("tune", "calibrate") else "gate"


def _case(name: str, piece: Piece, capability: str) -> Case:
    case = case_from(name, piece, "default")
    update: dict[str, Any] = {"suite": capability, "slices": case.slices[1:]}  # there is one difficulty
    if piece.tools or piece.answer_schema:
        update |= {"tools": piece.tools, "answer_schema": piece.answer_schema}
    return case.model_copy(update=update)


def grid(place: Place, options: Lengths, name: str, budget: int) -> list[tuple[int, float]]:
    """Every length with every depth. Raises UsageError for a length that leaves no room for ``budget`` tokens."""
    room = place.context - budget
    lengths = options.lengths or tuple(at for at in (2**power for power in range(9, 21)) if at <= room) or (room,)
    for length in lengths:
        if not 1 <= length <= room:
            raise UsageError(
                f"{name}: options: a prompt of {length} tokens and an answer of {budget} do not fit the context of "
                f"{place.context}; ask for lengths up to {room}"
            )
    for depth in options.depths:
        if not 0 <= depth <= 1:
            raise UsageError(f"{name}: options: depth {depth:g} is not between 0 and 1")
    return [(length, depth) for length in lengths for depth in options.depths]


def fitted(
    text: Callable[[int, str], str], most: int, length: int, tokens: Callable[[str], int], ends: Sequence[str] = ENDS
) -> str:
    """A ``text(size, end)`` of ``length`` tokens where there is one near the best, else the longest with fewer.

    ``text`` grows with its size, up to ``most``; ``ends`` are marks that may stand behind its filling, for a character
    more can be two tokens more. Raises DataError where even the smallest is too long, or the largest falls short by
    more than a twentieth.
    """
    low, ceiling, best, size, tries = -1, most + 1, "", min(most, 4 * length), 0
    while ceiling - low > 1:
        tries += 1
        shown = text(size, "")
        found = tokens(shown)
        if found == length:
            return shown
        if found < length:
            low, best = size, shown
        else:
            ceiling = size
        aim = size * length // max(1, found) if tries % 3 else (low + ceiling) // 2  # a guess, and at times a half
        size = min(max(aim, low + 1), ceiling - 1)
    if low < 0:
        raise DataError(f"a prompt of {length} tokens is too short for its question; ask for longer ones")
    if low == most and tokens(best) < length * ENOUGH:
        raise DataError(f"the text at hand fills {tokens(best)} of {length} tokens; give a longer one")
    for near, end in product(range(low, max(0, low - NEAR) - 1, -1), ends):
        shown = text(near, end)
        if tokens(shown) == length:
            return shown
    return best


def held_out(turns: Turns) -> Split:
    """The split of one conversation of the user's traffic: a keyed hash of its text.

    Where a release makes cases of its traffic, calibration takes no conversation of the splits ``HELD_OUT``.
    """
    return split_of("traffic", digest_of(turns))
