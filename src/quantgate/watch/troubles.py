"""What is not as it should be, told once when it begins and once when it is over."""

from __future__ import annotations

import logging

import sqlalchemy as sa

from quantgate.serve._ledger_sql import plain

log = logging.getLogger("quantgate.watch")


class Troubles:
    """By what they are about."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._now: dict[str, str] = {}

    def tell(self, about: str, told: str) -> None:
        if about not in self._now:
            log.warning("%s: %s", self._target, told)
        self._now[about] = told

    def well(self, about: str) -> None:
        if self._now.pop(about, None) is not None:
            log.warning("%s: the watch goes on (%s)", self._target, about)

    def sentences(self) -> list[str]:
        return list(dict.fromkeys(self._now.values()))


def sentence(problem: Exception) -> str:
    """What went wrong, in one line without statements and values."""
    return plain(problem) if isinstance(problem, sa.exc.SQLAlchemyError) else str(problem) or type(problem).__name__
