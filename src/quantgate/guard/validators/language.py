"""language: the answer is in the language of the question, or in one of those that the route names.

Languages are told by script and function words, as in calibration. A text too short or too mixed to tell passes; so do
answers in JSON and in code, whose words are not the model's to choose.
"""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from quantgate.calibrate.language import CYRILLIC, SCRIPTS, WORDS, language_of
from quantgate.errors import hint
from quantgate.guard import Fault, Message
from quantgate.guard.validators import Context, Plugin, Proof, Watch, plain, refused
from quantgate.records import Record

KNOWN = tuple(sorted({*WORDS, *SCRIPTS, *CYRILLIC}))
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`]*`", re.DOTALL)
SAMPLES = {
    "en": "How many of the eggs does she sell, and what is it that they have on the table for me?",
    "de": "Wie viele Eier verkauft sie, und was ist das auf dem Tisch f\u00fcr mich? Es ist nicht von den Leuten.",
}


class Settings(Record):
    allowed: tuple[str, ...] = Field(default=(), description="languages of answers (ISO 639-1); none: the question's")
    characters: int = Field(default=80, ge=20, description="shorter answers are not judged")

    @field_validator("allowed")
    @classmethod
    def _known(cls, allowed: tuple[str, ...]) -> tuple[str, ...]:
        for one in allowed:
            if one not in KNOWN:
                raise ValueError(f"no language is known as '{one}'; {hint(one, KNOWN)}")
        return allowed


class Language:
    name = "language"
    reach: int | None = None

    def __init__(self, settings: Settings) -> None:
        self.allowed, self.characters = settings.allowed, settings.characters

    def check(self, message: Message, context: Context) -> Fault | None:
        text = CODE.sub(" ", plain(message.get("content")))
        if len(text) < self.characters or text.lstrip()[:1] in ("{", "["):
            return None
        got, wanted = language_of(text), self.allowed or (language_of(context.asked),)
        if got == "unknown" or "unknown" in wanted or got in wanted:
            return None
        return refused(self.name, "content", f"is in the language '{got}', not in {' or '.join(wanted)}")

    def watch(self, where: str, context: Context) -> Watch:
        raise NotImplementedError("language judges whole answers alone")

    def proof(self) -> Proof:
        asked = next((one for one in SAMPLES if one in self.allowed), "en")
        other = next(one for one in SAMPLES if one not in (self.allowed or ("en",)))
        long = self.characters // 80 + 1
        question = Context(({"role": "user", "content": SAMPLES[asked]},))
        return Proof({"content": SAMPLES[other] * long}, {"content": SAMPLES[asked] * long}, question)


VALIDATOR = Plugin(Settings, Language)
