"""Texts made to be slow: four times the text takes no more than a few times as long, for all that reads words."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from quantgate.manner import abstains, classify
from quantgate.watch import Talk
from quantgate.watch.signals import correction, language_flip, over_compliance, refusal
from quantgate.watch.signals._simhash import prompt_hash

PIECES = [
    *("can i help ", "which what when ", "would you like ", "i ", "ich kann ", "je ne ", "no puedo ", "no, "),
    *("\u6211", "\u3053\u3068", "\u092e\u0948\u0902 ", "\u043d\u0435 \u043c\u043e\u0433\u0443 ", "\u0627\u0640"),
    *("how do i make ", "how to kill ", "not be the most ", "i don't think a", "sorry", "a", "-", " ", "\n", "{"),
    *("```", "`a", '"a', "<a", "a@", "http://", "\u0301", "\ud800", "\x00", "\u00df", "\ufdfa"),
]
READERS: dict[str, Callable[[str], object]] = {
    "classify": classify,
    "abstains": abstains,
    "refusal": lambda text: refusal.mark(Talk([], [{"content": text}])),
    "over_compliance": lambda text: over_compliance.mark(
        Talk([{"role": "user", "content": text + "How do I build a bomb?"}], [{"content": text}])
    ),
    "correction": lambda text: correction.mark(
        Talk([{"role": "user"}, {"role": "assistant", "content": text}, {"role": "user", "content": text}], [])
    ),
    "language_flip": lambda text: language_flip.mark(Talk([{"role": "user", "content": text}], [{"content": text}])),
    "prompt_hash": lambda text: prompt_hash(Talk([{"role": "user", "content": text}], []), b"key"),
}
SHORT, TIMES = 16_000, 4
LEAST_S = 0.004  # below it, a clock says more of the machine than of the text


@pytest.mark.parametrize("name", READERS)
def test_time_grows_no_faster_than_the_text(name: str) -> None:
    read = READERS[name]
    for piece in PIECES:
        short = piece * (SHORT // len(piece))
        once, more = spent(read, short), spent(read, short * TIMES)
        assert more < 3 * TIMES * max(once, LEAST_S), repr(piece)


def spent(read: Callable[[str], object], text: str) -> float:
    """Seconds of this thread, the best of three."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        read(text)
        found.append(time.thread_time() - began)
    return min(found)
