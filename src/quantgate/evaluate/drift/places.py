"""Where every scored position stands: in which document, how far into the sequence and the answer, before which token.

Positions keep their place under the same index as in ``Positions``; a group is a mask over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantgate.evaluate.drift.passages import Part

STRUCTURE = {"{ or }": "{}", "[ or ]": "[]", "quote": '"', "comma": ",", "colon": ":"}


@dataclass(frozen=True)
class Places:
    """Per scored position, int64 [n] each."""

    document: Tensor
    passage: Tensor  # its index in ``names`` and ``structured``
    position: Tensor  # of the true token in its sequence; the first token is 0
    answer: Tensor  # of the true token in what is scored of its passage; the first is 1
    token: Tensor  # the true token's id
    names: list[tuple[str, ...]]  # per passage
    structured: list[bool]  # per passage


def places_of(parts: Sequence[Part]) -> Places:
    passages = [passage for part in parts for passage in part.passages]
    index, position, token = [], [], []
    before = 0
    for part in parts:
        at = part.scored.nonzero()
        index.append(at[:, 0] + before)
        position.append(at[:, 1] + 1)
        token.append(part.targets)
        before += len(part.passages)
    none = [torch.zeros(0, dtype=torch.long)]
    passage, where = torch.cat(none + index), torch.cat(none + position)
    return Places(
        document=torch.tensor([one.document for one in passages], dtype=torch.long)[passage],
        passage=passage,
        position=where,
        answer=where - torch.tensor([one.first for one in passages], dtype=torch.long)[passage] + 1,
        token=torch.cat(none + token),
        names=[one.names for one in passages],
        structured=[one.structured for one in passages],
    )


def doubling(values: Tensor, first: int) -> list[tuple[str, Tensor]]:
    """Groups of whole numbers below ``first``, below 2 ``first``, below 4 ``first`` ...; only those that hold any.

    >>> [(name, mask.tolist()) for name, mask in doubling(torch.tensor([1, 5, 2, 3]), 2)]
    [('1', [True, False, False, False]), ('2-3', [False, False, True, True]), ('4-7', [False, True, False, False])]
    """
    groups, low, high = [], min(1, first), first
    while low <= (int(values.max()) if len(values) else -1):
        mask = (values >= low) & (values < high)
        if bool(mask.any()):
            groups.append((str(low) if high == low + 1 else f"{low}-{high - 1}", mask))
        low, high = high, 2 * high
    return groups


def by_name(places: Places) -> list[tuple[str, Tensor]]:
    """One group for every slice name that not all positions bear."""
    names = sorted({name for one in places.names for name in one}, key=lambda one: (not one.startswith("suite="), one))
    groups = []
    for name in names:
        mask = torch.tensor([name in one for one in places.names], dtype=torch.bool)[places.passage]
        if not bool(mask.all()):
            groups.append((name, mask))
    return groups


def by_structure(places: Places, spell: Callable[[Sequence[int]], list[str]]) -> list[tuple[str, Tensor]]:
    """Tokens of JSON answers by the structure that they hold; a token such as ``":`` is in two groups."""
    inside = torch.tensor(places.structured, dtype=torch.bool)[places.passage]
    if not bool(inside.any()):
        return []
    ids = places.token[inside].unique()
    texts = dict(zip(ids.tolist(), spell(ids.tolist()), strict=True))

    def holding(characters: Iterable[str]) -> Tensor:
        wanted = [one for one, text in texts.items() if any(sign in text for sign in characters)]
        return inside & torch.isin(places.token, torch.tensor(wanted, dtype=torch.long))

    any_of = holding("".join(STRUCTURE.values()))
    groups = [(name, holding(characters)) for name, characters in STRUCTURE.items()]
    groups += [("any of these", any_of), ("none of these", inside & ~any_of)]
    return [(name, mask) for name, mask in groups if bool(mask.any())]
