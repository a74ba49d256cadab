"""Guarded decoding: no invalid structured answer leaves. What is checked before, while and after an answer is written.

    admission.py   what a request asks of its answer -> a Contract, or a refusal with the key at fault
    schemas.py     one schema, admitted or refused; limits.py: what that may cost; reading.py: strict JSON
    contract.py    the Contract: its checks of a whole message, its repairs, its prefixes
    prefix.py      a text that is still being written: can it become what the schema allows? lexemes.py: its words by
                   pieces; shapes.py, plain.py: what may stand where
    repair.py      repairs that cost no token: fences, commas, brackets
    masks.py       which tokens may come next, for an engine of this process
    ladder.py      a whole answer: check, repair, one corrective turn, the baseline, a typed error
    assembly.py    chunks -> messages, normalised, and back      pieces.py  what a stream's guard holds of each choice
    known.py       keys that guards look into, and log probabilities that are some
    streams.py     an answer in pieces: what may leave now, by the route's policy
    confirm.py     tool calls that a person must approve         conditions.py  which    proposals.py  their journal
    validators/    what else a route asks of an answer (one file each)
    selftest.py    proof at start that each guard fires

Text in, verdict out: nothing here knows of HTTP. A message is OpenAI's (``{"role", "content", "tool_calls", ...}``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Message = Mapping[str, Any]
Kind = Literal[
    "not_json",  # text where JSON was asked for
    "schema",  # JSON that the schema does not allow
    "prefix",  # no continuation of it could keep the schema
    "cut",  # ended by length before it was whole
    "empty",  # nothing at all
    "whitespace",  # a run of blanks without end
    "unknown_tool",  # calls a function that was not offered
    "tool_choice",  # calls none where one was required, another than the named one, or several where one is allowed
    "malformed",  # not a message: a tool call without a name, an index twice
    "validator",  # a validator of the route refused it
]
Step = Literal["passed", "repaired", "corrected", "escalated", "failed"]  # how an answer got through, or that none did
Policy = Literal["passthrough", "holdback", "window", "buffer"]
"""Of a stream. passthrough: each piece leaves once its prefix is checked, the end is held until the whole is;
holdback: the same, but nothing leaves before the first real content; window: the newest n tokens are held back;
buffer: nothing leaves before the whole answer was checked, and repairs and escalation are possible."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an answer may not leave."""

    kind: Kind
    where: str  # "content", "tool_calls[0].function.arguments"
    sentence: str  # for people and for the corrective turn; never a long quotation of the answer
    validator: str = ""  # which one refused it


class Prefix(Protocol):
    """One text that is still being written, held against one schema."""

    def feed(self, text: str) -> Fault | None:
        """The fault as soon as no continuation can mend it; it stays one for good."""
        ...


class Contract(Protocol):
    """What one request asks of its answer. Made once for equal demands, and shared: it keeps no state of a request."""

    @property
    def structured(self) -> bool:
        """Whether anything but free text is asked for."""
        ...

    @property
    def checks_prefixes(self) -> bool:
        """False where a schema is beyond the prefix check: such an answer must be buffered."""
        ...

    def check(self, message: Message, finish: str | None) -> Fault | None:
        """Of a whole message; None: it keeps the contract."""
        ...

    def repair(self, message: Message, finish: str | None) -> tuple[dict[str, Any], Sequence[str]] | None:
        """A message that keeps the contract, and the repairs by name; None where no repair that costs no token does."""
        ...

    def prefix(self, tool: str | None = None) -> Prefix | Fault | None:
        """Of the content, or of the arguments of a tool; a Fault where the tool was not offered; None: free text."""
        ...
