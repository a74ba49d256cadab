"""whitespace: answers with a run of blanks without end: what a model in JSON mode writes when it is lost."""

from __future__ import annotations

from quantgate.watch import Talk
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch.signals._reading import written

NAME = "whitespace"
BLANKS = 200


def mark(talk: Talk) -> float | None:
    """None: there is no answer."""
    if not talk.answers:
        return None
    return float(any(runs_on(text) for text in written(talk)))


def runs_on(text: str) -> bool:
    """Whether ``BLANKS`` of them stand in a row: then they fill a whole block of half as many.

    >>> runs_on("a" + 199 * " " + "b"), runs_on("a" + 199 * " " + "\\n")
    (False, True)
    """
    half = BLANKS // 2
    for at in range(0, len(text), half):
        if text[at : at + half].isspace():
            before, after = text[max(0, at - BLANKS) : at], text[at : at + BLANKS]
            blank = len(before) - len(before.rstrip()) + len(after) - len(after.lstrip())
            if blank >= BLANKS:
                return True
    return False


SIGNAL = Signal(
    name=NAME,
    about="answers with a run of 200 blanks or more",
    kind="event",
    read=of_mark(NAME),
    weight=1.0,
    mark=mark,
)
