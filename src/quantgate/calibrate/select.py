"""From traffic to a calibration set: a choice that covers what the traffic holds.

A conversation's key is a hash of the seed and its content, so the choice does not depend on the order of the lines. The
candidates that the scan kept are fetched again, and near duplicates among them dropped; then the rules' slices are
filled, then with half of what is left every other slice up to a floor, the rarest first (functions last, one each), and
the rest is what a plain random sample would be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.calibrate.audit import Audit, SliceRow, order, refuse_unmet
from quantgate.calibrate.conversation import Conversation
from quantgate.calibrate.near import Near, Shingles, shingles
from quantgate.calibrate.scan import HELD_OUT, SLICE_FLOOR, Candidate, Rules, Scan, Survey, Tell, key_of, masked_of
from quantgate.calibrate.slices import check_requirement
from quantgate.calibrate.traffic import fetch, readable_twice
from quantgate.errors import DataError
from quantgate.models import OpenedModel


@dataclass(frozen=True)
class Selection:
    """Masked conversations: the samples, those set aside to measure on, and how they were found."""

    samples: list[Conversation]
    held_out: list[Conversation]
    audit: Audit


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
    survey = Survey(model, paths, rules, tell)
    scan = Scan(survey, rules, tell)
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
            "apart": scan.apart,
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
        if key_of(read[key], seed) != key:
            raise DataError(f"{paths[place.file]}: was changed while it was read; run again")
    return read, masked


def _distinct(scan: Scan, paths: Sequence[Path], tell: Tell) -> tuple[list[Candidate], int]:
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
