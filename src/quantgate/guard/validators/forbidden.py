"""forbidden: words and patterns that no answer of the route may hold.

Patterns run in a regex engine whose time is linear in the text (Rust's, through jsonschema-rs), so none can hang the
gateway; lookaround and back-references are refused at start. ``(?i)`` at its beginning makes one ignore case. Every
pattern brings an ``example`` that it must find: the proof at start tries it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pydantic import Field, model_validator

from quantgate.errors import UsageError
from quantgate.guard import Fault, Message
from quantgate.guard.validators import Context, Plugin, Proof, Watch, refused, texts
from quantgate.guard.validators._tail import STEP, Tail
from quantgate.records import Record

SIZE = 1 << 20  # bytes that one compiled pattern may take


class Pattern(Record):
    pattern: str = Field(min_length=1, max_length=2000, description="a regular expression")
    example: str = Field(min_length=1, description="a text that it must find")
    name: str = Field(default="", description="what the refusal calls it; empty: its number")


class Settings(Record):
    words: tuple[str, ...] = Field(default=(), description="whole words or phrases, in any case")
    patterns: tuple[Pattern, ...] = Field(default=(), description="regular expressions, each with an example")
    reach: int = Field(default=128, ge=16, le=4096, description="characters held back in a stream with a window")

    @model_validator(mode="after")
    def _some(self) -> Settings:
        if not self.words and not self.patterns:
            raise ValueError("forbids nothing; name words or patterns")
        if any(not word.strip() for word in self.words):
            raise ValueError("a word is empty; give letters, or drop it")
        return self


class Forbidden:
    name = "forbidden"

    def __init__(self, settings: Settings) -> None:
        self._back = settings.reach
        self.reach: int | None = settings.reach + STEP
        self.rules = [(f"word {number}", _word(word), word) for number, word in enumerate(settings.words, 1)]
        self.rules += [
            (one.name or f"pattern {number}", one.pattern, one.example)
            for number, one in enumerate(settings.patterns, 1)
        ]
        self._finds = [(name, linear(pattern)) for name, pattern, _ in self.rules]
        for (name, _, example), (_, found) in zip(self.rules, self._finds, strict=True):
            if not found.is_valid(example):
                raise UsageError(f"validators.forbidden: {name} does not find its own example; correct one of the two")

    def check(self, message: Message, context: Context) -> Fault | None:
        return next((fault for where, text in texts(message) if (fault := self._find(text, where))), None)

    def watch(self, where: str, context: Context) -> Watch:
        return Tail(lambda text: self._find(text, where), self._back)

    def proof(self) -> Proof:
        harmless = next((one for one in ("Yes.", "42", "-", "\u00f8") if not self._find(one, "content")), "")
        return Proof({"content": self.rules[0][2]}, {"content": harmless})

    def _find(self, text: str, where: str) -> Fault | None:
        for name, found in self._finds:
            if found.is_valid(text):
                return refused(self.name, where, f"holds what this route forbids: {name}")
        return None


@lru_cache(maxsize=1024)
def linear(pattern: str) -> Any:
    """Something whose ``is_valid(text)`` says whether ``pattern`` occurs in it. Raises UsageError."""
    import jsonschema_rs

    try:
        options = jsonschema_rs.RegexOptions(size_limit=SIZE)
        return jsonschema_rs.Draft202012Validator({"type": "string", "pattern": pattern}, pattern_options=options)
    except jsonschema_rs.ValidationError:
        raise UsageError(
            f"validators.forbidden: {pattern!r} is no pattern of the linear engine (no lookaround, no back-references, "
            f"at most {SIZE >> 10} KiB compiled); write it without them"
        ) from None


def _word(word: str) -> str:
    """Whole words alone; blanks of any number between them."""
    inner = r"\s+".join(re.sub(r"([^\w\s])", r"\\\1", part) for part in word.split())
    start, end = (r"\b" if sign.isalnum() else "" for sign in (word.strip()[0], word.strip()[-1]))
    return f"(?i){start}{inner}{end}"


VALIDATOR = Plugin(Settings, Forbidden)
