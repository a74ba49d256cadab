"""Seats of llama.cpp: one sequence of a context each. A sequence that is free keeps what it read for the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quantgate.engines._kept import Keep, common
from quantgate.engines._llama import UBATCH, LlamaContext
from quantgate.errors import EngineError


@dataclass
class Lane:
    """A sequence, and the tokens that stand in it."""

    number: int
    ids: list[int] = field(default_factory=list)
    used: int = 0  # when it was left: the larger, the later


class LlamaSeats:
    """As many as the context has sequences. Raises EngineError when all are taken."""

    def __init__(self, context: LlamaContext, keep: Keep) -> None:
        self.context, self.keep, self.left = context, keep, 0
        self.free = [Lane(number) for number in range(context.sequences)]

    def sit(self, ids: Sequence[int], most: int) -> LlamaSeat:
        if not self.free:
            raise EngineError(f"all {self.context.sequences} sequences of the context are taken; ask again later")
        least = max(1, self.keep.least)
        shares = [min(common(lane.ids, ids), len(ids) - 1) for lane in self.free]
        at = shares.index(max(shares))
        if not self.keep.conversations or shares[at] < least:
            at, shares = min(range(len(self.free)), key=lambda one: self.free[one].used), [0] * len(shares)
        lane = self.free.pop(at)
        self.context.forget(lane.number, shares[at])
        lane.ids = lane.ids[: shares[at]]
        return LlamaSeat(self, lane, list(ids))


class LlamaSeat:
    """See ``_seats.Seat``."""

    def __init__(self, seats: LlamaSeats, lane: Lane, ids: list[int]) -> None:
        self.seats, self.lane, self.ids = seats, lane, ids
        self.reused = len(lane.ids)

    def read(self) -> Tensor | None:
        start = len(self.lane.ids)
        logits = self._go(self.ids[start : start + UBATCH])
        return logits if len(self.lane.ids) == len(self.ids) else None

    def feed(self, token: int) -> Tensor:
        return self._go([token])

    def _go(self, tokens: list[int]) -> Tensor:
        start, last = len(self.lane.ids), len(tokens) - 1
        fed = [(token, start + at, self.lane.number, at == last) for at, token in enumerate(tokens)]
        logits = self.seats.context.decode(fed)
        self.lane.ids += tokens
        return torch.from_numpy(logits[0])

    def leave(self) -> None:
        self.seats.left += 1
        self.lane.used = self.seats.left
        self.seats.free.append(self.lane)
