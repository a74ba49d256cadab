"""shadow_disagreement: of one prompt, the shadow's answer is worse than the one that left, or better, or neither.

Answers are held against each other by faults, from the worst: the guard refused it, it is empty, it loops, it breaks
its tool calls, it calls no tool where the other does, it declines. The first in which they differ decides. Nothing is
said of how alike the words are: two runs of the same bytes differ in them as well. The two change places without a
change of rule, so that a variant that is the same is worse in half of what differs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from quantgate.manner import classify
from quantgate.serve import Exchange
from quantgate.watch import Message, Talk
from quantgate.watch.signals import Signal
from quantgate.watch.signals._reading import calls_of, function_of, silent
from quantgate.watch.signals.looping import mark as loops

NAME = "shadow_disagreement"
Faults = tuple[bool, ...]


def mark(talk: Talk) -> float | None:
    """1.0: the shadow's is worse; 0.0: the one that left; None: neither, or one of them is missing."""
    if talk.shadow is None or not (heard(talk) and heard(talk.shadow)):
        return None
    live, shadow = faults(talk), faults(talk.shadow)
    return None if live == shadow else float(shadow > live)


def heard(talk: Talk) -> bool:
    """Whether there was an answer, good or bad: one that never came is an error, and no worse answer."""
    return talk.faulty or bool(talk.answers)


def faults(talk: Talk) -> Faults:
    """What is wrong with an answer, the worst first."""
    if talk.faulty:
        return (True,)
    first = talk.answers[0]
    calls = calls_of(first)
    return (
        False,
        silent(first),
        loops(talk) == 1.0,
        talk.tools and any(_broken(function_of(call).get("arguments")) for call in calls),
        talk.tools and not calls,
        _declines(first, talk),
    )


def _broken(arguments: object) -> bool:
    if not isinstance(arguments, str):
        return True
    try:
        return not isinstance(json.loads(arguments or "{}"), dict)
    except (ValueError, RecursionError):
        return True


def _declines(message: Message, talk: Talk) -> bool:
    return bool(message.get("refusal")) or talk.finish == "content_filter" or classify(talk.said[:2000]) == "refuse"


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    return exchange.marks.get(NAME) if exchange.shadow else None


SIGNAL = Signal(
    name=NAME,
    about="prompts that the shadow variant answered worse than the one whose answer left",
    kind="pair",
    read=read,
    weight=1.5,
    promotes=False,
    mark=mark,
)
