"""looping: answers that say the same over and over, in content, reasoning or arguments of tools.

Two signs. A stretch that repeats letter by letter: the rule of the validator ``degenerate``, with longer stretches.
And, of free text in words, few different ones: of all runs of four words in the newest ``WORDS`` at least ``SAME``
stood there before (rep-4 of Welleck et al. 2020, arXiv:1908.04319); it also finds a sentence that comes back with
another number each time. Tables and lists of data repeat as well; they do so on both sides.
"""

from __future__ import annotations

from quantgate.guard.validators.degenerate import Degenerate, Settings
from quantgate.watch import Talk
from quantgate.watch.signals import Signal, of_mark
from quantgate.watch.signals._reading import written

NAME = "looping"
LOOPS = Degenerate(Settings(period=512, times=4, characters=200))
REACH = 512 * 4  # characters of the longest loop
STEP = 256  # characters between two looks
FIRST, LAST = 4096, 12288  # characters that are looked at of a long text: a loop mostly goes on until the end
WORDS, LEAST, SAME = 256, 64, 0.6


def mark(talk: Talk) -> float | None:
    """None: there is no answer."""
    if not talk.answers:
        return None
    return float(any(repeats(text) or (not talk.structured and few_words(text)) for text in written(talk)))


def repeats(text: str) -> bool:
    """One stretch of at most 512 characters again and again: 4 times, over 200 characters at least; blanks are none.

    >>> repeats("the cat sat on the mat. " * 12), repeats("=" * 80 + "and so on")
    (True, False)
    """
    if len(text) > FIRST + LAST:
        text = text[:FIRST] + text[-LAST:]
    ends = (*range(STEP, len(text), STEP), len(text))
    return any(LOOPS.look(text[max(0, end - REACH) : end].rstrip(), "") is not None for end in ends)


def few_words(text: str) -> bool:
    """Whether the newest words of a text hardly say anything new."""
    words = text[-16 * WORDS :].split()[-WORDS:]
    runs = len(words) - 3
    if runs < LEAST or len(set(words)) - 3 > (1 - SAME) * runs:  # each new word begins a new run
        return False
    return 1 - len(set(zip(words, words[1:], words[2:], words[3:], strict=False))) / runs >= SAME


SIGNAL = Signal(
    name=NAME,
    about="answers that say the same over and over",
    kind="event",
    read=of_mark(NAME),
    weight=1.5,
    mark=mark,
)
