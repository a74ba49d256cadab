"""degenerate: answers that run on without saying more: the same stretch over and over, or blanks without end.

The signs of a damaged model that no schema sees. A loop is a stretch of at most ``period`` characters that stands at
least ``times`` times in a row and covers ``characters`` at the newest end of the text.
"""

from __future__ import annotations

from pydantic import Field

from quantgate.guard import Fault, Message
from quantgate.guard.validators import Context, Plugin, Proof, Watch, refused, texts
from quantgate.records import Record

GRAM = 8
STEP = 32  # characters between two looks at a text that is still being written


class Settings(Record):
    period: int = Field(default=64, ge=1, le=512, description="characters of the longest stretch that is looked for")
    times: int = Field(default=8, ge=3, description="repetitions in a row that make a loop")
    characters: int = Field(default=160, ge=32, description="that a loop covers, at least")
    blanks: int = Field(default=400, ge=16, description="blanks in a row that make a loop")


class Degenerate:
    name = "degenerate"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.span = max(settings.characters, settings.blanks, settings.period * settings.times)
        self.reach: int | None = 0  # a loop is no secret: what has left of it harms nobody

    def check(self, message: Message, context: Context) -> Fault | None:
        for where, text in texts(message):
            for end in (*range(STEP, len(text), STEP), len(text)):
                if fault := self.look(text[max(0, end - self.span) : end], where):
                    return fault
        return None

    def watch(self, where: str, context: Context) -> Watch:
        return _Loop(self, where)

    def look(self, tail: str, where: str) -> Fault | None:
        """The fault of a loop at the end of ``tail``."""
        wanted = self.settings
        if len(tail) >= wanted.blanks and tail[-wanted.blanks :].isspace():
            return refused(self.name, where, f"runs on with more than {wanted.blanks} blanks in a row")
        if len(tail) < wanted.characters:
            return None
        end = tail[-GRAM:]  # where it stood before tells the periods that are possible
        at = tail.rfind(end, -wanted.period - GRAM, -1)
        while at >= 0:
            period = len(tail) - GRAM - at
            long = max(wanted.characters, period * wanted.times)
            if len(tail) >= long and tail[-long:-period] == tail[period - long :] and not tail[-period:].isspace():
                return refused(self.name, where, "repeats one stretch over and over")
            at = tail.rfind(end, -wanted.period - GRAM, at + GRAM - 1)
        return None

    def proof(self) -> Proof:
        loop = "ab" * (max(self.settings.characters, 2 * self.settings.times) // 2 + STEP)
        return Proof({"content": loop}, {"content": "Each sentence of this answer says something of its own."})


class _Loop:
    def __init__(self, validator: Degenerate, where: str) -> None:
        self._validator, self._where, self._tail, self._fresh = validator, where, "", 0

    def feed(self, text: str) -> Fault | None:
        self._fresh += len(text)
        self._tail += text
        if self._fresh < STEP:
            return None
        tail, span, fault = self._tail, self._validator.span, None
        for end in range(len(tail) - self._fresh + STEP, len(tail) + 1, STEP):
            fault = fault or self._validator.look(tail[max(0, end - span) : end], self._where)
        self._fresh %= STEP
        self._tail = tail[-span - STEP :]
        return fault


VALIDATOR = Plugin(Settings, Degenerate)
