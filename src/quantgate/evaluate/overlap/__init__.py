"""Overlap: has quantization, or training, seen what a gate asks? Looked for before anything runs.

Five checks, each blind where another sees:

| check | finds |
|---|---|
| exact | the same conversation or question, whatever its capitals, white space and forms of a character |
| n-gram | a passage that was cut out or lightly edited (``grams``) |
| minhash | near duplicates, by words and by characters (``near``) |
| signature | a translation, by numbers, identifiers, tools and names (``anchors``, ``crowds``) |
| code | a Python function under other names (``shapes``) |

A pair is the same *item*, which blocks, or only of the same *source*: a template with other numbers, a shared passage,
the same tools. What a suite's cases have in common is its template and counts for nothing.

    samples, cases -> find() -> Overlaps -> refuse()
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from quantgate.errors import Overlap, UsageError
from quantgate.evaluate.overlap.texts import Sample
from quantgate.evaluate.suites import Case
from quantgate.records import Record

MOST_KEPT = 2000  # pairs in a record; more are counted
SHOWN = 3  # pairs in the sentence

Check = Literal["exact", "n-gram", "minhash", "signature", "code"]


class Pair(Record):
    """One sample that quantization may see beside the case that it is, or resembles."""

    sample: int  # number of the conversation, from 1; 0: an example that a suite's cases are shown
    suite: str
    case: str  # id
    check: Check  # what found it; the first of them, if several did
    item: bool  # the same item; False: the same source
    strength: float  # share of the case (n-gram), Jaccard (minhash), probability (signature), 1 (exact, code)
    because: str
    sample_text: str  # its beginning
    case_text: str

    @property
    def sentence(self) -> str:
        sample = f"sample {self.sample}" if self.sample else "an example shown with the cases"
        return f"{sample} ('{self.sample_text}') is '{self.case}' of {self.suite} ({self.because})"


class Overlaps(Record):
    """What was compared and what was found."""

    samples: int
    cases: int
    suites: tuple[str, ...]
    items: int  # samples that are a case, not counting what is allowed
    sources: int  # samples that are only of one source with a case
    allowed: int  # samples that are a case of what is allowed
    pairs: tuple[Pair, ...]  # items before sources, at most MOST_KEPT; none of what is allowed

    @property
    def blocking(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if pair.item)


def find(
    samples: Iterable[Sample], cases: Sequence[Case], *, allowed: Sequence[str] = (), apart: Collection[str] = ()
) -> Overlaps:
    """Compare every sample with every case; ``samples`` are read once and not kept.

    What a suite's cases are shown as examples (earlier turns or lines that many of them share) counts as a sample, too.
    ``allowed`` names suites, or single cases as ``suite/id``, whose overlap is known and accepted. ``apart`` names
    suites of which the samples were drawn, from another split by what each problem is: there likeness is no evidence,
    and only the same text is an overlap. Raises UsageError when ``allowed`` names what is not there.
    """
    from quantgate.evaluate.overlap.search import search

    known = {one.suite for one in cases} | {f"{one.suite}/{one.id}" for one in cases}
    for name in allowed:
        if name not in known:
            raise UsageError(f"overlap: '{name}' is no suite and no case (suite/id) of this run; mend or remove it")
    return search(samples, cases, frozenset(allowed), frozenset(apart))


def refuse(found: Overlaps, where: str = "") -> None:
    """Raises Overlap, with the first pairs in the sentence, when a sample is a case; ``where`` holds all of them."""
    if not found.items:
        return
    first = "; ".join(pair.sentence for pair in found.blocking[:SHOWN])
    more = f" and {found.items - SHOWN} more" if found.items > SHOWN else ""
    listed = f", all listed in {where}" if where else ""
    raise Overlap(
        f"calibration overlaps with the gate: {first}{more}{listed}; a gate must ask what calibration has not seen: "
        "remove them from one of the two, or name what you accept under calibration: allow_overlap"
    )


__all__ = ["Overlaps", "Pair", "Sample", "find", "refuse"]
