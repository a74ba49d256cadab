"""How the next token is chosen where a draft model proposes it: three rules that keep what the target would have done.

    Likeliest   the target's likeliest token; a draft stands where it is that token
    Held        the token that a llama.cpp sampler draws, grammar included; a draft stands where it is that token
    Rejection   a draft x stands with chance min(1, p(x) / q(x)), else a token is drawn from max(0, p - q): whatever the
                draft's distribution q is, answers have the target's p

Source: Leviathan et al. 2023, arXiv 2211.17192, algorithm 1 and appendix A.1; Chen et al. 2023, arXiv 2302.01318.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from quantgate.engines._llama import LlamaContext, Sampler

Numbers = np.ndarray[Any, np.dtype[Any]]
CLOSE = 0.1  # of the logits' spread: a lead that a pass of another width may turn over, see docs/LOG.md


class Chooser(Protocol):
    """Chooses one row's tokens, in their order."""

    @property
    def close(self) -> int:
        """Choices so far between two tokens that are nearly alike."""
        ...

    def propose(self, logits: Numbers) -> int:
        """The draft's next token, from its own ``logits`` [vocabulary]."""
        ...

    def choose(self, logits: Numbers, at: int, proposed: int | None) -> int:
        """The next token: ``proposed`` where the draft stands, else another one.

        ``logits`` [vocabulary] are the target's, of the ``at``-th token of its last pass; ``proposed`` None: the draft
        said nothing.
        """
        ...


class Likeliest:
    """See ``Chooser``."""

    def __init__(self) -> None:
        self.close = 0

    def propose(self, logits: Numbers) -> int:
        return int(logits.argmax())

    def choose(self, logits: Numbers, at: int, proposed: int | None) -> int:
        first, second = np.partition(logits, -2)[-2:][::-1]
        self.close += bool(first - second < CLOSE * logits.std())
        return int(logits.argmax())


class Held:
    """See ``Chooser``. The sampler sees each token once, in order, so its grammar and its chance go on as ever."""

    close = 0

    def __init__(self, context: LlamaContext, sampler: Sampler) -> None:
        self.context, self.sampler = context, sampler

    def propose(self, logits: Numbers) -> int:
        return int(logits.argmax())

    def choose(self, logits: Numbers, at: int, proposed: int | None) -> int:
        return self.context.sample(self.sampler.handle, at)


class Rejection:
    """See ``Chooser``. ``seed`` fixes the row's chance."""

    close = 0

    def __init__(self, temperature: float, top_k: int, top_p: float, seed: int) -> None:
        self.settings = temperature, top_k, top_p
        self.random = np.random.default_rng(seed)
        self.proposals: list[Numbers] = []  # the draft's distributions whose tokens were not judged yet

    def propose(self, logits: Numbers) -> int:
        self.proposals.append(distribution(logits, *self.settings))
        return self._draw(self.proposals[-1])

    def choose(self, logits: Numbers, at: int, proposed: int | None) -> int:
        wanted = distribution(logits, *self.settings)
        if proposed is None:
            return self._draw(wanted)
        given = self.proposals.pop(0)
        left = np.maximum(wanted - given, 0.0)
        if self.random.random() * given[proposed] < wanted[proposed] or not left.any():
            return proposed
        self.proposals.clear()  # what follows a token that fell was never said
        return self._draw(left)

    def _draw(self, weights: Numbers) -> int:
        sums = np.cumsum(weights)
        return int(np.searchsorted(sums, self.random.random() * sums[-1], side="right"))


def distribution(logits: Numbers, temperature: float, top_k: int, top_p: float) -> Numbers:
    """Chances [vocabulary], float64, of the next token; ``top_k`` 0 and ``top_p`` 1 leave every token in.

    In llama.cpp's order: the ``top_k`` likeliest, of these the fewest that hold ``top_p`` of the chance, and the
    temperature upon what is left.
    """
    numbers = np.asarray(logits, dtype=np.float64)
    order = np.argsort(-numbers, kind="stable")[: top_k or None]
    if top_p < 1:
        chances = _softmax(numbers[order])
        order = order[: int((np.cumsum(chances) < top_p).sum()) + 1]
    found = np.zeros(len(numbers))
    found[order] = _softmax(numbers[order] / temperature)
    return found


def _softmax(x: Numbers) -> Numbers:
    raised = np.exp(x - x.max())
    return np.asarray(raised / raised.sum())
