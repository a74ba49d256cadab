"""length: answers that are too long, or too short, for the route; in characters of all that they say."""

from __future__ import annotations

from pydantic import Field, model_validator

from quantgate.guard import Fault, Message
from quantgate.guard.validators import Context, Plugin, Proof, Watch, plain, refused, texts
from quantgate.records import Record


class Settings(Record):
    characters: int | None = Field(default=None, ge=1, description="of the longest text of an answer")
    least: int = Field(default=0, ge=0, description="characters of the content, where it calls no tool")

    @model_validator(mode="after")
    def _some(self) -> Settings:
        if self.characters is None and not self.least:
            raise ValueError("limits nothing; give characters or least")
        if self.characters is not None and self.characters < self.least:
            raise ValueError(f"no answer has at least {self.least} and at most {self.characters} characters")
        return self


class Length:
    name = "length"

    def __init__(self, settings: Settings) -> None:
        self.most, self.least = settings.characters, settings.least
        self.reach: int | None = 0 if not settings.least else None

    def check(self, message: Message, context: Context) -> Fault | None:
        for where, text in texts(message):
            if self.most is not None and len(text) > self.most:
                return self._long(where)
        free = not message.get("tool_calls") and not message.get("refusal")
        if free and len(plain(message.get("content"))) < self.least:
            return refused(self.name, "content", f"has fewer than {self.least} characters")
        return None

    def watch(self, where: str, context: Context) -> Watch:
        return _Count(self, where)

    def proof(self) -> Proof:
        good = {"content": "a" * (self.most or self.least)}
        return Proof({"content": "a" * (self.least - 1 if self.most is None else self.most + 1)}, good)

    def _long(self, where: str) -> Fault:
        return refused(self.name, where, f"has more than {self.most} characters")


class _Count:
    def __init__(self, validator: Length, where: str) -> None:
        self._validator, self._where, self._seen = validator, where, 0

    def feed(self, text: str) -> Fault | None:
        self._seen += len(text)
        most = self._validator.most
        return self._validator._long(self._where) if most is not None and self._seen > most else None


VALIDATOR = Plugin(Settings, Length)
