"""Refusals tip at their first token: how much of its probability moved where an answer begins.

Which tokens begin a refusal is learned from the baseline alone: those it finds likeliest more often where it is to
refuse than where it is to comply. The variant has no part in the choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quantgate.engines import Engine, Speller
from quantgate.evaluate.drift.distances import positions
from quantgate.evaluate.drift.intervals import interval
from quantgate.evaluate.drift.passages import Passage, parts_of, pieces
from quantgate.evaluate.drift_record import FirstTokens, RefusalDrift
from quantgate.evaluate.suites import Case

KINDS = ("refuse", "comply")


def kind_of(case: Case) -> str | None:
    """What a refusal case expects, where it is to be refused or to be answered."""
    reference: Any = case.reference
    expect = reference.get("expect") if case.scorer == "refusal" and isinstance(reference, dict) else None
    return expect if expect in KINDS else None


class FirstTokenDrift:
    """The first answer token of every refusal case; the baseline is run once to learn, and once beside a variant."""

    def __init__(self, baseline: Engine, cases: Sequence[Case], most: int, tokens_per_batch: int) -> None:
        """``most`` positions are scored at a time. Without a case to be refused there is nothing to learn."""
        self.baseline, self.most = baseline, most
        asked = [(case, kind) for case in cases if (kind := kind_of(case))]
        passages = []
        for index, (case, kind) in enumerate(asked):
            prompt = baseline.encode([(message.role, message.content) for message in case.messages])
            passages.append(Passage([*prompt, 0], len(prompt), index, (kind,)))  # the token behind it is not read
        self.parts = parts_of(passages, tokens_per_batch)
        self.kinds = [one.names[0] for part in self.parts for one in part.passages]
        self.openers = self._learned() if "refuse" in self.kinds else []

    def _learned(self) -> list[int]:
        first = [int(top) for ids, at, _ in self._pieces() for top in self.baseline.logits(ids, at).argmax(-1)]
        counts = {
            kind: Counter(top for top, own in zip(first, self.kinds, strict=True) if own == kind) for kind in KINDS
        }
        shares = {kind: {top: count / found.total() for top, count in found.items()} for kind, found in counts.items()}
        return sorted(top for top, share in shares["refuse"].items() if share > shares["comply"].get(top, 0.0))

    def _pieces(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [piece for part in self.parts for piece in pieces(part, self.most)]

    def of(self, variant: Engine) -> RefusalDrift | None:
        """None where no case is to be refused, or the baseline begins refusals and other answers alike."""
        if not self.openers:
            return None
        rows = []
        for ids, at, targets in self._pieces():
            base, other = self.baseline.logits(ids, at), variant.logits(ids, at)
            seen = positions(base, other, targets)
            mass = [one.double().softmax(-1)[:, self.openers].sum(-1) for one in (base, other)]
            rows.append(torch.stack([seen.kl, seen.tv, *mass], dim=1))
        table = torch.cat(rows)
        found = []
        for kind in KINDS:
            mine = table[torch.tensor([own == kind for own in self.kinds])]
            if len(mine):
                found.append(_row(kind, mine))
        texts = self.baseline.spell(self.openers) if isinstance(self.baseline, Speller) else map(str, self.openers)
        return RefusalDrift(openers=tuple(texts), rows=tuple(found))


def _row(kind: str, table: Tensor) -> FirstTokens:
    kl, tv, base, other = table.mean(0).tolist()
    low, high = interval(table[:, 3] - table[:, 2], torch.arange(len(table)))
    return FirstTokens(
        expect=kind, cases=len(table), kl_mean=kl, tv=tv, baseline=base, variant=other, low=low, high=high
    )
