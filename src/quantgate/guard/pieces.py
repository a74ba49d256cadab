"""What a stream's guard holds of each choice: its texts so far, and the chunks that have not left."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from quantgate.guard import Fault, Prefix
from quantgate.guard.assembly import Body, Draft
from quantgate.guard.validators import Watch

NEVER = 1 << 62
CLOSING = {"{": "}", "[": "]"}


@dataclass(slots=True)
class Text:
    """One text of an answer that is still being written: a content, or the arguments of one call."""

    where: str
    prefix: Prefix | None
    watches: Sequence[Watch]
    first: str = ""  # its first sign that is no blank

    def feed(self, text: str) -> Fault | None:
        """The fault that ``text`` brings."""
        if self.prefix is not None and (fault := self.prefix.feed(text)):
            return fault
        for watch in self.watches:
            if fault := watch.feed(text):
                return fault
        if not self.first:
            self.first = text.lstrip()[:1]
        return None

    def closes(self, text: str) -> bool:
        """Whether a structured text may be whole with this piece: JSON in brackets ends with one."""
        if self.prefix is None:
            return False
        closing = CLOSING.get(self.first)
        last = text if text[-1:] > " " else text.rstrip()
        return closing is None or last[-1:] == closing


@dataclass(slots=True)
class Entry:
    """A chunk that has not left."""

    order: int
    chunk: Body
    chars: int


@dataclass(slots=True)
class Lane:
    """One choice, and what of it waits."""

    draft: Draft
    texts: dict[str, Text] = field(default_factory=dict)
    queue: deque[Entry] = field(default_factory=deque)
    chars: int = 0  # in the queue
    says: bool = False
    closing: dict[str, int] = field(default_factory=dict)  # text -> order of the entry that may complete it
    final: int = NEVER  # order of the first entry that waits for the whole check
    cut: int | None = None  # characters of content before the first tool call

    def limit(self) -> int:
        return min(self.final, *self.closing.values()) if self.closing else self.final
