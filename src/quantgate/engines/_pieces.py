"""Tokens become text while they are written: never half a character, and nothing of a text that ends the answer.

spelling = Spelling(engine.text, engine.is_byte)
"".join([*(spelling.push(token) for token in ids), spelling.end()]) == engine.text(ids)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"


class Spelling:
    """The text of tokens that come one by one; together it is what ``decode`` makes of all of them.

    ``is_byte`` tells tokens that stand for one byte and are decoded in runs (SentencePiece's ``<0x0A>``): what a run
    becomes is open until it ends.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], is_byte: Callable[[int], bool]) -> None:
        self.decode, self.is_byte = decode, is_byte
        self.window: list[int] = []  # the tokens that the next ones may be decoded with
        self.kept = 0  # how many of them were there when the text was last complete
        self.sent = 0  # characters of the window's text that were given

    def push(self, token: int) -> str:
        """The text that became certain with ``token``, often none."""
        self.window.append(token)
        if self.is_byte(token):
            return ""
        text = self.decode(self.window)
        certain = len(text) - text.endswith(BROKEN)  # the last one may be the begin of a character
        fresh = text[self.sent : certain]
        self.sent = max(self.sent, certain)
        if certain == len(text):
            self._move()
        return fresh

    def end(self) -> str:
        """What was held back; the tokens end here."""
        text = self.decode(self.window)
        fresh, self.sent = text[self.sent :], len(text)
        return fresh

    def _move(self) -> None:
        """Let go of the tokens in front of the last complete text, if those behind it have a text of their own."""
        rest = self.window[self.kept :]
        text = self.decode(rest)
        if text:  # a decoder may strip the first token's blank: it must not meet a window that begins with nothing
            self.window, self.sent = rest, len(text)
        self.kept = len(self.window)


class Stops:
    """Texts that end an answer, looked for while it is written; what may be the begin of one is held back.

    >>> stops = Stops(["END"])
    >>> stops.push("over E"), stops.push("ver EN"), stops.push("D and more")
    ('over ', 'Ever ', '')
    >>> stops.met
    True
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = tuple(one for one in texts if one)
        self.held, self.met = "", False

    def push(self, text: str) -> str:
        """What may leave. Once one was ``met``, nothing does."""
        if self.met or not self.texts:
            return "" if self.met else text
        text = self.held + text
        found = [at for one in self.texts if (at := text.find(one)) >= 0]
        if found:
            self.met, self.held = True, ""
            return text[: min(found)]
        most = min(max(map(len, self.texts)) - 1, len(text))
        count = next((n for n in range(most, 0, -1) if any(one.startswith(text[-n:]) for one in self.texts)), 0)
        self.held = text[len(text) - count :]
        return text[: len(text) - count]

    def end(self) -> str:
        """What was held back; the text ends here."""
        text, self.held = self.held, ""
        return text
