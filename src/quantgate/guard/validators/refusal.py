"""refusal: an answer declines, or it does not; it may not do both, and on some routes it may not decline.

What quantization moves first: a model that says "I cannot help with that" and calls the tool anyway, or that declines
what the baseline does. The words are judged by ``quantgate.manner``.
"""

from __future__ import annotations

from pydantic import Field

from quantgate.guard import Fault, Message
from quantgate.guard.validators import Context, Plugin, Proof, Watch, plain, refused
from quantgate.manner import classify
from quantgate.records import Record

DECLINES = "I'm sorry, but I can't help with that."
CALL = {"id": "call_0", "type": "function", "function": {"name": "proof", "arguments": "{}"}}


class Settings(Record):
    allowed: bool = Field(default=True, description="false: an answer that declines is refused, and the baseline asked")


class Refusal:
    name = "refusal"
    reach: int | None = None

    def __init__(self, settings: Settings) -> None:
        self.allowed = settings.allowed

    def check(self, message: Message, context: Context) -> Fault | None:
        said, content = plain(message.get("refusal")), plain(message.get("content"))
        declines = bool(said) or classify(content) == "refuse"
        if declines and message.get("tool_calls"):
            return refused(self.name, "tool_calls", "the answer declines, and calls a tool all the same")
        if said and content and classify(content) == "comply":
            return refused(self.name, "content", "the answer declines, and answers all the same")
        if declines and not self.allowed:
            return refused(self.name, "refusal" if said else "content", "the answer declines what this route is for")
        return None

    def watch(self, where: str, context: Context) -> Watch:
        raise NotImplementedError("refusal judges whole answers alone")

    def proof(self) -> Proof:
        bad = {"content": DECLINES, "tool_calls": [CALL]}
        return Proof(bad if self.allowed else {"content": DECLINES}, {"content": "Done: the alarm is set for 7:30."})


VALIDATOR = Plugin(Settings, Refusal)
