"""Speculative decoding: a small model drafts some tokens one by one, the target judges them all in one pass.

    prompt and answer so far   a b c
    the draft says             d e f g              four small passes
    the target, fed c d e f g, gives what follows each: d e x . .
    the answer goes on         d e x                one large pass; both caches forget what was drafted behind e

Every row of a batch drafts and is judged beside the others; how many of its drafts stood decides how far it moves. The
draft cannot change what is answered, only how fast: its weights, its cache's type and its errors cost accepted tokens.
Source: Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.engines._llama import LlamaContext, LlamaModel
from quantgate.engines._llama_answers import Made, Row, fed, goes_on
from quantgate.engines._llama_choose import Chooser, Held
from quantgate.errors import EngineError
from quantgate.quantize.gguf.artifact import GgufArtifact
from quantgate.quantize.gguf.drafts import check_draft
from quantgate.records import digest_file

MOST = 64  # tokens that may be drafted at a time
KV_CACHE = "f16"  # of the draft


@dataclass(frozen=True)
class Tally:
    """What became of drafts. ``passes`` counts a pass once for every row in it."""

    drafted: int = 0
    accepted: int = 0
    passes: int = 0
    close: int = 0
    by_row: tuple[tuple[int, int], ...] = ()  # of every row: drafted, accepted


class Draft:
    """A GGUF file that drafts ``tokens`` at a time for ``target``.

    Raises ArtifactError for a file that is none or whose vocabulary is another one, EngineError for one that llama.cpp
    does not run and for a number of tokens that cannot be.
    """

    def __init__(self, file: GgufArtifact | Path | str, target: GgufArtifact, tokens: int, threads: int) -> None:
        if not 1 <= tokens <= MOST:
            raise EngineError(f"draft_tokens={tokens}: expected 1 to {MOST}; leave 'draft' out to decode without one")
        path = file.tensors.file.path if isinstance(file, GgufArtifact) else Path(file)
        whole = target.tensors.file
        check_draft(path, whole.array("tokenizer.ggml.tokens"), str(whole.path))
        self.tokens, self.threads, self.digest = tokens, threads, digest_file(path)
        self.model = LlamaModel(path)
        self._context: LlamaContext | None = None

    @property
    def runtime(self) -> tuple[str, ...]:
        """What answers depend on, for an ``Identity``."""
        return (f"draft={self.digest}", f"draft_tokens={self.tokens}")

    def room(self, rows: int, length: int) -> LlamaContext:
        """A context for ``rows`` of ``length`` tokens; the last one serves again where it is large enough."""
        held = self._context
        if held is None or held.sequences != rows or held.length < length:
            self._context = None  # released before the next one is made
            del held
            held = LlamaContext(self.model, rows, length, KV_CACHE, KV_CACHE, self.threads, step=2)
            self._context = held
        return held


class Speculator:
    """Answers batches in ``context`` with drafts from ``draft``, as ``Answerer`` does without."""

    def __init__(self, context: LlamaContext, draft: LlamaContext, tokens: int, stops: set[int]) -> None:
        self.context, self.draft, self.tokens, self.stops = context, draft, tokens, stops

    def answer(self, rows: Sequence[Row], choosers: Sequence[Chooser]) -> tuple[Made, Tally]:
        """One chooser for each row."""
        began = time.perf_counter()
        self.context.clear()
        self.draft.clear()
        made = self._read(rows, choosers)
        self.draft.decode(
            [(token, place, at, False) for at, row in enumerate(rows) for token, place, _, _ in fed(row, at)]
        )
        prefilled = time.perf_counter()
        seen = [len(row.prompt) for row in rows]  # tokens of each row that the draft's cache holds
        running = [at for at, row in enumerate(rows) if goes_on(row, made[at], self.stops)]
        drafted, accepted, passes = [0] * len(rows), [0] * len(rows), 0
        while running:
            proposed = self._propose(rows, made, seen, running, choosers)
            stood = self._judge(rows, made, seen, proposed, choosers)
            for at in running:
                drafted[at] += len(proposed[at])
                accepted[at] += stood[at]
            passes += len(running)
            running = [at for at in running if goes_on(rows[at], made[at], self.stops)]
        by_row = tuple(zip(drafted, accepted, strict=True))
        tally = Tally(sum(drafted), sum(accepted), passes, sum(one.close for one in choosers), by_row)
        return Made(made, prefilled - began, time.perf_counter() - prefilled), tally

    def _read(self, rows: Sequence[Row], choosers: Sequence[Chooser]) -> list[list[int]]:
        """The prompts into the target's cache, and the token behind each: one by one where a sampler looks at them."""
        if not any(isinstance(one, Held) for one in choosers):
            logits = self.context.decode([one for at, row in enumerate(rows) for one in fed(row, at)])
            return [[one.choose(logits[at], at, None)] for at, one in enumerate(choosers)]
        made = []
        for at, (row, one) in enumerate(zip(rows, choosers, strict=True)):
            logits = self.context.decode(fed(row, at))
            made.append([one.choose(logits[0], (len(row.prompt) - 1) % self.context.room, None)])
        return made

    def _propose(
        self,
        rows: Sequence[Row],
        made: list[list[int]],
        seen: list[int],
        running: Sequence[int],
        choosers: Sequence[Chooser],
    ) -> dict[int, list[int]]:
        """Drafts of every running row: none behind a stop, nor beyond the budget, which the target's own token ends."""
        proposed: dict[int, list[int]] = {at: [] for at in running}
        room = {at: min(self.tokens, rows[at].budget - len(made[at]) - 1) for at in running}
        behind = {at: (rows[at].prompt + made[at])[seen[at] :] for at in running}
        while asking := [
            at for at in running if room[at] > len(proposed[at]) and not self.stops & {*proposed[at][-1:]}
        ]:
            tokens = []
            for at in asking:
                last = len(behind[at]) - 1
                tokens += [(token, seen[at] + place, at, place == last) for place, token in enumerate(behind[at])]
                seen[at] += len(behind[at])
            logits = self.draft.decode(tokens)
            for place, at in enumerate(asking):
                behind[at] = [choosers[at].propose(logits[place])]
                proposed[at] += behind[at]
        return proposed

    def _judge(
        self,
        rows: Sequence[Row],
        made: list[list[int]],
        seen: list[int],
        proposed: dict[int, list[int]],
        choosers: Sequence[Chooser],
    ) -> dict[int, int]:
        """One pass of the target over all drafts; answers grow, caches forget what fell. How many stood, by row."""
        begins = {at: len(rows[at].prompt) + len(made[at]) for at in proposed}
        logits = self.context.decode(
            [
                (token, begins[at] - 1 + place, at, True)
                for at, drafts in proposed.items()
                for place, token in enumerate([made[at][-1], *drafts])
            ]
        )
        first, found = 0, dict[int, int]()
        for at, drafts in proposed.items():
            stood = 0
            for place, draft in enumerate([*drafts, None]):
                token = choosers[at].choose(logits[first + place], first + place, draft)
                made[at].append(token)
                if token != draft:
                    break
                stood += 1
                if not goes_on(rows[at], made[at], self.stops):
                    break
            first, found[at] = first + len(drafts) + 1, stood
            if stood < len(drafts):
                self.context.forget(at, begins[at] + stood)
            if begins[at] + stood < seen[at]:
                seen[at] = begins[at] + stood
                self.draft.forget(at, seen[at])
        return found
