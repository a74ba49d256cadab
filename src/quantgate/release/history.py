"""What a registry tells of the past: the moves of a target's pointer, and what was decided about some bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from quantgate.records import Record
from quantgate.release import Live, Variant

What = Literal["open", "canary", "ramp", "promote", "holdback", "hold", "lift", "rollback", "rebase"]
WORDS: dict[What, str] = {
    "open": "opened",
    "canary": "canary",
    "ramp": "ramp",
    "promote": "promoted",
    "holdback": "holdback set",
    "hold": "held",
    "lift": "hold lifted",
    "rollback": "rolled back",
    "rebase": "new baseline",
}


class Move(Record):
    """One move of a target's pointer: who moved it, when, why, from where to where."""

    target: str
    revision: int  # that it led to
    at: str  # ISO 8601, UTC, by the clock of who moved it; the order is the revision's
    who: str
    what: What
    why: str = ""
    before: Live | None  # None: the target's first
    live: Live
    decision: str = ""  # digest of the decision that allowed it; empty where none is needed
    capacity: str = ""  # whether what a rollback went to was asked if it is up, and what it said
    details: dict[str, JsonValue] = Field(default={}, description="of a watch: signal, e-value, counts, examples")
    previous: str = ""  # digest of the move before, so that no move can be taken out or put in unseen


class Decided(Record):
    """The latest decision about a variant's bytes and engine on one target."""

    target: str
    decision: str  # digest
    variant: str  # as the decision calls it
    baseline: str  # digest of the weights that it was compared with
    verdict: Literal["pass", "fail", "inconclusive"]
    eligible: bool
    chosen: bool  # by the decision, among those that passed
    sentence: str
    at: str
    who: str

    @property
    def passed(self) -> bool:
        return self.verdict == "pass" and self.eligible


def was_stable(moves: list[Move] | tuple[Move, ...]) -> list[Variant]:
    """All that had the traffic of a target, the latest first, each once; the one that has it now among them."""
    found: list[Variant] = []
    for move in sorted(moves, key=lambda one: -one.revision):
        if not any(same(move.live.stable, one) for one in found):
            found.append(move.live.stable)
    return found


def same(one: Variant | None, other: Variant | None) -> bool:
    """Whether two are the same bytes in the same engine, wherever they lie and whatever they are called.

    A baseline is its weights: each machine that it was measured on has an engine of its own.
    """
    if one is None or other is None:
        return one is other
    if one.is_baseline or other.is_baseline:
        return one.is_baseline == other.is_baseline and one.artifact == other.artifact
    return (one.artifact, one.engine) == (other.artifact, other.engine)


def percent(share: float) -> str:
    """
    >>> percent(0.05), percent(0.125)
    ('5 %', '12.5 %')
    """
    return f"{100 * share:g} %"
