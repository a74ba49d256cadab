"""A running average of what is trained: it is nearer to where noisy steps circle than any single step is.

Weights under quantization-aware training swing about the edges of their codes (Nagel et al., arXiv 2203.11086, section
3); their average says on which side they mostly are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """``average <- average + (1 - decay) (parameter - average)`` after every step; ``decay`` 0 keeps none.

    Early steps count for more, by a decay of at most (1 + step) / (10 + step), so that the start is soon forgotten
    (TensorFlow's ExponentialMovingAverage with ``num_updates``).
    """

    @torch.no_grad()
    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = dict(parameters), decay
        self.tensors: dict[str, Tensor] = (
            {name: one.detach().clone() for name, one in parameters.items()} if decay else {}
        )

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Take in what ``step`` (from 1) left in the parameters."""
        if self.tensors:
            new = 1 - min(self._decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.tensors.values()), list(self._parameters.values()), new)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The averages stand in the parameters' place."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, mean in self.tensors.items():
            held = self._parameters[name]
            held.data, self.tensors[name] = mean, held.data
