"""A text that is still being written, looked at by its newest characters."""

from __future__ import annotations

from collections.abc import Callable

from quantgate.guard import Fault

STEP = 16  # characters between two looks, so that a look costs little per piece


class Tail:
    """Hands ``find`` what is new, and the ``reach`` characters before it, as soon as ``STEP`` are new.

    So a fault is found while its beginning is among the newest ``reach + STEP`` characters.
    """

    def __init__(self, find: Callable[[str], Fault | None], reach: int) -> None:
        self._find, self._reach, self._seen, self._fresh = find, reach, "", 0

    def feed(self, text: str) -> Fault | None:
        self._seen += text
        self._fresh += len(text)
        if self._fresh < STEP:
            return None
        seen, self._fresh = self._seen, 0
        self._seen = seen[-self._reach :]
        return self._find(seen)
