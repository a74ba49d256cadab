"""Texts that end an answer: found while it is written, cut off when it is done."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

EVERY = 8  # steps between two looks at what was written
BYTES = 4  # of a character at most, and a token may be one byte


@dataclass(frozen=True)
class StopTexts:
    """The stop texts of one answer, and how its tokens become text."""

    texts: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]

    def met(self, made: Sequence[int], fresh: int) -> bool:
        """Whether an answer of tokens ``made`` holds a stop text that its last ``fresh`` tokens completed."""
        reach = fresh + BYTES * max(map(len, self.texts))
        # the end of a text may be decoded differently by itself, so what is found there is looked for in the whole
        return self._held(self.decode(made[-reach:])) and self._held(self.decode(made))

    def cut(self, made: Sequence[int]) -> tuple[str, int] | None:
        """The text before the earliest stop, and how many tokens reach to its end; None without a stop."""
        text = self.decode(made)
        if not self._held(text):
            return None
        count = bisect_left(range(len(made) + 1), True, key=lambda end: self._held(self.decode(made[:end])))
        return text[: min(at for one in self.texts if (at := text.find(one)) >= 0)], count

    def _held(self, text: str) -> bool:
        return any(one in text for one in self.texts)


def stops_of(texts: Sequence[str], decode: Callable[[Sequence[int]], str]) -> StopTexts | None:
    """None where nothing but the model's own end stops an answer; an empty text stops nothing."""
    told = tuple(one for one in texts if one)
    return StopTexts(told, decode) if told else None
