"""One batch of answers from llama.cpp: the prompts read, then a token for every row that still runs, at each step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quantgate.engines._llama import LlamaContext, Sampler
from quantgate.engines._stops import StopTexts
from quantgate.errors import EngineError

MOST_AT_ONCE = 65  # tokens that a row may gain in one step, beside a draft


@dataclass(frozen=True)
class Row:
    """One prompt of a batch."""

    index: int  # its place in the question
    prompt: list[int]
    budget: int
    stop: StopTexts | None = None
    grammar: str = ""  # GBNF that holds this row's answer to a form
    full: bool = False  # no stop id ends it


@dataclass(frozen=True)
class Speed:
    """How fast prompts were read and answers written, over everything since the engine was opened."""

    prefill_tokens: int = 0
    prefill_s: float = 0.0
    decode_tokens: int = 0
    decode_s: float = 0.0
    passes: int = 0  # of the target while it wrote, each counted once for every row in it
    drafted: int = 0  # tokens that a draft model proposed
    accepted: int = 0  # of these, that stood
    close: int = 0  # greedy choices beside a draft whose two likeliest tokens were nearly alike

    @property
    def prefill(self) -> float:
        """Tokens a second."""
        return self.prefill_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode(self) -> float:
        """Tokens a second, over all rows of a batch together."""
        return self.decode_tokens / self.decode_s if self.decode_s else 0.0

    @property
    def accepted_share(self) -> float:
        """Of the drafted tokens."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Of the target, for one row: 1 without a draft."""
        return self.decode_tokens / self.passes if self.passes else 0.0


@dataclass(frozen=True)
class Made:
    """Token ids of every row, its stop included, and the seconds that reading and writing took."""

    made: list[list[int]]
    prefill_s: float
    decode_s: float


class Answerer:
    """Decodes batches in ``context`` until each row meets one of the ``stops`` or its budget."""

    def __init__(self, context: LlamaContext, stops: set[int]) -> None:
        self.context, self.stops = context, stops

    def answer(
        self,
        rows: Sequence[Row],
        samplers: Sequence[Sampler] | None = None,
        watch: Callable[[Sequence[int]], None] | None = None,
    ) -> Made:
        """``samplers`` None takes the likeliest token at each step; ``watch`` hears which prompts just got one."""
        began = time.perf_counter()
        self.context.clear()
        made = self._read(rows) if samplers is None else self._draw(rows, samplers)
        prefilled = time.perf_counter()
        if watch is not None:
            watch([row.index for row in rows])
        running = [at for at, row in enumerate(rows) if goes_on(row, made[at], self.stops)]
        while running:
            fed = [(made[at][-1], len(rows[at].prompt) + len(made[at]) - 1, at, True) for at in running]
            logits = self.context.decode(fed)
            for place, at in enumerate(running):
                chosen = logits[place].argmax() if samplers is None else self.context.sample(samplers[at].handle, place)
                made[at].append(int(chosen))
            if watch is not None:
                watch([rows[at].index for at in running])
            running = [at for at in running if goes_on(rows[at], made[at], self.stops)]
        return Made(made, prefilled - began, time.perf_counter() - prefilled)

    def _read(self, rows: Sequence[Row]) -> list[list[int]]:
        """Every prompt, side by side, and the likeliest token behind each."""
        logits = self.context.decode([one for at, row in enumerate(rows) for one in fed(row, at)])
        return [[int(token)] for token in logits.argmax(-1)]

    def _draw(self, rows: Sequence[Row], samplers: Sequence[Sampler]) -> list[list[int]]:
        """One prompt after the other: a sampler reads the logits of the last batch alone."""
        made = []
        for at, (row, sampler) in enumerate(zip(rows, samplers, strict=True)):
            self.context.decode(fed(row, at))
            made.append([self.context.sample(sampler.handle, (len(row.prompt) - 1) % self.context.room)])
        return made


def goes_on(row: Row, made: list[int], stops: set[int]) -> bool:
    """Whether an answer so far is neither stopped nor as long as it may be."""
    if (made[-1] in stops and not row.full) or len(made) >= row.budget:
        return False
    return row.stop is None or not row.stop.met(made, MOST_AT_ONCE)


def fed(row: Row, at: int) -> list[tuple[int, int, int, bool]]:
    """A prompt as tokens of sequence ``at``, with logits wanted behind the last one."""
    last = len(row.prompt) - 1
    return [(token, place, at, place == last) for place, token in enumerate(row.prompt)]


def grammar_of(grammar: str, json_schema: dict[str, Any] | None) -> str:
    """The GBNF that answers are held to, or "". Raises EngineError for both, and for a schema that has none."""
    if grammar and json_schema is not None:
        raise EngineError("both 'grammar' and 'json_schema' are given; an answer has one form, keep one of them")
    if json_schema is None:
        return grammar
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(json.dumps(json_schema)))
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError, AssertionError) as refused:
        raise EngineError(f"llama.cpp has no grammar for the JSON schema ({str(refused)[:120]}); simplify it") from None
