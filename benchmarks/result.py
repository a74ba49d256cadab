"""One line of the speed table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    what: str
    measured: str
    target: str = ""
    met: bool | None = None  # None where there is no target

    @property
    def verdict(self) -> str:
        return {True: "met", False: "missed", None: ""}[self.met]
