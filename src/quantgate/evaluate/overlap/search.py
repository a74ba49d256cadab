"""All checks over all traffic: an index of the cases, through which the traffic streams in batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from quantgate.evaluate.overlap import MOST_KEPT, Check, Overlaps, Pair, crowds
from quantgate.evaluate.overlap.anchors import Likeness, Signatures, anchors_of
from quantgate.evaluate.overlap.grams import Grams, Passage
from quantgate.evaluate.overlap.items import Item, Key, examples_of, items_of
from quantgate.evaluate.overlap.near import Alike, Near
from quantgate.evaluate.overlap.shapes import shapes
from quantgate.evaluate.overlap.texts import Sample, Unit, normal, shown, traffic_template, units, words
from quantgate.evaluate.overlap.usual import SIGNATURE, Floors
from quantgate.evaluate.overlap.weights import Weights
from quantgate.evaluate.suites import Case

BATCH = 1000  # samples looked at together
TASTE = 2000  # samples in which the traffic's own template and the rarity of anchors are found
ENOUGH_WORDS = 8  # of a question that is a case's by itself; shorter ones must agree in the whole conversation
COPIED = 0.5  # share of a case's 8-grams from which a conversation holds the case
CUT_OUT = 0.25  # the same where an N-gram collides as well
ENOUGH_ANCHORS = 3  # numbers, identifiers and tools that a copy recognised by itself shares with its case
USUAL = 3000  # cases that are looked up among their own suite's
KINDS = ("words", "characters")
ORDER: tuple[Check, ...] = ("exact", "code", "n-gram", "minhash", "signature")


@dataclass(frozen=True)
class _Asked:
    """One thing that one sample asks."""

    number: int
    unit: Unit
    plain: str

    @cached_property
    def words(self) -> list[str]:
        return words(self.plain)


@dataclass
class _Found:
    """What a check says of one sample and one case."""

    case: int
    check: Check
    item: bool
    strength: float
    because: str


def search(
    samples: Iterable[Sample], cases: Sequence[Case], allowed: frozenset[str], apart: frozenset[str]
) -> Overlaps:
    """``find`` of the door, for names that are known."""
    stream = itertools.chain(examples_of(cases), samples)
    taste = list(itertools.islice(stream, TASTE))
    index, seen = _Index(cases, taste), 0
    found = list[tuple[int, str, _Found]]()
    lines = _Lines()
    for batch in _batches(itertools.chain(taste, stream)):
        seen += sum(1 for one in batch if one.number)
        found += index.look(batch, lines)
    found += lines.copies(index)
    return _overlaps(found, index, seen, allowed, apart)


def _batches(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    while batch := list(itertools.islice(samples, BATCH)):
        yield batch


def _overlaps(
    found: Sequence[tuple[int, str, _Found]], index: _Index, seen: int, allowed: frozenset[str], apart: frozenset[str]
) -> Overlaps:
    """One pair for each sample and case, by the strongest check; items before sources."""
    best: dict[tuple[int, int], tuple[str, _Found]] = {}
    for number, text, one in found:
        if one.check != "exact" and index.items[one.case].case.suite in apart:
            continue
        old = best.get((number, one.case))
        if old is None or (one.item, -ORDER.index(one.check)) > (old[1].item, -ORDER.index(old[1].check)):
            best[number, one.case] = text, one
    pairs, accepted = [], set[int]()
    for (number, at), (text, one) in best.items():
        item = index.items[at]
        if allowed & {item.case.suite, f"{item.case.suite}/{item.case.id}"}:
            accepted |= {number} if one.item else set()
            continue
        pairs.append(_pair(number, text, item, one))
    pairs.sort(key=lambda pair: (not pair.item, pair.sample, ORDER.index(pair.check), -pair.strength, pair.case))
    items = {pair.sample for pair in pairs if pair.item}
    return Overlaps(
        samples=seen,
        cases=len(index.items),
        suites=index.names,
        items=len(items),
        sources=len({pair.sample for pair in pairs} - items),
        allowed=len(accepted),
        pairs=tuple(pairs[:MOST_KEPT]),
    )


def _pair(number: int, text: str, item: Item, one: _Found) -> Pair:
    return Pair(
        sample=number,
        suite=item.case.suite,
        case=item.case.id,
        check=one.check,
        item=one.item,
        strength=round(one.strength, 4),
        because=one.because,
        sample_text=shown(text),
        case_text=shown(item.text),
    )


class _Lines:
    """What the signatures say of each sample, kept until the neighbours of all are known."""

    def __init__(self) -> None:
        self.numbers, self.texts = list[int](), list[str]()
        self.best = list[Likeness | None]()

    def add(self, number: int, text: str, best: Likeness | None) -> None:
        self.numbers.append(number)
        self.texts.append(text if best is not None and best.evidence > -10 else "")
        self.best.append(best)

    def copies(self, index: _Index) -> list[tuple[int, str, _Found]]:
        evidence = np.array([-60.0 if one is None else one.evidence for one in self.best])
        cases = np.array([-1 if one is None else one.case for one in self.best], dtype=np.int64)
        firm = np.array([0 if one is None else one.firm for one in self.best], dtype=np.int64)
        unusual = [
            one is not None and index.floors.above(index.suites[one.case], SIGNATURE, one.evidence) for one in self.best
        ]
        sure = (crowds.alone(evidence) >= crowds.SURE) & (firm >= ENOUGH_ANCHORS) & np.array(unusual, dtype=bool)
        beside = crowds.together(evidence, cases, sure)
        found = []
        for at in np.flatnonzero(sure | ((beside >= crowds.COPY) & (firm > 0) & (beside > crowds.alone(evidence)))):
            one = self.best[at]
            if one is not None:
                among = "" if sure[at] else ", in a run of copies"
                because = f"a copy or translation by {', '.join(one.shared[:8])}{among}"
                found.append(
                    (self.numbers[at], self.texts[at], _Found(one.case, "signature", True, beside[at], because))
                )
        return found


class _Index:
    """Everything that is known of the cases."""

    def __init__(self, cases: Sequence[Case], taste: Sequence[Sample]) -> None:
        ready = items_of(cases)
        self.items, self.names = ready.items, ready.names
        self.drop = traffic_template(taste)
        plain = [item.plain for item in self.items]
        self.grams = Grams([words(text) for text in plain], ready.suites, ready.cuts)
        self.near = [Near(kind, plain, ready.suites, ready.cuts) for kind in KINDS]
        tasted = [(unit, _tools(one)) for one in taste for unit in units(one.turns, self.drop)[-1:]]
        background = [anchors_of(unit.text, unit.answer, tools) for unit, tools in tasted]
        self.signatures = Signatures([item.anchors for item in self.items], background)
        self.weights = Weights(map(words, (*plain, *(normal(unit.text) for unit, _ in tasted))))
        self.weighed = [self.weights.weigh(item.text) for item in self.items]
        self.whole, self.asked = dict[Key, int](), dict[str, int]()
        self.shapes = dict[str, list[int]]()
        for at, item in enumerate(self.items):
            self.whole.setdefault(item.turns, at)
            if len(words(item.plain)) >= ENOUGH_WORDS:
                self.asked.setdefault(item.plain, at)
            for shape in item.shapes:
                self.shapes.setdefault(shape, []).append(at)
        self.suites = ready.suites
        self.floors = Floors([min(USUAL, ready.suites.count(at)) for at in range(len(ready.names))])
        self.bars: dict[int, float] = {}
        self._usual()
        self.bars = {at: self.floors.bar(at) for at in range(len(ready.names))}
        self.last_turns = {item.turns[-1] for item in self.items if item.turns}

    def look(self, batch: Sequence[Sample], lines: _Lines) -> list[tuple[int, str, _Found]]:
        """Items and sources among ``batch``; what signatures say goes to ``lines``."""
        found = list[tuple[int, str, _Found]]()
        asked = list[_Asked]()
        for sample in batch:
            found += ((sample.number, text, one) for text, one in self._exact(sample))
            own = [_Asked(sample.number, unit, normal(unit.text)) for unit in units(sample.turns, self.drop)]
            lines.add(sample.number, *self._likeliest(own, _tools(sample)))
            asked += own
        plain, split = [one.plain for one in asked], [one.words for one in asked]
        passages = self.grams.passages(split)
        alike = [near.alike(plain, split) for near in self.near]
        for one, shared, *near in zip(asked, passages, *alike, strict=True):
            text = one.unit.text
            told = list(self._code(one.unit))
            if (at := self.asked.get(one.plain)) is not None:
                told.append(_Found(at, "exact", True, 1.0, "the same question"))
            told += self._passages(text, shared)
            for kind, likes in zip(KINDS, near, strict=True):
                told += self._alike(text, kind, likes)
            found += ((one.number, text, each) for each in told)
        return found

    def _likeliest(self, asked: Sequence[_Asked], tools: Sequence[str]) -> tuple[str, Likeness | None]:
        """Of all that was asked in one sample, what is likeliest a copy."""
        best: tuple[str, Likeness | None] = ("", None)
        for one in asked:
            like = self.signatures.likeness(anchors_of(one.unit.text, one.unit.answer, tools, one.words))
            if like is not None and (best[1] is None or like.evidence > best[1].evidence):
                best = one.unit.text, like
        return best

    def _exact(self, sample: Sample) -> Iterator[tuple[str, _Found]]:
        for end, (role, content) in enumerate(sample.turns, 1):
            if role != "assistant" and (role, normal(content)) in self.last_turns:
                turns = tuple((role, normal(content)) for role, content in sample.turns[:end])
                if (at := self.whole.get(turns)) is not None:
                    yield content, _Found(at, "exact", True, 1.0, "the same conversation")

    def _code(self, unit: Unit) -> Iterator[_Found]:
        texts = (unit.raw, unit.answer or "", f"{unit.raw}\n{unit.answer or ''}")
        if not self.shapes or "def " not in texts[2]:
            return
        for shape in {shape for text in texts for shape in shapes(text)}:
            for at in self.shapes.get(shape, ()):
                yield _Found(at, "code", True, 1.0, "the same function under other names")

    def _passages(self, text: str, shared: Sequence[Passage]) -> Iterator[_Found]:
        for one in shared:
            held = one.share >= (CUT_OUT if one.collision else COPIED)
            if held or one.collision:
                yield self._judged(text, one.case, "n-gram", "8-word passages", one.share, held)

    def _alike(self, text: str, kind: str, likes: Sequence[Alike]) -> Iterator[_Found]:
        for one in likes:
            yield self._judged(text, one.case, "minhash", kind, one.jaccard, True)

    def _judged(self, text: str, case: int, check: Check, kind: str, strength: float, held: bool) -> _Found:
        """The same item, or only of one source, and why."""
        but = self.weights.difference(self.weights.weigh(text), self.weighed[case])
        if not but and held and strength < self.bars.get(self.suites[case], 0.0):
            but = "no more than the suite's cases among themselves"
        because = f"{strength:.0%} of the same {kind}" + (f", {but}" if but else "")
        return _Found(case, check, held and not but, strength, because)

    def _usual(self) -> None:
        """Look cases up among the others of their suite: all of them, or as many as show what is usual."""
        places = range(0, len(self.items), max(1, len(self.items) // USUAL))
        own = [self.items[at] for at in places]
        split = [words(item.plain) for item in own]
        alike = [near.alike([item.plain for item in own], split) for near in self.near]
        for at, item, shared, *near in zip(places, own, self.grams.passages(split), *alike, strict=True):
            suite = self.suites[at]
            told = [("8-word passages", one) for one in self._passages(item.text, shared)]
            told += [
                (kind, one)
                for kind, likes in zip(KINDS, near, strict=True)
                for one in self._alike(item.text, kind, likes)
            ]
            for kind, one in told:
                if one.item and one.case != at and self.suites[one.case] == suite:
                    self.floors.add(suite, kind, at, one.strength)
            best = self.signatures.likeness(item.anchors, but=at)
            if best is not None and best.firm >= ENOUGH_ANCHORS and self.suites[best.case] == suite:
                self.floors.add(suite, SIGNATURE, at, best.evidence)
        self.floors.settle()


def _tools(sample: Sample) -> list[str]:
    """Names of the functions that a request offers, in OpenAI's nesting or without."""
    functions = [one.get("function", one) for one in sample.tools]
    return [str(one["name"]) for one in functions if isinstance(one, dict) and "name" in one]
