"""Two passes over the traffic, in which nothing is kept but counts and places.

The first pass counts: broken lines, secrets, the words of the domain. The second gives every conversation a key, a hash
of the seed and of its content, and keeps the places of the smallest keys: of all conversations, and of each slice.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from quantgate.calibrate.audit import LISTED, Audit, BrokenLine, refuse_broken
from quantgate.calibrate.conversation import Conversation, Turns, spoken
from quantgate.calibrate.jargon import Jargon
from quantgate.calibrate.render import lengths_of
from quantgate.calibrate.secrets import Masker
from quantgate.calibrate.slices import AT_LEAST, slices_of
from quantgate.calibrate.traffic import Place, lines
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
    apart: Callable[[Turns], bool] | None = None  # of masked turns: True where they are kept for the cases of a suite


@dataclass(frozen=True)
class Candidate:
    """A conversation that may become a sample. ``names`` are its slices and the length rules that it meets."""

    key: int
    place: Place
    tokens: int
    names: tuple[str, ...]


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


class Survey:
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


class Scan:
    """The second pass: slices and lengths of every conversation, and the places of those with the smallest keys."""

    def __init__(self, survey: Survey, rules: Rules, tell: Tell) -> None:
        self.counts: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.unfit = self.apart = 0
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
            if self._rules.apart is not None and self._rules.apart(masked.turns):
                self.apart += 1
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
            one = Candidate(key_of(conversation, self._rules.seed), place, count, tuple(names))
            self.overall.offer(one)
            for name in names:
                if name not in self.by_name:
                    size = SPARE * max(SLICE_FLOOR, self._rules.require.get(name, 0))
                    self.by_name[name] = Smallest(size)
                self.by_name[name].offer(one)

    def _named(self, name: str) -> str:
        """A product has some functions; generated names must not fill the memory: the first NAMED stay."""
        if not name.startswith("tool=") or name in self.counts or name in self._rules.require:
            return name
        return name if sum(one.startswith("tool=") for one in self.counts) < NAMED else "tool=(others)"


def key_of(conversation: Conversation, seed: int) -> int:
    raw = hashlib.blake2b(f"calibrate/{seed}/{conversation.digest}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big")


def masked_traffic(path: Path) -> list[Turns]:
    """Every conversation of the traffic that can be read, without its secrets. Raises DataError when there is none."""
    found = [masked_of(line.conversation)[0].turns for line in lines([path]) if line.conversation is not None]
    if not found:
        raise DataError(f"{path}: holds no conversation that can be read; expected one JSON object per line")
    return found


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


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()))
