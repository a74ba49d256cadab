"""How the next token is taken from logits: the likeliest, or by chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from quantgate.errors import EngineError


class Mask(Protocol):
    """What holds an answer to a form while it is written: ``guard.masks.TokenMask`` is one."""

    def allowed(self, logits: Tensor) -> None:
        """Set the logits [vocabulary] of tokens that may not come next to -inf, in place."""
        ...

    def take(self, token: int) -> bool:
        """Go on by a token; False: it may not come here."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the form is complete and nothing may follow."""
        ...


@dataclass(frozen=True)
class Sampling:
    """``temperature`` 0 takes the likeliest token, and nothing else but biases and penalties matters."""

    temperature: float = 0.0
    top_p: float = 1.0  # the smallest set of likeliest tokens with this mass; 1: all
    top_k: int = 0  # that many likeliest tokens; 0: all
    min_p: float = 0.0  # tokens at least this likely, as a share of the likeliest; 0: all
    seed: int | None = None  # None: another chance every time
    bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of tokens
    presence: float = 0.0  # taken from the logits of tokens that were written
    frequency: float = 0.0  # the same, for each time
    logprobs: int | None = None  # how many likeliest tokens are told with each; None: not even its own


@dataclass(frozen=True)
class Logprob:
    """Natural logarithms of the model's own chances: before temperature, biases and masks."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Taker:
    """Takes the tokens of one answer."""

    def __init__(self, sampling: Sampling, mask: Mask | None = None, ends: Container[int] = ()) -> None:
        """``ends`` are the tokens that end an answer: no form goes on by them."""
        self.sampling, self.mask, self.ends = sampling, mask, ends
        self.chance: torch.Generator | None = None
        if sampling.temperature > 0:
            self.chance = torch.Generator()
            if sampling.seed is None:
                self.chance.seed()
            else:
                self.chance.manual_seed(sampling.seed)
        self.changes = bool(sampling.bias or sampling.presence or sampling.frequency)
        self.written: Counter[int] = Counter()

    @torch.inference_mode()
    def take(self, logits: Tensor) -> tuple[int, Logprob | None]:
        """The next token out of float32 logits [vocabulary], which are spent by it. Raises EngineError."""
        asked = self.sampling
        before = None if asked.logprobs is None else torch.log_softmax(logits, -1)
        if self.changes:
            self._change(logits)
        if self.mask is not None:
            self.mask.allowed(logits)
        token = int(logits.argmax()) if self.chance is None else self._draw(logits, self.chance)
        if self.mask is not None and (logits[token] == -torch.inf or not (token in self.ends or self.mask.take(token))):
            raise EngineError("no token may follow in the form that the answer is held to; simplify its schema")
        if self.changes:
            self.written[token] += 1
        return token, None if before is None else self._told(before, token)

    def _change(self, logits: Tensor) -> None:
        for token, by in self.sampling.bias.items():
            logits[token] += by
        for token, times in self.written.items():
            logits[token] -= self.sampling.presence + self.sampling.frequency * times

    def _draw(self, logits: Tensor, chance: torch.Generator) -> int:
        asked = self.sampling
        values, order = (logits.cpu() / asked.temperature).sort(descending=True)
        shares = torch.softmax(values, -1)
        kept = torch.ones_like(shares, dtype=torch.bool)
        if asked.top_k:
            kept[asked.top_k :] = False
        if asked.top_p < 1:
            kept &= shares.cumsum(-1) - shares < asked.top_p
        if asked.min_p:
            kept &= shares >= asked.min_p * shares[0]
        kept[0] = True
        return int(order[torch.multinomial(shares * kept, 1, generator=chance)])

    def _told(self, before: Tensor, token: int) -> Logprob:
        count = self.sampling.logprobs or 0
        values, tokens = before.topk(count)
        top = tuple(zip(tokens.tolist(), values.tolist(), strict=True))
        return Logprob(token, float(before[token]), top)
