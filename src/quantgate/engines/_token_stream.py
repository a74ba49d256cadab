"""Answers token by token: what a gateway needs of an engine in its own process.

    stream = TokenStream(engine)
    for piece in stream.texts(ids, max_tokens=64):
        print(piece.text, end="")

Several answers may be written at once, a step of each in turn: see ``serve.upstreams``. Closing an answer, or letting
go of it, ends its work; with no sampling asked for, its tokens are those of ``engine.generate``.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from quantgate.engines import Identity
from quantgate.engines._kept import Keep
from quantgate.engines._pieces import Spelling, Stops
from quantgate.engines._sampling import Logprob, Mask, Sampling, Taker
from quantgate.engines._seats import Seats
from quantgate.errors import EngineError

GREEDY = Sampling()


class Streamed(Protocol):
    """What a stream needs of an engine: the torch and the llama.cpp engine have it."""

    @property
    def source(self) -> Any: ...  # the OpenedModel

    @property
    def stops(self) -> set[int]: ...

    def seats(self, keep: Keep, at_once: int) -> Seats: ...

    @property
    def identity(self) -> Identity: ...

    def tokens(self, text: str, special: bool) -> list[int]: ...

    def text(self, tokens: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """One step of an answer: while the prompt is read there is nothing in it."""

    text: str = ""  # what became certain; never half a character
    tokens: tuple[int, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    finish: Literal["stop", "length"] | None = None  # of the last piece alone


@dataclass(slots=True)
class Times:
    """Seconds, as they passed for this answer: steps of other answers in between are in them."""

    cache: float = 0.0  # looking for a conversation that began alike
    prefill: float = 0.0  # to the first token
    decode: float = 0.0  # from there to the last


class TokenStream:
    """Raises EngineError for an engine that has no steps."""

    def __init__(self, engine: Streamed, keep: Keep | None = None, *, at_once: int = 4) -> None:
        """At most ``at_once`` answers are written in turns."""
        if not hasattr(engine, "seats"):
            raise EngineError(f"{type(engine).__name__} does not answer token by token; use torch or llamacpp")
        self.engine, self.context = engine, int(engine.source.context)
        self.seats = engine.seats(keep or Keep(), at_once)
        vocabulary = engine.source.tokenizer.get_vocab()
        self.byte_tokens = frozenset(
            number for name, number in vocabulary.items() if len(name) == 6 and name.startswith("<0x")
        )

    def ids(self, text: str) -> list[int]:
        """A rendered prompt as token ids, as the engine's own ``generate`` makes them."""
        return self.engine.tokens(text, not self.engine.source.tokenizer.chat_template)

    def spell(self, token: int) -> str:
        """The text of a token by itself; a part of a character is U+FFFD."""
        return self.engine.text([token])

    def texts(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: Sampling = GREEDY,
        *,
        mask: Mask | None = None,
        stop: Sequence[str] = (),
    ) -> Answer:
        """An answer of at most ``max_tokens``, not begun yet. Raises EngineError for what does not fit the context."""
        if not prompt or max_tokens < 1 or len(prompt) + max_tokens > self.context:
            raise EngineError(
                f"a prompt of {len(prompt)} tokens and an answer of {max_tokens} do not fit the context of "
                f"{self.context} tokens; shorten the prompt, or ask for a shorter answer"
            )
        return Answer(self, list(prompt), max_tokens, Taker(sampling, mask, self.engine.stops), stop)


class Answer(Iterator[Piece]):
    """The pieces of one answer. ``made`` are its tokens so far, the one that ended it not counted."""

    def __init__(
        self, stream: TokenStream, prompt: list[int], max_tokens: int, taker: Taker, stop: Sequence[str]
    ) -> None:
        self.prompt, self.taker = prompt, taker
        self.made: list[int] = []
        self.times, self.reused = Times(), 0
        self._stream, self._budget = stream, max_tokens
        self._spelling = Spelling(stream.engine.text, stream.byte_tokens.__contains__)
        self._stops = Stops(stop)
        self._steps = self._write()

    def __next__(self) -> Piece:
        return next(self._steps)

    def close(self) -> None:
        """End the work; what was read serves the next conversation that begins alike."""
        self._steps.close()

    def _write(self) -> Generator[Piece]:
        began = time.perf_counter()
        seat = self._stream.seats.sit(self.prompt, len(self.prompt) + self._budget)
        self.reused, sat = seat.reused, time.perf_counter()
        self.times.cache = sat - began
        try:
            while (logits := seat.read()) is None:
                self.times.prefill = time.perf_counter() - sat
                yield Piece()
            first = time.perf_counter()
            self.times.prefill = first - sat
            while True:
                piece = self._step(logits)
                self.times.decode = time.perf_counter() - first
                yield piece
                if piece.finish:
                    return
                logits = seat.feed(self.made[-1])
        finally:
            seat.leave()

    def _step(self, logits: Any) -> Piece:
        """Take the next token, and say what became certain with it."""
        token, chance = self.taker.take(logits)
        if token in self._stream.engine.stops:
            return Piece(self._rest(), finish="stop")
        self.made.append(token)
        text = self._stops.push(self._spelling.push(token))
        mask = self.taker.mask
        finish: Literal["stop", "length"] | None = "stop" if self._stops.met else None
        if finish is None and mask is not None and mask.ended:
            finish = "stop"
        if finish is None and len(self.made) >= self._budget:
            finish = "length"
        rest = "" if finish is None or self._stops.met else self._rest()
        if self._stops.met:  # a stop text may lie in what was held back of a character
            finish = "stop"
        return Piece(text + rest, (token,), () if chance is None else (chance,), finish)

    def _rest(self) -> str:
        """What was held back, up to a stop text that it may complete."""
        return self._stops.push(self._spelling.end()) + self._stops.end()
