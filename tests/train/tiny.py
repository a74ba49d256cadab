"""A language model of a few thousand numbers that keeps the Network protocol, and data for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantgate.train import DataSummary, Document, Group, TrainingSet

VOCABULARY = 24


class Tiny:
    """Embedding, a causal mean over what came before, two matrices. ``grid``: weights are rounded to its multiples."""

    device = torch.device("cpu")

    def __init__(self, seed: int = 0, hidden: int = 16, grid: float | None = None) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.embed = nn.Parameter(torch.randn(VOCABULARY, hidden, generator=draw))
        self.up = nn.Parameter(torch.randn(2 * hidden, 2 * hidden, generator=draw) * 0.3)
        self.head = nn.Parameter(torch.randn(VOCABULARY, 2 * hidden, generator=draw) * 0.3)
        self.grid = grid
        self._seen: list[Tensor] = []

    def groups(self) -> list[Group]:
        return [
            Group("weights", {"up": self.up, "head": self.head}, decay=True),
            Group("ends", {"embed": self.embed}, rate=0.5),
        ]

    @contextmanager
    def step(self) -> Iterator[None]:
        """The rounded matrices are leaves inside; their gradients reach the parameters on leaving."""
        self._seen = [self._rounded(one).requires_grad_() for one in (self.up, self.head)]
        self.embed.grad = None
        yield
        for one, seen in zip((self.up, self.head), self._seen, strict=True):
            one.grad = seen.grad
        self._seen = []

    def leaves(self) -> list[Tensor]:
        return [*self._seen, self.embed]

    @contextmanager
    def still(self) -> Iterator[None]:
        self._seen = [self._rounded(one) for one in (self.up, self.head)]
        with torch.no_grad():
            yield
        self._seen = []

    def logits(self, ids: Tensor, counted: Tensor) -> Tensor:
        up, head = self._seen
        x = F.embedding(ids, self.embed)
        before = x.cumsum(1) / torch.arange(1, ids.shape[1] + 1)[None, :, None]
        both = torch.cat([x, before], -1)[counted]
        return F.linear(torch.tanh(F.linear(both, up)), head)

    def _rounded(self, weight: Tensor) -> Tensor:
        held = weight.detach().clone()
        return held if self.grid is None else (held / self.grid).round() * self.grid


def training_set(seed: int = 0, documents: int = 60, tune: int = 12) -> TrainingSet:
    draw = torch.Generator().manual_seed(seed)

    def one() -> Document:
        length = int(torch.randint(5, 40, (1,), generator=draw))
        ids = torch.randint(0, VOCABULARY, (length,), generator=draw).tolist()
        half = length // 2
        return Document("made", ids, [0.0] + [0.1] * (half - 1) + [1.0] * (length - half))

    many, few = [one() for _ in range(documents)], [one() for _ in range(tune)]
    tokens = sum(len(document.ids) for document in many)
    return TrainingSet(
        many, few, DataSummary(content=f"made-{seed}", documents={"made": documents}, tokens=tokens, tune=tune)
    )


def asked(teacher: Tiny) -> Callable[[Tensor, Tensor], Tensor]:
    """``logits_of`` of a teacher that is a Tiny."""

    def logits_of(ids: Tensor, counted: Tensor) -> Tensor:
        with teacher.still():
            return teacher.logits(ids, counted)

    return logits_of
