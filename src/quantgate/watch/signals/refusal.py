"""refusal: the answer declines, wholly or in part; more of them is worse, and so is less.

By the message's own field, by the filter that ended it, or by its words: rules over its beginning in fifteen languages
(``quantgate.manner``, measured there). An answer that asks back for what is missing, or calls a tool, declines nothing.
"""

from __future__ import annotations

from quantgate.manner import HEAD, READ, asks, refuses
from quantgate.manner.rules import fold
from quantgate.watch import Talk, plain
from quantgate.watch.signals import Signal, of_mark

SLACK = 40  # characters


def mark(talk: Talk) -> float | None:
    told_so = told(talk)
    return told_so if told_so is not None or not talk.said.strip() else float(declines(talk.said))


def told(talk: Talk) -> float | None:
    """What is known without reading words: a field, a filter or a call of tools; None: the words must say."""
    if not talk.answers:
        return None
    if talk.finish == "content_filter" or plain(talk.answers[0].get("refusal")).strip():
        return 1.0
    return 0.0 if talk.answers[0].get("tool_calls") and not talk.said.strip() else None


def declines(text: str) -> bool:
    """Whether the words decline.

    >>> declines("I'm sorry, but I can't."), declines("I can't set it without a time. Which time?")
    (True, False)
    """
    return refuses(_head(text.lstrip())) and not (len(text) <= READ and asks(fold(text)))


def _head(text: str) -> str:
    """Folded, as much as is looked at; more of a text that quotes, or holds many blanks."""
    head = fold(text[: HEAD + 2 * SLACK])
    return head if len(head) >= HEAD + SLACK and not ('"' in head or "`" in head) else fold(text[: 3 * HEAD])


SIGNAL = Signal(
    name="refusal",
    about="answers that decline",
    kind="event",
    read=of_mark("refusal"),
    worse="either",
    weight=10.0,
    mark=mark,
)
