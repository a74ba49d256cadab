"""Ours against the peers: who is comparable, who is best, and whether a goal is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EQUAL_BITS = 0.05  # bits a weight that an equal may have more than the one it is compared with


@dataclass(frozen=True)
class Score:
    """One artifact, judged. ``kl`` is None where there is none, and ``failed`` says why."""

    tool: str
    setting: str
    bits: float = 0.0  # stored bits a weight over all linear layers but the head, scales and zero points included
    kl: float | None = None  # mean KL divergence to the baseline, nats a token
    seconds: float = 0.0  # of making it, imports left out
    together: int = 1  # artifacts that were made in these seconds
    note: str = ""
    failed: str = ""
    peer: bool = False


@dataclass(frozen=True)
class Against:
    """One score of ours beside the best comparable peer; without one there is no ratio, and no goal is met."""

    ours: Score
    peer: Score | None
    goal: float

    @property
    def ratio(self) -> float | None:
        """Our mean KL over theirs; 1 where neither drifts at all."""
        if self.peer is None or self.ours.kl is None or self.peer.kl is None:
            return None
        if self.peer.kl == 0.0:
            return 1.0 if self.ours.kl == 0.0 else float("inf")
        return self.ours.kl / self.peer.kl

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.ratio <= self.goal


def comparable(ours: Score, peers: Sequence[Score]) -> list[Score]:
    """The judged peers that take no more bits than we do, up to EQUAL_BITS: who spends more is no equal."""
    return [one for one in peers if one.kl is not None and one.bits <= ours.bits + EQUAL_BITS]


def against(ours: Score, peers: Sequence[Score], goal: float) -> Against:
    equals = comparable(ours, peers)
    return Against(ours, min(equals, key=lambda one: one.kl or 0.0, default=None), goal)


def best(scores: Sequence[Score]) -> Score | None:
    """The least drift; of equals the first."""
    judged = [one for one in scores if one.kl is not None]
    return min(judged, key=lambda one: one.kl or 0.0, default=None)
