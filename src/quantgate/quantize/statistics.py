"""What quantization learns from calibration data: H = X^T X / n of every distinct layer input, in one forward pass.

X [n, in] stacks what the layer was given for every real (not padded) token. q/k/v read one tensor and so share one H,
and so do gate/up. H is all that GPTQ needs (Frantar et al. 2022, arXiv 2210.17323, section 3.1), and with it the output
error of any rounding W + dW is known without another forward pass: sum |X dW^T|^2 = tr(dW H dW^T).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantgate.errors import BadTensor, DataError
from quantgate.models.walker import Block
from quantgate.quantize.kv_cache import Ranges
from quantgate.quantize.methods import SAMPLE, LayerStats

STRIPE = 128  # rows of H summed at a time; measured at 768 columns, a third less time than the full product


@dataclass(frozen=True)
class Batch:
    """Samples of similar length side by side, padded on the right."""

    ids: Tensor  # [batch, tokens]
    real: Tensor  # [batch, tokens], False where padded


def batches(samples: Sequence[Sequence[int]], vocabulary: int, context: int, batch_tokens: int) -> list[Batch]:
    """Samples sorted by length and cut into batches of at most ``batch_tokens`` padded tokens (at least one sample).

    Raises DataError for an empty set, an empty or too long sample, or an id outside the vocabulary.
    """
    if not samples:
        raise DataError("calibration: no samples; give at least one, or use a method that needs none (rtn)")
    for at, sample in enumerate(samples):
        if not sample:
            raise DataError(f"calibration sample {at}: is empty; remove it")
        if len(sample) > context:
            raise DataError(f"calibration sample {at}: {len(sample)} tokens, the model takes {context}; cut it there")
        if min(sample) < 0 or max(sample) >= vocabulary:
            wrong = min(sample) if min(sample) < 0 else max(sample)
            raise DataError(
                f"calibration sample {at}: token id {wrong} is outside the vocabulary of {vocabulary}; "
                "tokenize with this model's tokenizer"
            )
    order = sorted(range(len(samples)), key=lambda at: (len(samples[at]), at))
    groups: list[list[int]] = [[]]
    for at in order:
        if groups[-1] and len(samples[at]) * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
        groups[-1].append(at)
    return [_pad([samples[at] for at in group]) for group in groups]


def _pad(samples: list[Sequence[int]]) -> Batch:
    width = max(map(len, samples))
    ids = torch.zeros(len(samples), width, dtype=torch.long)
    real = torch.zeros(len(samples), width, dtype=torch.bool)
    for row, sample in enumerate(samples):
        ids[row, : len(sample)] = torch.tensor(sample)
        real[row, : len(sample)] = True
    return Batch(ids, real)


class Statistics:
    """H [in, in], the largest |x| [in] and a sample of x, float32, per group of layers that share an input.

    The sample is every n-th of the ``tokens`` that are to come. Layers of an expert are counted by the tokens that were
    routed to it.
    """

    def __init__(self, block: Block, groups: Sequence[Sequence[str]], tokens: int = SAMPLE) -> None:
        self._block, self._expected = block, tokens
        self._tokens = {group[0]: 0 for group in groups}
        self._experts = {group[0]: block.experts(group[0]) for group in groups}
        self._samples: dict[str, list[Tensor]] = {group[0]: [] for group in groups}
        self._real: Tensor | None = None  # [batch * tokens] which rows of the running batch are real; None: all of them
        self._rows: Tensor | None = None  # their numbers
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}  # by the first layer of the group
        self._hooks: list[Any] = []
        for group in groups:
            layer, size = block.linear(group[0]), block.linear(group[0]).in_features
            self._sums[group[0]] = (
                torch.zeros(size, size, device=block.device),
                torch.zeros(size, device=block.device),
            )
            hook = layer.register_forward_pre_hook(lambda _layer, args, name=group[0]: self._add(name, args[0]))
            self._hooks.append(hook)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Run the block on one batch, counting its real tokens; gives the block's output."""
        flat = batch.real.reshape(-1)
        self._real = None if bool(flat.all()) else flat.to(self._block.device)
        self._rows = None if self._real is None else flat.nonzero().squeeze(1).to(self._block.device)
        if isinstance(self._block.cache, Ranges):
            self._block.cache.real = batch.real
        return self._block(hidden)

    def close(self) -> None:
        """Take the hooks off. Raises BadTensor when an activation was not finite."""
        for hook in self._hooks:
            hook.remove()
        for name, (hessian, _) in self._sums.items():
            if not torch.isfinite(hessian.diagonal()).all():
                raise BadTensor(
                    f"{name}: its input holds NaN or Inf on the calibration samples; check the weights before it"
                )

    def take(self, name: str) -> LayerStats:
        """The statistics of the group whose first layer is ``name``, handed over: a second call raises KeyError."""
        hessian, absmax = self._sums.pop(name)
        for start in range(0, len(hessian), STRIPE):  # the upper stripes, mirrored where they are
            stop = start + STRIPE
            square = hessian[start:stop, start:stop]
            square.copy_(square.triu() + square.triu(1).T)
            hessian[stop:, start:stop] = hessian[start:stop, stop:].T
        sample = self._samples.pop(name)
        rows = torch.cat(sample)[:SAMPLE] if sample else None
        tokens = self._tokens[name]
        return LayerStats(hessian.div_(max(tokens, 1)), tokens, absmax, rows)

    def _add(self, name: str, given: Tensor) -> None:
        rows = self._counted(name, given.reshape(-1, given.shape[-1]).float())
        if not len(rows):
            return
        hessian, absmax = self._sums[name]
        for start in range(0, len(hessian), STRIPE):  # H is symmetric: only its upper stripes are summed
            hessian[start : start + STRIPE, start:].addmm_(rows[:, start : start + STRIPE].T, rows[:, start:])
        torch.maximum(absmax, rows.abs().amax(dim=0), out=absmax)
        begun, expert = self._tokens[name], self._experts[name]
        step = max(1, -(-int(self._expected * (expert[1].share if expert else 1)) // SAMPLE))
        self._samples[name].append(rows[(step // 2 - begun) % step :: step].clone())
        self._tokens[name] = begun + len(rows)

    def _counted(self, name: str, rows: Tensor) -> Tensor:
        """The ``rows`` that stand for real tokens."""
        if self._real is None or self._rows is None:
            return rows
        expert = self._experts[name]
        if expert is None or expert[1].routed is None:
            return rows.index_select(0, self._rows)
        return rows[self._real[expert[1].routed]]
