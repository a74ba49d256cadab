"""A step's gradients, and a look at the tune split: batches dealt out to devices, and on a CPU to threads.

On a CPU every core takes whole batches for itself, which is faster than sharing each product. Sums are made in one
order, so that the same number of threads gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from quantgate.train import Batch, Network, Tops
from quantgate.train.devices import Devices
from quantgate.train.losses import Totals, kl, mixed, totals
from quantgate.train.options import TrainOptions
from quantgate.train.teacher import Teacher

SMALL = 100_000_000  # numbers of a network: larger ones are not given a second set of gradients for a second thread
T = TypeVar("T")


@dataclass(frozen=True)
class Sums:
    """Of a network over batches, what one device or thread has seen: sums over its counted positions."""

    loss: float = 0.0
    kl: float = 0.0
    answers: float = 0.0  # KL again, in answers alone
    agree: float = 0.0  # of those, where the likeliest token is the teacher's

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(mine + theirs for mine, theirs in zip(self.all(), other.all(), strict=True)))

    def all(self) -> list[float]:
        return [self.loss, self.kl, self.answers, self.agree]


class Worked:
    """A network with its teacher, and how many threads share a step."""

    def __init__(self, network: Network, teacher: Teacher, options: TrainOptions, devices: Devices) -> None:
        self.network, self.teacher, self.options, self.devices = network, teacher, options, devices
        size = sum(one.numel() for group in network.groups() for one in group.parameters.values())
        cpu = torch.device(network.device).type == "cpu"
        self.threads = torch.get_num_threads() if cpu and size <= SMALL else 1

    @property
    def room(self) -> int:
        """Most tokens of a batch, so that devices and threads all have one."""
        return max(self.options.batch_tokens // max(2, self.devices.count * self.threads), 64)

    def backward(self, batches: list[Batch]) -> float:
        """Leave the gradient of the mean loss over ``batches`` in ``grad``, on every device; the loss."""
        whole = totals(batches)
        with self.network.step():
            leaves = self.network.leaves()

            def share(mine: list[Batch]) -> tuple[float, list[Tensor]]:
                loss, sums = 0.0, [torch.zeros_like(leaf) for leaf in leaves]
                for batch in mine:
                    part = self._loss(self._logits(batch), self._tops(batch), batch, whole)
                    found = torch.autograd.grad(part, leaves, allow_unused=True)
                    for total, gradient in zip(sums, found, strict=True):
                        if gradient is not None:
                            total += gradient
                    loss += float(part.detach())
                return loss, sums

            shares = self._in_threads(share, batches)
            for leaf, *gradients in zip(leaves, *(sums for _, sums in shares), strict=True):
                for more in gradients[1:]:
                    gradients[0] += more
                leaf.grad = gradients[0]
        return self._over_devices([sum(loss for loss, _ in shares)])[0]

    def look(self, batches: list[Batch]) -> dict[str, float]:
        """KL and loss, each position by its weight; in answers alone, KL and the share of likeliest tokens that agree.

        ``kl`` is at temperature 1, in nats. Rows of ``batches`` are tune documents.
        """
        whole = totals(batches)
        answers = sum(int((batch.weights >= 1).sum()) for batch in batches)

        @torch.no_grad()
        def share(mine: list[Batch]) -> Sums:
            return sum((self._sums(batch, whole) for batch in mine), Sums())

        with self.network.still():
            found = sum(self._in_threads(share, batches), Sums())
        loss, divergence, in_answers, agree = self._over_devices(found.all())
        return {
            "kl": divergence / whole.weight,
            "loss": loss,
            "kl_answers": in_answers / max(1, answers),
            "agree": agree / max(1, answers),
        }

    def _sums(self, batch: Batch, whole: Totals) -> Sums:
        logits, tops = self._logits(batch), self._tops(batch, tune=True)
        weights = batch.weights.to(logits.device)
        found, answer = kl(logits, tops), weights >= 1
        agree = (logits.argmax(1) == tops.tokens[:, 0])[answer].sum()
        loss = self._loss(logits, tops, batch, whole)
        return Sums(*(float(one) for one in (loss, (found * weights).sum(), found[answer].sum(), agree)))

    def _logits(self, batch: Batch) -> Tensor:
        device = self.network.device
        return self.network.logits(batch.ids.to(device), batch.counted.to(device))

    def _tops(self, batch: Batch, tune: bool = False) -> Tops:
        tops, device = self.teacher.of(batch, tune), self.network.device
        return Tops(tops.tokens.to(device), tops.logs.to(device))

    def _loss(self, logits: Tensor, tops: Tops, batch: Batch, whole: Totals) -> Tensor:
        targets, weights = batch.targets.to(logits.device), batch.weights.to(logits.device)
        options = self.options
        return mixed(logits, tops, targets, weights, whole, task=options.task, temperature=options.temperature)

    def _in_threads(self, share: Callable[[list[Batch]], T], batches: list[Batch]) -> list[T]:
        """What every thread of this device made of its batches."""
        mine = dealt(batches, self.devices.count)[self.devices.rank]
        hands = [one for one in dealt(mine, self.threads) if one]
        if len(hands) < 2:
            return [share(mine)]
        threads = torch.get_num_threads()
        setting = (max(1, threads // len(hands)),)
        try:
            with ThreadPoolExecutor(len(hands), initializer=torch.set_num_threads, initargs=setting) as pool:
                return list(pool.map(share, hands))
        finally:
            torch.set_num_threads(threads)

    def _over_devices(self, numbers: list[float]) -> list[float]:
        if self.devices.count == 1:
            return numbers
        held = torch.tensor(numbers, dtype=torch.float64, device=self.network.device)
        self.devices.sums([held])
        return held.tolist()


def dealt(batches: Sequence[Batch], hands: int) -> list[list[Batch]]:
    """Batches for each of ``hands``, so that all have about as many tokens: the largest first, to whom has least."""
    found: list[list[Batch]] = [[] for _ in range(hands)]
    tokens = [0] * hands
    for batch in sorted(batches, key=lambda one: -one.ids.numel()):
        least = tokens.index(min(tokens))
        found[least].append(batch)
        tokens[least] += batch.ids.numel()
    return found
