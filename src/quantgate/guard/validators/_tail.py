"""A text that is still being written, looked at by its newest characters."""

from __future__ import annotations

from collections.abc import Callable

from quantgate.guard import Fault


class Tail:
    """Hands the newest ``reach`` characters before each piece, and the piece, to ``find``."""

    def __init__(self, find: Callable[[str], Fault | None], reach: int) -> None:
        self._find, self._reach, self._tail = find, reach, ""

    def feed(self, text: str) -> Fault | None:
        seen = self._tail + text
        self._tail = seen[-self._reach :]
        return self._find(seen)
