"""whitespace: answers with a run of blanks without end: what a model in JSON mode writes when it is lost."""

from __future__ import annotations

import re

from quantgate.watch import Talk
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch.signals._reading import written

NAME = "whitespace"
RUN = re.compile(r"(?<!\s)\s{200}")  # begun at the first blank of a run only, so that no text is read twice


def mark(talk: Talk) -> float | None:
    """None: there is no answer."""
    if not talk.answers:
        return None
    return float(any(RUN.search(text) is not None for text in written(talk)))


SIGNAL = Signal(
    name=NAME,
    about="answers with a run of 200 blanks or more",
    kind="event",
    read=of_mark(NAME),
    weight=1.0,
    mark=mark,
)
