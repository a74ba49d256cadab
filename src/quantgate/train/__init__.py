"""Train: where rounding alone is not enough, train with the rounding in place, or distil first and round afterwards.

    found = qat(model, recipe, options, data, out)          # qat.py: an artifact of real codes, like any sweep's
    folder = distill(model, options, data, out)             # distill.py: a smaller model, as a Hugging Face folder

What a training run is made of, and where it stands:

    options.py      what may be chosen (TrainOptions, QatOptions, DistillOptions)
    data.py         conversations of the calibration traffic and of the suites' train split -> TrainingSet
    order.py        which documents a step sees, from the seed and the step alone
    teacher.py      the baseline's most likely tokens at every counted position, asked once and kept on disk
    losses.py       KL over these tokens and the rest, mixed with the task's own loss
    fake.py         weights and activations as they will be stored, with straight-through gradients and learned scales
    network.py      a transformers model whose linear layers see them; plain, for a student
    start.py        the post-training artifact that training begins with
    reconstruct.py  block after block held to the baseline's own outputs, where asked
    gradients.py    a step's batches dealt out to threads and devices
    loop.py         steps, schedule, early stop; the same curve after kill -9
    checkpoint.py   where a run stands, on disk
    memory.py       what a step takes, told before the first
    launch.py       whether this is one of several processes; devices.py makes them one run
    prune.py        which blocks, heads and channels a student keeps, by measured importance
    reference/      the recipe of the built-in model
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from quantgate.records import Record

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Batch", "DataSummary", "Document", "Group", "Network", "Row", "Tell", "Tops", "TrainingSet"]


@dataclass(frozen=True)
class Document:
    """One conversation in the model's tokens, and how much each of them counts when the model is to produce it."""

    source: str  # "traffic", or the name of a suite
    ids: list[int]
    wanted: list[float]  # as long as ids: 1 in answers, less elsewhere, 0 where nothing is asked; wanted[0] is 0
    turns: tuple[tuple[str, str], ...] = ()  # (role, content): what the gates' cases are compared with

    @property
    def counted(self) -> list[int]:
        """Positions whose *next* token counts."""
        return [at - 1 for at, weight in enumerate(self.wanted) if at and weight > 0]


class DataSummary(Record):
    """What a training set is, as evidence names it; ``digest`` (inherited) covers every token and weight."""

    content: str  # digest of all documents, those for early stopping included
    documents: dict[str, int]  # source -> how many train
    tokens: int
    tune: int  # documents that decide when to stop, and that train nothing


@dataclass(frozen=True)
class TrainingSet:
    """``tune`` are other problems than ``documents`` (suites) or conversations that were held out (traffic)."""

    documents: list[Document]
    tune: list[Document]
    summary: DataSummary
    notes: tuple[str, ...] = ()  # what a person should know of it: cut, doubled, refused


@dataclass(frozen=True, eq=False)
class Batch:
    """Documents of like length, one a row, padded on the right. N: all counted positions, row after row."""

    rows: list[int]  # which documents
    ids: Tensor  # [rows, length]
    counted: Tensor  # bool [rows, length]: the next token counts
    targets: Tensor  # [N] those next tokens
    weights: Tensor  # [N] how much each of them counts; >= 1 in answers


@dataclass(frozen=True, eq=False)
class Tops:
    """What the teacher expects at N positions: its k likeliest tokens, and log of the probability of each."""

    tokens: Tensor  # [N, k] int64
    logs: Tensor  # [N, k] float32, of the whole vocabulary's softmax at temperature 1


@dataclass(frozen=True, eq=False)
class Group:
    """Parameters that learn at one rate."""

    name: str  # "weights", "scales", "adapters", "norms", "ends"
    parameters: dict[str, nn.Parameter]  # by the names under which a checkpoint keeps them
    rate: float = 1.0  # times the run's learning rate
    decay: bool = False  # whether weight decay pulls at them


class Network(Protocol):
    """What the loop trains. Gradients are in ``grad`` of the parameters when a ``step()`` block has ended."""

    device: Any

    def groups(self) -> list[Group]:
        """All that is trained."""
        ...

    def step(self) -> AbstractContextManager[None]:
        """Weights are rounded once here for all batches inside, and their gradients carried through on leaving."""
        ...

    def still(self) -> AbstractContextManager[None]:
        """The same without gradients: what is inside only looks."""
        ...

    def leaves(self) -> list[Tensor]:
        """Inside ``step()``: what gradients gather in; their ``grad`` is what is carried through on leaving."""
        ...

    def logits(self, ids: Tensor, counted: Tensor) -> Tensor:
        """float32 [N, vocabulary] at the positions of ``ids`` [rows, length] where ``counted`` is True."""
        ...


@dataclass(frozen=True)
class Row:
    """One line of the curve."""

    step: int
    steps: int
    loss: float  # what was minimised, mean over the steps since the last row
    kl: float | None = None  # teacher to network on the tune documents, nats, mean by weight; None: not looked at now
    rate: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    more: dict[str, float] = field(default_factory=dict)


class Tell(Protocol):
    """Progress: what is being done, how much of how much, and a row of the curve where there is one."""

    def __call__(self, stage: str, done: int, total: int, row: Row | None = None) -> None: ...


def tokens_of(documents: Sequence[Document]) -> int:
    return sum(len(one.ids) for one in documents)
