"""What rounding each layer does to each capability, foreseen from gradients: no variant is run.

A change dW of the weights moves the logits z at an answer's token by dz = J dW, and the next-token distribution by

    KL(p || p') = 1/2 dz^T (diag(p) - p p^T) dz + O(|dz|^3)

With r of random signs, u = sqrt(p) * r - p (sqrt(p) . r) has the covariance diag(p) - p p^T. So the gradient g of
sum_t u_t . z_t (u held fixed) by the weights gives E (g . dW)^2 = 2 sum_t KL_t: one backward pass per conversation
serves every layer and every format. This is the generalized Gauss-Newton matrix, for softmax outputs the Fisher
information (Martens 2020, "New insights and perspectives on the natural gradient method", sections 5 and 9), probed by
Hutchinson's estimator, with the model's own distribution in place of sampled labels.

Rounded activations are not weights: what W8A8 or FP8 does to a layer's input is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantgate.errors import DataError, FormatError
from quantgate.models import OpenedModel
from quantgate.quantize.artifact import Artifact, baseline
from quantgate.quantize.load import load_with_paths
from quantgate.quantize.manifest import BASELINE
from quantgate.quantize.mix import Choice, linears, unforeseen

Examples = Mapping[str, Sequence[tuple[Sequence[int], int]]]  # capability -> (token ids, where the answer starts)


@dataclass(frozen=True)
class Sensitivity:
    """Moves of the probed logits, from which the drift of any mixture of the sources follows.

    ``groups`` are the linear layers, those that read one input together. ``moves[capability]`` [examples, groups,
    sources] holds g . dW, and ``tokens[capability]`` counts the answer tokens of all its examples.
    """

    groups: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]
    moves: dict[str, Tensor]
    tokens: dict[str, int]

    def kl(self, capability: str) -> Tensor:
        """[groups, sources]: mean KL divergence in nats per answer token when that group alone is rounded so."""
        return 0.5 * self.moves[capability].square().sum(0) / self.tokens[capability]

    def expected(self, capability: str, choice: Choice) -> float:
        """The same for a whole mixture, what the groups do together included. BF16 moves nothing."""
        moved = torch.zeros(len(self.moves[capability]), dtype=torch.float64)
        for at, group in enumerate(self.groups):
            if choice[group[0]] != BASELINE:
                moved += self.moves[capability][:, at, self.sources.index(choice[group[0]])]
        return float(0.5 * moved.square().sum() / self.tokens[capability])


def sensitivity(
    model: OpenedModel,
    sources: Mapping[str, Artifact],
    examples: Examples,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Probe every linear layer on every example.

    Holds the model and one gradient of it in float32, and a bfloat16 copy of its linear layers per source.

    Raises FormatError for a source that is rotated or has folded channel scales, whose weights are not the model's plus
    an error, and DataError for a capability without examples and for an example without an answer.
    """
    for name, source in sources.items():
        if reason := unforeseen(source):
            raise FormatError(f"sensitivity: '{name}': {reason}, which is no error; leave it out")
    groups = tuple(tuple(group) for group in linears(model))
    network, paths = load_with_paths(baseline(model), torch.float32)
    network.requires_grad_(False)
    weights = [network.get_parameter(f"{paths[layer]}.weight") for group in groups for layer in group]
    known = dict(zip((layer for group in groups for layer in group), weights, strict=True))
    deltas = {name: _deltas(known, source) for name, source in sources.items()}
    for weight in weights:
        weight.requires_grad_(True)
    signs = torch.Generator().manual_seed(seed)
    total, done = sum(map(len, examples.values())), 0
    moves, tokens = dict[str, Tensor](), dict[str, int]()
    for capability, some in examples.items():
        if not some:
            raise DataError(f"sensitivity: no examples of {capability}; give at least one with a known answer")
        moves[capability] = torch.zeros(len(some), len(groups), len(sources), dtype=torch.float64)
        tokens[capability] = 0
        for row, (ids, start) in enumerate(some):
            if not 0 < start < len(ids):
                raise DataError(f"sensitivity: example {row} of {capability} has no answer; give it one")
            gradients = _probe(network, weights, ids, start, signs)
            for column, name in enumerate(sources):
                moves[capability][row, :, column] = _moved(gradients, deltas[name], groups)
            tokens[capability] += len(ids) - start
            done += 1
            if progress:
                progress(done, total)
    return Sensitivity(groups, tuple(sources), moves, tokens)


def _deltas(weights: Mapping[str, Tensor], source: Artifact) -> dict[str, Tensor]:
    """dW of every layer that the source quantizes, in bfloat16 (a change's third digit does not matter)."""
    stored = set(source.quantized)
    return {
        layer: (source.linear(layer).dequantized(torch.float32) - weight).bfloat16()
        for layer, weight in weights.items()
        if layer in stored
    }


def _probe(
    network: torch.nn.Module, weights: Sequence[Tensor], ids: Sequence[int], start: int, signs: torch.Generator
) -> tuple[Tensor, ...]:
    """The gradient of sum_t u_t . z_t by every weight, over the positions whose next token belongs to the answer.

    Experts that no token reached have none; zeros stand for it.
    """
    logits = network(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, start - 1 : len(ids) - 1].float()
    p = logits.detach().softmax(-1)
    r = torch.randint(0, 2, p.shape, generator=signs).float() * 2 - 1
    u = p.sqrt() * r - p * (p.sqrt() * r).sum(-1, keepdim=True)
    found = torch.autograd.grad((u * logits).sum(), weights, allow_unused=True)
    return tuple(torch.zeros_like(w) if one is None else one for w, one in zip(weights, found, strict=True))


def _moved(gradients: Sequence[Tensor], deltas: Mapping[str, Tensor], groups: Sequence[Sequence[str]]) -> Tensor:
    """[groups] sum of g . dW over a group's layers."""
    found, at = torch.zeros(len(groups), dtype=torch.float64), 0
    for row, group in enumerate(groups):
        for layer in group:
            if layer in deltas:
                found[row] += torch.dot(gradients[at].flatten(), deltas[layer].float().flatten()).double()
            at += 1
    return found
