"""What is fed and what is scored: known answers behind their prompts, or windows of running text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantgate.engines import Engine
from quantgate.evaluate.suites import Case

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class Passage:
    """Token ids of which those from ``first`` on are scored, each by what stood before it."""

    ids: list[int]
    first: int  # at least 1
    document: int  # passages of one document share their chance
    names: tuple[str, ...] = ()  # "suite=math", and the slices of its case
    structured: bool = False  # whether what is scored is JSON


@dataclass(frozen=True)
class Part:
    """Passages that are run together: ids [rows, length], and where the next token is scored."""

    ids: Tensor
    scored: Tensor  # bool [rows, length]
    passages: tuple[Passage, ...]  # one a row

    @property
    def targets(self) -> Tensor:
        """True next tokens [n] at the scored positions, row by row."""
        return self.ids.roll(-1, dims=1)[self.scored]


def of_cases(engine: Engine, cases: Sequence[Case]) -> list[Passage]:
    """The known answers, each case a document; cases without one are left out."""
    found = []
    for index, case in enumerate(cases):
        if case.answer is None:
            continue
        turns = [(message.role, message.content) for message in case.messages]
        prompt = engine.encode(turns)
        whole = engine.encode([*turns, ("assistant", case.answer)])
        names = (f"suite={case.suite}", *case.slices)
        found.append(Passage(whole, len(prompt), index, names, is_structured(case.answer)))
    return found


def is_structured(answer: str) -> bool:
    """Whether an answer is a JSON object or array.

    >>> is_structured('{"name": "call"}'), is_structured("56"), is_structured("no_tool")
    (True, False, False)
    """
    try:
        return isinstance(json.loads(answer), (dict, list))
    except ValueError:
        return False


def parts_of(passages: Sequence[Passage], tokens_per_batch: int = TOKENS_PER_BATCH) -> list[Part]:
    """Passages of like length together, padded on the right."""
    groups: list[list[Passage]] = [[]]
    for passage in sorted(passages, key=lambda one: len(one.ids)):
        if groups[-1] and (len(groups[-1]) + 1) * len(passage.ids) > tokens_per_batch:
            groups.append([])
        groups[-1].append(passage)
    return [_padded(group) for group in groups if group]


def _padded(group: Sequence[Passage]) -> Part:
    longest = max(len(one.ids) for one in group)
    ids = torch.tensor([one.ids + [0] * (longest - len(one.ids)) for one in group])
    scored = torch.zeros_like(ids, dtype=torch.bool)
    for row, one in enumerate(group):
        scored[row, one.first - 1 : len(one.ids) - 1] = True
    return Part(ids, scored, tuple(group))


def batches(
    engine: Engine, cases: Sequence[Case], tokens_per_batch: int = TOKENS_PER_BATCH
) -> list[tuple[Tensor, Tensor]]:
    """Token ids [rows, length] and the mask of positions whose next token belongs to the known answer."""
    return [(part.ids, part.scored) for part in parts_of(of_cases(engine, cases), tokens_per_batch)]


def pieces(part: Part, most: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Ids, scored positions and targets of a part, with at most ``most`` positions scored at a time.

    What stands behind the last of them is cut off: nothing depends on what follows it.
    """
    places, targets = part.scored.nonzero(), part.targets
    for start in range(0, len(places), most):
        here = places[start : start + most]
        rows = slice(int(here[0, 0]), int(here[-1, 0]) + 1)
        length = int(here[:, 1].max()) + 1
        at = torch.zeros_like(part.scored[rows, :length])
        at[here[:, 0] - rows.start, here[:, 1]] = True
        yield part.ids[rows, :length], at, targets[start : start + most]
