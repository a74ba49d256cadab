"""Continuations weighed instead of generated: the log likelihood of each, and whether greedy decoding would write it.

A context and a continuation become ids as lm-eval makes them (0.4.13, ``api/model.py``: ``TemplateLM._encode_pair`` and
``loglikelihood``): white space at the end of the context belongs to the continuation, both are tokenized as one text,
and what lies behind the context's own ids is weighed. Behind an empty context stands the token that begins a text, or
that ends one where there is none. Inputs that several continuations share are computed once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from quantgate.engines import Completion, Failure, Prompt
from quantgate.engines._prompts import text_of
from quantgate.errors import DataError
from quantgate.models import OpenedModel

if TYPE_CHECKING:
    from torch import Tensor

Tokenize = Callable[[str, bool], list[int]]  # a text, and whether the tokenizer adds its special tokens
TextOf = Callable[[Prompt], tuple[str, bool]]
Logits = Callable[["Tensor", "Tensor"], "Tensor"]
BATCH_TOKENS = 2048  # positions that go through the model at once


@dataclass(frozen=True)
class Weigher:
    """How an engine's model reads texts and gives logits; ``room`` tokens are the most that it reads."""

    text_of: TextOf
    tokenize: Tokenize
    begin: int  # stands in front of a continuation without context
    logits: Logits
    room: int

    @classmethod
    def of(cls, model: OpenedModel, stops: Collection[int], tokenize: Tokenize, logits: Logits) -> Self:
        """As ``model`` reads; its answers end with any of ``stops``."""
        tokenizer = model.tokenizer
        begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        begin = min(stops) if begin is None else int(begin)
        return cls(partial(text_of, model), tokenize, begin, logits, room=model.context)

    def answers(self, prompts: Sequence[Prompt]) -> dict[int, Completion | Failure]:
        """By place, an answer to every prompt with choices: JSON, [[log likelihood, greedy], ...]."""
        found: dict[int, Completion | Failure] = {}
        asked: dict[int, list[tuple[list[int], list[int]]]] = {}
        for index, prompt in enumerate(prompts):
            if prompt.choices:
                pairs = self._pairs(prompt)
                if isinstance(pairs, Failure):
                    found[index] = pairs
                else:
                    asked[index] = pairs
        weights = self._weigh({tuple(a + b): len(a) for pairs in asked.values() for a, b in pairs})
        for index, pairs in asked.items():
            found[index] = _completion(pairs, [weights[tuple(a + b), len(a)] for a, b in pairs])
        return found

    def _pairs(self, prompt: Prompt) -> list[tuple[list[int], list[int]]] | Failure:
        try:
            text, special = self.text_of(prompt)
        except DataError as refused:  # a template may refuse roles, or their order
            return Failure(reason=str(refused))
        pairs = [self.pair(text, special, one) for one in prompt.choices]
        longest = max(len(context) + len(continuation) for context, continuation in pairs)
        if longest > self.room + 1:  # the last token is weighed, not read
            return Failure(reason=f"prompt and choice of {longest} tokens exceed the context of {self.room}")
        if not all(continuation for _, continuation in pairs):
            return Failure(reason="a choice adds no token to the prompt, so there is nothing to weigh")
        return pairs

    def pair(self, context: str, special: bool, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of the context, never none, and of the continuation behind it."""
        kept = context.rstrip()
        ids = self.tokenize(kept, special) if kept else []
        if ids:
            whole = self.tokenize(context + continuation, special)
            return ids, whole[len(ids) :]
        ids = self.tokenize(context + continuation, False)
        return (ids[:1], ids[1:]) if ids[:1] == [self.begin] else ([self.begin], ids)

    def _weigh(self, wanted: dict[tuple[int, ...], int]) -> dict[tuple[tuple[int, ...], int], tuple[float, bool]]:
        """``wanted``: ids of context and continuation -> how many are the context's."""
        inputs: dict[tuple[int, ...], list[tuple[tuple[int, ...], int]]] = {}
        for whole, start in wanted.items():
            inputs.setdefault(whole[:-1], []).append((whole, start))
        found: dict[tuple[tuple[int, ...], int], tuple[float, bool]] = {}
        for batch in _batches(sorted(inputs, key=lambda row: (len(row), row))):
            found |= self._batch(batch, [inputs[row] for row in batch])
        return found

    def _batch(
        self, rows: Sequence[tuple[int, ...]], asked: Sequence[Sequence[tuple[tuple[int, ...], int]]]
    ) -> dict[tuple[tuple[int, ...], int], tuple[float, bool]]:
        import torch

        longest = len(rows[-1])
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        at = torch.zeros(len(rows), longest, dtype=torch.bool)
        firsts = [min(start for _, start in one) - 1 for one in asked]  # the position that foresees the first token
        for place, (row, first) in enumerate(zip(rows, firsts, strict=True)):
            ids[place, : len(row)] = torch.tensor(row)
            at[place, first : len(row)] = True
        logs = self.logits(ids, at).float().log_softmax(-1)  # [positions, vocabulary]
        parts = logs.split([len(row) - first for row, first in zip(rows, firsts, strict=True)])
        found = {}
        for part, first, wanted in zip(parts, firsts, asked, strict=True):
            for whole, start in wanted:
                tokens, seen = torch.tensor(whole[start:]), part[start - 1 - first :]
                total = float(seen.gather(1, tokens[:, None]).sum())
                found[whole, start] = total, bool((seen.argmax(-1) == tokens).all())
        return found


def _batches(rows: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Neighbours in length, within BATCH_TOKENS; ``rows`` are sorted."""
    batches: list[list[tuple[int, ...]]] = []
    for row in rows:
        if not batches or (len(batches[-1]) + 1) * len(row) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches


def _completion(
    pairs: Sequence[tuple[list[int], list[int]]], weights: Sequence[tuple[float, bool]]
) -> Completion | Failure:
    if any(weight - weight != 0 for weight, _ in weights):  # NaN or infinite
        return Failure(reason="the model's log likelihoods are not all numbers")
    return Completion(text=json.dumps(weights), tokens=0, prompt_tokens=len(pairs[0][0]), finish="stop")
