"""From traffic to a calibration set: two passes over the files, then a choice that covers what they hold.

The first pass counts: broken lines, secrets, the words of the domain. The second gives every conversation a key, a hash
of the seed and of its content, so the choice does not depend on the order of the lines, and keeps the places of the
smallest keys: of all conversations, and of each slice. Only those are fetched again. Among them near duplicates are
dropped; then the rules' slices are filled, then with half of what is left every other slice up to a floor, the rarest
first (functions last, one each), and the rest is what a plain random sample would be.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from quantgate.calibrate.audit import LISTED, Audit, BrokenLine, SliceRow, order, refuse_broken, refuse_unmet
from quantgate.calibrate.conversation import Conversation, spoken
from quantgate.calibrate.jargon import Jargon
from quantgate.calibrate.near import Near, Shingles, shingles
from quantgate.calibrate.render import lengths_of
from quantgate.calibrate.secrets import Masker
from quantgate.calibrate.slices import AT_LEAST, check_requirement, slices_of
from quantgate.calibrate.traffic import Place, fetch, lines, readable_twice
from quantgate.errors import DataError
from quantgate.models import OpenedModel

Rule = Literal["mask", "drop", "refuse"]
Tell = Callable[[str, int, int], None]  # what is done, done, total
AT_ONCE = 256  # conversations that are tokenized together
SPARE = 8  # candidates for every sample: most traffic repeats itself
SLICE_FLOOR = 8  # samples of a slice that are sought before the rest is drawn, at most
NAMED = 512  # functions that are slices of their own; further ones are counted as tool=(others)
HELD_OUT = 128  # conversations set aside to measure on, at most


@dataclass(frozen=True)
class Rules:
    """What the user asked for. ``broken`` is the share of lines that may be broken; ``require``: slice -> samples."""

    samples: int
    seed: int = 0
    secrets: Rule = "mask"
    broken: float = 0.01
    require: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A conversation that may become a sample. ``names`` are its slices and the length rules that it meets."""

    key: int
    place: Place
    tokens: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """Masked conversations: the samples, those set aside to measure on, and how they were found."""

    samples: list[Conversation]
    held_out: list[Conversation]
    audit: Audit


class Smallest:
    """The candidates with the ``size`` smallest keys; a conversation that occurs again is counted, not kept twice."""

    def __init__(self, size: int) -> None:
        self._size, self._heap = size, list[tuple[int, int]]()
        self.kept: dict[int, Candidate] = {}
        self.again: Counter[int] = Counter()

    def offer(self, one: Candidate) -> None:
        if one.key in self.kept:
            self.again[one.key] += 1
            self.kept[one.key] = min(self.kept[one.key], one, key=lambda other: other.place)
        elif len(self._heap) < self._size:
            heapq.heappush(self._heap, (-one.key, one.key))
            self.kept[one.key] = one
        elif one.key < -self._heap[0][0]:
            _, gone = heapq.heapreplace(self._heap, (-one.key, one.key))
            del self.kept[gone]
            self.again.pop(gone, None)
            self.kept[one.key] = one


def select(model: OpenedModel, paths: Sequence[Path], rules: Rules, tell: Tell | None = None) -> Selection:
    """Choose samples out of the traffic in ``paths``.

    Raises DataError: too many broken lines, nothing that can be read, a secret under the rule ``refuse``, a requirement
    that the traffic does not meet.
    """
    for name in rules.require:
        check_requirement(name)
    with readable_twice(paths) as files:
        return _select(model, files, rules, tell or (lambda _what, _done, _total: None))


def _select(model: OpenedModel, paths: Sequence[Path], rules: Rules, tell: Tell) -> Selection:
    survey = _Survey(model, paths, rules, tell)
    scan = _Scan(survey, rules, tell)
    refuse_unmet(rules.require, scan.counts, scan.lengths, "the traffic holds")
    pool, near = _distinct(scan, paths, tell)
    chosen = _choose(pool, scan.counts, rules)
    refuse_unmet(
        rules.require,
        Counter(name for one in chosen for name in one.names),
        Counter(one.tokens for one in chosen),
        "among the samples there is room for"
        if len(chosen) == rules.samples
        else "of different ones the traffic holds",
    )
    taken = {one.key for one in chosen}
    rest = [one for one in pool if one.key not in taken and one.key in scan.overall.kept]
    aside = rest[: min(HELD_OUT, max(8, rules.samples // 2))]
    read, masked = _read([*chosen, *aside], paths, rules.seed)
    audit = survey.audit.model_copy(
        update={
            "unfit": scan.unfit,
            "repeated": sum(scan.overall.again.values()),
            "near_duplicates": near,
            "masked": len(masked & taken),
            "longest": max(scan.lengths, default=0),
            "slices": _rows(scan.counts, chosen),
            "held_out": tuple(read[one.key].digest for one in aside),
        }
    )
    return Selection([read[one.key] for one in chosen], [read[one.key] for one in aside], audit)


def _read(wanted: Sequence[Candidate], paths: Sequence[Path], seed: int) -> tuple[dict[int, Conversation], set[int]]:
    """The conversations by key, and the keys of those in which something was masked."""
    keys = {one.place: one.key for one in wanted}
    read, masked = dict[int, Conversation](), set[int]()
    for place, raw in fetch(paths, keys):
        key = keys[place]
        read[key], counts = masked_of(raw)
        masked |= {key} if counts else set()
        if _key(read[key], seed) != key:
            raise DataError(f"{paths[place.file]}: was changed while it was read; run again")
    return read, masked


def masked_of(raw: Conversation) -> tuple[Conversation, Counter[str]]:
    """The conversation without its secrets, and how many of each kind there were."""
    masker = Masker()
    messages = tuple(masker.value(one) for one in raw.messages)
    masked = replace(
        raw,
        messages=messages,
        tools=tuple(masker.value(one) for one in raw.tools),
        response_format=masker.value(raw.response_format),
    )
    return (masked if masker.counts else raw), masker.counts


class _Survey:
    """The first pass: what cannot be read, what holds secrets, which words are frequent."""

    def __init__(self, model: OpenedModel, paths: Sequence[Path], rules: Rules, tell: Tell) -> None:
        self.model, self.paths = model, paths
        self.jargon = Jargon(model.tokenizer)
        self.secrets: Counter[str] = Counter()
        held = lines_count = broken = 0
        listed: list[BrokenLine] = []
        for line in lines(paths, lambda done, total: tell("reading the traffic", done, total)):
            lines_count += 1
            if line.conversation is None:
                broken += 1
                if len(listed) < LISTED:
                    name = paths[line.place.file].name
                    listed.append(BrokenLine(file=name, line=line.place.number, problem=line.problem))
                continue
            masked, counts = masked_of(line.conversation)
            if counts and rules.secrets == "refuse":
                raise DataError(
                    f"{paths[line.place.file]}, line {line.place.number}: holds {_kinds(counts)}, and the rule is "
                    "'secrets: refuse'; take them out of the traffic, or let quantgate mask them or drop the line"
                )
            held += bool(counts)
            self.secrets.update(counts)
            if not counts or rules.secrets == "mask":
                self.jargon.learn("\n".join(spoken(one) for one in masked.messages))
        if not lines_count:
            raise DataError(f"{paths[0]}: holds no conversation; expected one JSON object per line")
        refuse_broken(broken, lines_count, rules.broken, listed)
        self.audit = Audit(
            files=tuple(path.name for path in paths),
            lines=lines_count,
            conversations=lines_count - broken,
            broken=broken,
            broken_lines=tuple(listed),
            unfit=0,
            repeated=0,
            near_duplicates=0,
            secrets_rule=rules.secrets,
            secrets=dict(sorted(self.secrets.items())),
            dropped=held if rules.secrets == "drop" else 0,
            masked=0,
            longest=0,
            slices=(),
            required=dict(rules.require),
        )


class _Scan:
    """The second pass: slices and lengths of every conversation, and the places of those with the smallest keys."""

    def __init__(self, survey: _Survey, rules: Rules, tell: Tell) -> None:
        self.counts: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.unfit = 0
        self.overall = Smallest(SPARE * rules.samples + HELD_OUT)
        self.by_name: dict[str, Smallest] = {}
        self._rules, self._survey = rules, survey
        self._at_least = [name for name in rules.require if AT_LEAST.fullmatch(name)]
        for group in self._groups(tell):
            self._take(group)

    def _groups(self, tell: Tell) -> Iterator[list[tuple[Place, Conversation]]]:
        group: list[tuple[Place, Conversation]] = []
        paths = self._survey.paths
        for line in lines(paths, lambda done, total: tell("measuring its slices", done, total)):
            if line.conversation is None:
                continue
            masked, counts = masked_of(line.conversation)
            if counts and self._rules.secrets == "drop":
                continue
            group.append((line.place, masked))
            if len(group) == AT_ONCE:
                yield group
                group = []
        yield group

    def _take(self, group: Sequence[tuple[Place, Conversation]]) -> None:
        tokens = lengths_of(self._survey.model, [one for _, one in group])
        for (place, conversation), count in zip(group, tokens, strict=True):
            if not count:
                self.unfit += 1
                continue
            names = [self._named(name) for name in slices_of(conversation, count, self._survey.jargon)]
            names = list(dict.fromkeys(names))
            self.counts.update(names)
            self.lengths[count] += 1
            names += [name for name in self._at_least if count >= int(name.partition(">=")[2])]
            one = Candidate(_key(conversation, self._rules.seed), place, count, tuple(names))
            self.overall.offer(one)
            for name in names:
                if name not in self.by_name:
                    size = SPARE * max(SLICE_FLOOR, self._rules.require.get(name, 0))
                    self.by_name[name] = Smallest(size)
                self.by_name[name].offer(one)

    def _named(self, name: str) -> str:
        """A product has some functions; a file of generated names must not fill the memory."""
        if not name.startswith("tool=") or name in self.counts or name in self._rules.require:
            return name
        return name if sum(one.startswith("tool=") for one in self.counts) < NAMED else "tool=(others)"


def _key(conversation: Conversation, seed: int) -> int:
    raw = hashlib.blake2b(f"calibrate/{seed}/{conversation.digest}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big")


def _distinct(scan: _Scan, paths: Sequence[Path], tell: Tell) -> tuple[list[Candidate], int]:
    """Candidates by key without near duplicates: of such a pair the one with the smaller key stays."""
    every = scan.overall.kept | {key: one for heap in scan.by_name.values() for key, one in heap.kept.items()}
    places, found = {one.place: key for key, one in every.items()}, dict[int, Shingles]()
    for at, (place, raw) in enumerate(fetch(paths, places), 1):
        found[places[place]] = shingles(masked_of(raw)[0])
        tell("comparing candidates", at, len(places))
    near, kept, dropped = Near(), list[Candidate](), 0
    for key in sorted(every):
        if near.twin_of(found[key]) is not None:
            dropped += 1
            continue
        near.keep(key, found[key])
        kept.append(every[key])
    return kept, dropped


def _choose(pool: Sequence[Candidate], counts: Mapping[str, int], rules: Rules) -> list[Candidate]:
    """Samples in the order of their keys: the rules' first, then the slices', then those with the smallest keys."""
    picks = _Picks(pool)
    for name in sorted(rules.require, key=lambda one: (counts.get(one, 0), one)):
        picks.fill(name, rules.require[name], rules.samples)
    rare = sorted(counts, key=lambda one: (counts[one], one))
    slices = [name for name in rare if not name.startswith("tool=")]
    floor = max(1, min(SLICE_FLOOR, rules.samples // (2 * max(1, len(slices)))))
    left = rules.samples - len(picks.chosen)
    half = rules.samples - left // 2  # the other half is drawn as the traffic is
    for least in range(1, floor + 1):
        for name in slices:
            picks.fill(name, least, half)
    quarter = min(half, len(picks.chosen) + left // 4)
    for name in rare:
        picks.fill(name, 1, quarter)
    for one in pool:
        picks.take(one, rules.samples)
    return [picks.chosen[key] for key in sorted(picks.chosen)]


class _Picks:
    """Candidates taken so far, and how many of them each name has."""

    def __init__(self, pool: Sequence[Candidate]) -> None:
        self.chosen: dict[int, Candidate] = {}
        self._have: Counter[str] = Counter()
        self._by_name: dict[str, list[Candidate]] = {}
        for one in pool:
            for name in one.names:
                self._by_name.setdefault(name, []).append(one)

    def take(self, one: Candidate, most: int) -> None:
        if one.key not in self.chosen and len(self.chosen) < most:
            self.chosen[one.key] = one
            self._have.update(one.names)

    def fill(self, name: str, least: int, most: int) -> None:
        """Take candidates of ``name`` until there are ``least``, or ``most`` in all."""
        for one in self._by_name.get(name, ()):
            if self._have[name] >= least:
                return
            self.take(one, most)


def _rows(counts: Mapping[str, int], chosen: Sequence[Candidate]) -> tuple[SliceRow, ...]:
    sampled = Counter(name for one in chosen for name in one.names)
    rows = [SliceRow(name=name, traffic=count, samples=sampled[name]) for name, count in counts.items()]
    return tuple(sorted(rows, key=order))


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()))
