"""What is minimised: distance to the teacher where it was asked, and the answers' own tokens.

kl(logits, tops, temperature)     -> [N]   over k tokens and one bucket of all others
mixed(logits, ..., task)          -> []    KL and cross entropy, weighed as a step weighs them
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from quantgate.train import Batch, Tops

NEVER = -1e4  # log of what is never expected: finite, so that 0 * NEVER is 0; exp of it is 0
LEAST = math.log(1e-5)


@dataclass(frozen=True)
class Totals:
    """What the sums of one step are divided by: over all its batches, on all devices."""

    weight: float  # of all counted positions
    answers: float  # the same of those in answers (weight >= 1)


def totals(batches: list[Batch]) -> Totals:
    weights = torch.cat([batch.weights for batch in batches]).double()
    return Totals(float(weights.sum()), float(weights[weights >= 1].sum()))


def kl(logits: Tensor, tops: Tops, temperature: float = 1.0) -> Tensor:
    """KL(teacher || network) [N], in nats, over ``k + 1`` outcomes: the teacher's k likeliest tokens, and any other.

    ``logits``: float32 [N, vocabulary]. Merging outcomes never adds to a divergence (the data-processing inequality;
    Cover and Thomas 2006, section 2.9), so at temperature 1 this is a lower bound of the KL over the whole vocabulary,
    and equals it where k is the vocabulary. At another temperature both sides are merged first, at temperature 1, and
    the k + 1 outcomes are tempered after: the rest counts as one outcome on both sides alike, exactly, so the result is
    0 where the two agree on the k + 1 outcomes, whatever lies in the rest; a rest below 1e-5 counts as 1e-5 on both
    sides, for float32 tells smaller ones apart badly and a temperature makes them large. It is times temperature²,
    which keeps the length of gradients (Hinton et al., arXiv 1503.02531, section 2).

    Gradients stay finite where the rest is all but impossible on either side: its logarithm is a sum over the other
    tokens, never 1 less the k.
    """
    wanted, seen = _teacher(tops, logits.shape[1]), _network(logits, tops)
    if temperature != 1.0:
        merged = wanted.shape[1] > tops.tokens.shape[1]
        wanted, seen = _tempered(wanted, temperature, merged), _tempered(seen, temperature, merged)
    return (wanted.exp() * (wanted - seen)).sum(1) * temperature**2


def _tempered(logs: Tensor, temperature: float, merged: bool) -> Tensor:
    if merged:
        floor = torch.full_like(logs[:, -1:], LEAST)
        logs = torch.cat([logs[:, :-1], torch.logaddexp(logs[:, -1:], floor)], 1)
    return F.log_softmax(logs / temperature, 1)


def _teacher(tops: Tops, vocabulary: int) -> Tensor:
    """Log probabilities [N, k + 1], the rest last; [N, k] where nothing is left for a rest."""
    logs = tops.logs
    kept = logs.exp().sum(1, keepdim=True)
    logs = logs - kept.clamp(min=1).log()  # rounding may have left a little more than 1
    if logs.shape[1] == vocabulary:
        return logs.clamp(min=NEVER)
    rest = torch.where(kept < 1, torch.log1p(-kept.clamp(max=1 - 1e-7)), NEVER)
    return torch.cat([logs.clamp(min=NEVER), rest], 1)


def _network(logits: Tensor, tops: Tops) -> Tensor:
    """The network's log probabilities of the same outcomes, [N, k + 1] or [N, k]."""
    logs = F.log_softmax(logits, 1)
    seen = logs.gather(1, tops.tokens)
    if tops.tokens.shape[1] == logits.shape[1]:
        return seen
    rest = logs.scatter(1, tops.tokens, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([seen, rest], 1)


def mixed(
    logits: Tensor, tops: Tops, targets: Tensor, weights: Tensor, whole: Totals, *, task: float, temperature: float
) -> Tensor:
    """One batch's part of the step's loss; the parts of all its batches add up to the loss.

    ``(1 - task) * KL`` over all counted positions by their weights, plus ``task *`` cross entropy over the answers'.
    """
    loss = (kl(logits, tops, temperature) * weights).sum() * ((1 - task) / max(whole.weight, 1e-9))
    if task == 0 or whole.answers == 0:
        return loss
    surprise = F.cross_entropy(logits, targets, reduction="none")
    return loss + (surprise * weights * (weights >= 1)).sum() * (task / whole.answers)
