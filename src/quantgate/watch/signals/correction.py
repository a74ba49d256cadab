"""correction: the user says that the last answer was wrong: "no, ...", "that's not what I asked", "I meant ...".

Rules over the beginning of the turn, in fifteen languages (``_corrections``). Only a turn that follows an answer
counts. A bare no after a question of the assistant is an answer to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantgate.manner import QUOTED
from quantgate.manner.rules import fold
from quantgate.watch import Message, Talk, plain
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch.signals._corrections import denied, told

READ = 1000  # characters of the turn, folded and without what it quotes, of which
HEAD = 160  # are looked at
ASKED = re.compile(r"[?\uff1f\u061f][\s\"'*_)\]]*\Z")


def mark(talk: Talk) -> float | None:
    """None where the newest turn is not the user's, or follows no answer."""
    if not talk.prompt or talk.prompt[-1].get("role") != "user":
        return None
    before = _answer_before(talk.prompt)
    text = plain(talk.prompt[-1].get("content")).strip()
    if not before or not text:
        return None
    head = fold(text[:READ])
    if '"' in head or "`" in head:
        head = QUOTED.sub(" ", head)
    head = head[:HEAD].lstrip()
    return float(told(head) or (not ASKED.search(before[-40:]) and denied(head)))


def _answer_before(prompt: Sequence[Message]) -> str:
    """The text of the newest answer before the last turn; empty where there is none, or another turn between."""
    for message in reversed(prompt[:-1]):
        if message.get("role") == "assistant":
            return plain(message.get("content")).strip()
        if message.get("role") == "user":
            return ""
    return ""


SIGNAL = Signal(
    name="correction",
    about="users who say that the last answer was wrong",
    kind="event",
    read=of_mark("correction"),
    weight=5.0,
    mark=mark,
)
