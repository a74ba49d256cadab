"""secrets: keys, tokens and personal data that no answer may hold, found as calibration finds them.

What the user wrote is no secret to the user: with ``asked`` what stands in the request's own turns may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, field_validator

from quantgate.calibrate.kinds import KINDS
from quantgate.calibrate.secrets import find
from quantgate.errors import hint
from quantgate.guard import Fault, Message
from quantgate.guard.validators import Context, Plugin, Proof, Watch, plain, refused, texts
from quantgate.guard.validators._samples import sample
from quantgate.guard.validators._tail import STEP, Tail
from quantgate.records import Record

PART, OVERLAP = 8192, 2048  # characters
NAMES = tuple(dict.fromkeys(kind.name for kind in KINDS))


class Settings(Record):
    kinds: tuple[str, ...] = Field(default=(), description="which kinds are refused; none named: all of them")
    asked: bool = Field(default=True, description="what the request's own messages hold may be repeated")
    reach: int = Field(default=256, ge=64, le=4096, description="characters held back in a stream with a window")

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        for one in kinds:
            if one not in NAMES:
                raise ValueError(f"no kind of secret is named '{one}'; {hint(one, NAMES)}")
        return kinds


class Secrets:
    name = "secrets"

    def __init__(self, settings: Settings) -> None:
        self.kinds, self.asked = settings.kinds or NAMES, settings.asked
        self._back = settings.reach
        self.reach: int | None = settings.reach + STEP

    def check(self, message: Message, context: Context) -> Fault | None:
        return next((fault for where, text in texts(message) if (fault := self._find(text, where, context))), None)

    def watch(self, where: str, context: Context) -> Watch:
        return Tail(lambda text: self._find(text, where, context), self._back)

    def proof(self) -> Proof:
        text = next(made for kind in self.kinds if (made := sample(kind)))
        return Proof({"content": f"Here it is: {text} and no more."}, {"content": "12 cups were shipped on Tuesday."})

    def _find(self, text: str, where: str, context: Context) -> Fault | None:
        asked = [plain(turn.get("content")) for turn in context.messages] if self.asked else []
        for part in slices(text):
            for one in find(part):
                if one.kind.name in self.kinds and not any(part[one.start : one.end] in turn for turn in asked):
                    return refused(self.name, where, f"holds a secret or personal data: {one.kind.name}")
        return None


def slices(text: str) -> Iterator[str]:
    """A long text in parts that overlap by more than a secret is long: looking for all of them at once is quadratic."""
    for at in range(0, max(1, len(text) - OVERLAP), PART - OVERLAP):
        yield text[at : at + PART]


VALIDATOR = Plugin(Settings, Secrets)
