"""Scorers: one file per check. A scorer turns an answer into a score in [0, 1], or says why it could not.

A scorer's file ends with ``SCORER = score`` where ``score(answer: str, reference: Any) -> Score | Unscored``. An empty
or malformed *answer* is a wrong answer (score 0); ``Unscored`` is for what is not the model's fault: a reference that
the scorer cannot read, an engine that failed. The same functions guard and count live traffic later.

A scorer that needs something of the machine, as a sandbox, has beside it ``READY = ready`` where ``ready() -> str``
makes sure of it, says what it found, and raises where the machine has it not: before anything is asked of a model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import Field

from quantgate import plugins
from quantgate.records import Record


class Score(Record):
    value: float = Field(ge=0, le=1)
    answer: str | None = None  # what was read out of the completion, if anything
    because: str = ""  # why it is not 1, in words


class Unscored(Record):
    reason: str


Scorer = Callable[[str, Any], Score | Unscored]


def names() -> tuple[str, ...]:
    return plugins.names("scorers")


def get(name: str) -> Scorer:
    return plugins.get("scorers", name)  # type: ignore[no-any-return]


def ready(used: Iterable[str]) -> str:
    """Make sure of what these scorers need of the machine, and say what was found; "" where they need nothing.

    Raises what the scorers raise (SandboxError), and UnknownName.
    """
    modules = [sys.modules.get(getattr(get(name), "__module__", "")) for name in sorted(set(used))]
    return "; ".join(check() for module in modules if (check := getattr(module, "READY", None)))
