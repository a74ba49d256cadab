"""Conversations for training: drafts of the train split, tokenized, and batched by length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from quantgate.errors import DataError
from quantgate.evaluate import suites
from quantgate.evaluate.suites import (
    Difficulty,
    Draft,
    Role,
    chat,
    json_tools,
    long_context,
    multilingual,
    rare_vocabulary,
)
from quantgate.train.reference.tokenizer import BEGIN, END, SPECIAL

LEVELS: tuple[Difficulty, ...] = ("default", "hard")
# A list, tools or a story at the beginning teaches with several questions: share of documents, questions, generator.
CONVERSATIONS: dict[str, tuple[float, int, Callable[[random.Random, int], list[tuple[Role, str]]]]] = {
    "json_tools": (0.7, 4, json_tools.draw_many),
    "chat": (0.5, 6, chat.draw_many),
    "rare_vocabulary": (0.5, 6, rare_vocabulary.draw_many),
    "multilingual": (0.8, 10, multilingual.draw_many),
}
HARD = 0.08  # share of hard drafts, so that harder slices are met but not mastered


@dataclass(frozen=True)
class Document:
    """One conversation: token ids, and how much each of them counts when the model is to produce it."""

    suite: str
    ids: list[int]
    wanted: list[float]  # 1 in answers that are learned, 0 where nothing is asked


@dataclass(frozen=True)
class Batch:
    """Conversations of like length, one a row, padded on the right."""

    ids: Tensor  # [rows, length]
    answered: Tensor  # [rows, length], True where the *next* token is wanted
    targets: Tensor  # [answers] those next tokens
    weights: Tensor  # [answers] how much each of them counts
    owner: Tensor  # [answers] the row each belongs to


def encode(
    tokenizer: PreTrainedTokenizerFast,
    suite: str,
    turns: list[tuple[Role, str]],
    *,
    every_answer: bool,
    prompts: float = 0.0,
) -> Document:
    """Token ids of a conversation that ends with an assistant turn; the last answer is wanted, or every one.

    All other text counts ``prompts`` as much.
    """
    number = _numbers(tokenizer)
    ids, wanted = [number[BEGIN]], [0.0]
    for index, (role, text) in enumerate(turns):
        body = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids  # a tenth of the wrapper's time
        learn = role == "assistant" and (every_answer or index == len(turns) - 1)
        ids += [number[f"<|{role}|>"], *body, number[END]]
        wanted += [prompts] + [1.0 if learn else prompts] * (len(body) + 1)
    return Document(suite, ids, wanted)


@cache
def _numbers(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Ids of the special tokens; asking the tokenizer for each is what most of the time would go into."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return {token: vocabulary[token] for token in SPECIAL}


def of_draft(tokenizer: PreTrainedTokenizerFast, suite: str, draft: Draft, prompts: float = 0.0) -> Document:
    turns: list[tuple[Role, str]] = [*draft.messages, ("assistant", draft.answer)]
    return encode(tokenizer, suite, turns, every_answer=False, prompts=prompts)


class Stream:
    """Endless training documents: each step takes the suite that is furthest below its share of tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, prompts: float = 0.0) -> None:
        self.tokenizer, self.seed, self.prompts, self.unlike = tokenizer, seed, prompts, 0.4

    def restart(self, step: int, shares: dict[str, float]) -> None:
        """Draw anew from a seed of this step's own: what follows depends on step and shares, not on the past."""
        self.shares = shares
        self.rng = random.Random(f"{self.seed}/{step}")
        self.spent = dict.fromkeys(shares, 0.0)
        self.sources = {
            (name, level): suites.drafts(suites.get(name), "train", self.seed + step, level)
            for name in shares
            for level in LEVELS
        }

    def documents(self, longest: int) -> Iterator[Document]:
        """Documents of at most ``longest`` tokens. Raises DataError for a suite that has none so short."""
        while True:
            name = min(self.shares, key=lambda one: self.spent[one] / self.shares[one])
            drawn = (self._draw(name, longest) for _ in range(1000))
            document = next((one for one in drawn if len(one.ids) <= longest), None)
            if document is None:
                raise DataError(
                    f"suite '{name}': no document of at most {longest} tokens among 1000; allow longer ones"
                )
            self.spent[name] += len(document.ids)
            yield document

    def _draw(self, name: str, longest: int) -> Document:
        hard = self.rng.random() < HARD
        if turns := self._conversation(name, longest, hard):
            return encode(self.tokenizer, name, turns, every_answer=True, prompts=self.prompts)
        draft = next(self.sources[name, "hard" if hard else "default"])
        return of_draft(self.tokenizer, name, draft, self.prompts)

    def _conversation(self, name: str, longest: int, hard: bool) -> list[tuple[Role, str]]:
        """Several questions about one thing, or nothing where this document is to hold a single problem."""
        if name == "long_context" and not (hard and longest >= 2048):
            # a line takes some 12 tokens, a question with its answer 20 on average, what stands around them 80
            fits = [count for count in (8, 16, 32, 64, 128) if count * 12 + 150 <= longest]
            records = self.rng.choice(fits or [8])
            questions = min(24, records, max(1, (longest - 12 * records - 80) // 25))
            # to find a name by any of its words comes first; by all of them, when others share each, is built on it
            sharing = 1 if self.rng.random() < self.unlike else 2
            return long_context.draw_many(self.rng, "default", questions, records=records, sharing=sharing)
        if name not in CONVERSATIONS or hard or (name == "json_tools" and longest < 512):
            return []
        share, questions, draw_many = CONVERSATIONS[name]
        return draw_many(self.rng, questions) if self.rng.random() < share else []

    def step(self, tokens: int, longest: int, copying: float, unlike: float = 0.4) -> list[Batch]:
        """About ``tokens`` tokens of documents no longer than ``longest``, as batches of like length.

        A share ``copying`` of the documents are copy drills (docs/decisions/0008-copying-from-the-start.md). In a share
        ``unlike`` of the lists no two names have a word in common, so that any one word finds the line.
        """
        self.unlike = unlike
        source, drawn, held = self.documents(longest), list[Document](), 0
        while held < tokens:
            drawn.append(self.copy_drill() if self.rng.random() < copying else next(source))
            held += len(drawn[-1].ids)
        return batches(drawn, self.tokenizer.pad_token_id, min(1536, tokens // 4))

    def copy_drill(self) -> Document:
        """2 to 24 random tokens, over and over up to 72; all but the first round are wanted."""
        period, special = self.rng.randint(2, 24), len(SPECIAL)
        body = [self.rng.randrange(special, len(self.tokenizer)) for _ in range(period)]
        ids = [_numbers(self.tokenizer)[BEGIN], *(body * (72 // period + 1))[:72]]
        return Document("copy", ids, [0.0] * (period + 2) + [1.0] * (len(ids) - period - 2))


def batches(documents: list[Document], pad: int, tokens: int = 1536) -> list[Batch]:
    """Sort by length and cut, so that a batch holds about ``tokens`` tokens and little padding."""
    parts: list[list[Document]] = [[]]
    for document in sorted(documents, key=lambda one: len(one.ids)):
        if parts[-1] and (len(parts[-1]) + 1) * len(document.ids) > tokens:
            parts.append([])
        parts[-1].append(document)
    return [_batch(part, pad) for part in parts]


def _batch(part: list[Document], pad: int) -> Batch:
    length = max(len(one.ids) for one in part)
    ids = torch.tensor([one.ids + [pad] * (length - len(one.ids)) for one in part])
    weights = torch.tensor([one.wanted[1:] + [0.0] * (length - len(one.ids) + 1) for one in part])
    answered = weights > 0
    owner = torch.arange(len(part))[:, None].expand_as(ids)
    return Batch(ids, answered, ids.roll(-1, dims=1)[answered], weights[answered], owner[answered])
