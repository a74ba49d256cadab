"""Two rows of logits become a few numbers per position; nothing as wide as the vocabulary is kept.

KL_t = sum_i P_i (ln P_i - ln Q_i)             baseline P, variant Q
TV_t = sum_i |P_i - Q_i| / 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

TOP = 20  # tokens that serving interfaces tell the probabilities of, at most
NUCLEUS = 0.95  # what sampling with top_p of that size would ever say
SORTED_FIRST = 256  # tokens that are sorted before a nucleus is known to need more


@dataclass(frozen=True)
class Positions:
    """Per scored position, float64 [n]."""

    kl: Tensor
    nll_baseline: Tensor
    nll_variant: Tensor
    same_top: Tensor  # bool
    tv: Tensor
    top_baseline: Tensor  # mass that P leaves outside its own TOP likeliest tokens
    top_variant: Tensor  # mass that Q puts outside those same tokens
    nucleus_baseline: Tensor  # the same outside the fewest tokens that hold NUCLEUS of P
    nucleus_variant: Tensor

    def __len__(self) -> int:
        return len(self.kl)

    def __getitem__(self, chosen: Tensor) -> Positions:
        return Positions(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    @property
    def dp(self) -> Tensor:
        """Change of the true token's probability."""
        return (-self.nll_variant).exp() - (-self.nll_baseline).exp()


def positions(baseline: Tensor, variant: Tensor, targets: Tensor) -> Positions:
    """Compare logits [n, vocabulary] at positions whose true next tokens are ``targets`` [n]."""
    log_p, log_q = baseline.double().log_softmax(-1), variant.double().log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    at = targets[:, None]
    possible = log_p > -torch.inf  # tokens that the baseline rules out add nothing
    top, nucleus = _inside(p)
    return Positions(
        kl=(p * (log_p - log_q)).where(possible, 0.0).sum(-1).clamp_min(0.0),
        nll_baseline=-log_p.gather(-1, at)[:, 0],
        nll_variant=-log_q.gather(-1, at)[:, 0],
        same_top=log_p.argmax(-1) == log_q.argmax(-1),
        tv=(p - q).abs().sum(-1) / 2,
        top_baseline=_outside(p, top),
        top_variant=_outside(q, top),
        nucleus_baseline=_outside(p, nucleus),
        nucleus_variant=_outside(q, nucleus),
    )


def _inside(p: Tensor) -> tuple[Tensor, Tensor]:
    """The TOP likeliest tokens and the nucleus, as masks [n, vocabulary]. Ties go to whichever topk lists first."""
    values, order = p.topk(min(SORTED_FIRST, p.shape[-1]), dim=-1)
    top = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, order[:, :TOP], True)
    nucleus = torch.zeros_like(top).scatter_(-1, order, _needed(values))
    wide = values.sum(-1) < NUCLEUS
    if bool(wide.any()) and p.shape[-1] > SORTED_FIRST:
        values, order = p[wide].sort(dim=-1, descending=True)
        nucleus[wide] = torch.zeros_like(top[wide]).scatter_(-1, order, _needed(values))
    return top, nucleus


def _needed(falling: Tensor) -> Tensor:
    """Whether NUCLEUS is not yet full without the probabilities in front, [n, tokens] in falling order."""
    return falling.cumsum(-1) - falling < NUCLEUS


def _outside(mass: Tensor, inside: Tensor) -> Tensor:
    return mass.masked_fill(inside, 0.0).sum(-1)


def joined(parts: Sequence[Positions]) -> Positions:
    none = torch.zeros(0, dtype=torch.float64)
    found: dict[str, Tensor] = {}
    for one in fields(Positions):
        kept = [getattr(part, one.name) for part in parts]
        found[one.name] = torch.cat(kept) if kept else none.bool() if one.name == "same_top" else none
    return Positions(**found)
