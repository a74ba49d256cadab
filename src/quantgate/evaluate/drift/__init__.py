"""Drift: how far a variant's next-token distribution moved from the baseline's, and where: it screens, never decides.

    found = drift(baseline, [variant], cases)[0]            # on the known answers of held-out conversations
    found = measure(baseline, [variant], passages)[0]       # on passages of one's own, such as windows of a text

Definitions follow llama.cpp's perplexity tool, in natural logarithms (see ``figures``), over every position whose next
token belongs to an answer; here each position counts, not the second half of each chunk, because conversations are
short. A number or two are kept per position and nothing as wide as the vocabulary, so percentiles are exact and memory
does not grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from quantgate.engines import Engine, Remote, Speller
from quantgate.errors import EngineError
from quantgate.evaluate.drift.distances import Positions, joined, positions
from quantgate.evaluate.drift.figures import check, summarize
from quantgate.evaluate.drift.openers import FirstTokenDrift
from quantgate.evaluate.drift.passages import TOKENS_PER_BATCH, Part, Passage, batches, of_cases, parts_of, pieces
from quantgate.evaluate.drift.places import places_of
from quantgate.evaluate.drift.tables import groups_of, tables_of
from quantgate.evaluate.drift.tape import Tape
from quantgate.evaluate.drift.topk import Local, remote_drift
from quantgate.evaluate.drift_record import Drift
from quantgate.evaluate.suites import Case

NUMBERS_AT_ONCE = 1 << 24  # logits compared at a time, in float64: 128 MiB each of several copies
LOGITS_AT_ONCE = 1 << 27  # logits of one side in memory, in float32: 512 MiB
Progress = Callable[[int, int], None]


def drift_of(
    baseline: Engine,
    variant: Engine,
    cases: Sequence[Case],
    progress: Progress | None = None,
    *,
    keep: Path | None = None,
) -> Drift:
    """``drift`` of one variant; a lower bound from the likeliest tokens where a side gives no more (see ``topk``)."""
    if isinstance(baseline, Remote) or isinstance(variant, Remote):
        first, second = (side if isinstance(side, Remote) else Local(side) for side in (baseline, variant))
        return remote_drift(first, second, cases, progress)
    return drift(baseline, [variant], cases, progress, keep=keep)[0]


def drift(
    baseline: Engine,
    variants: Sequence[Engine],
    cases: Sequence[Case],
    progress: Progress | None = None,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    keep: Path | None = None,
) -> list[Drift]:
    """The drift of each variant on the known answers of ``cases``, and on the first tokens of refusals among them.

    ``progress(parts done, of how many)``; ``keep`` is a folder to go on from. Raises EngineError as ``measure`` does.
    """
    passages = of_cases(baseline, cases)
    return measure(baseline, variants, passages, progress, tokens_per_batch=tokens_per_batch, keep=keep, refusals=cases)


def measure(
    baseline: Engine,
    variants: Sequence[Engine],
    passages: Sequence[Passage],
    progress: Progress | None = None,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    keep: Path | None = None,
    refusals: Sequence[Case] = (),
) -> list[Drift]:
    """The drift of each variant on ``passages``; the baseline's logits of a part serve all variants.

    Raises EngineError when fewer than two positions are scored, when a model gives logits that are not finite, and
    when the two sides have different vocabularies.
    """
    parts = parts_of(passages, tokens_per_batch)
    most = _most(baseline, parts)
    tapes = [Tape(keep, baseline, variant) for variant in variants]
    seen: list[list[Positions]] = [[] for _ in variants]
    for index, part in enumerate(parts):
        known = [tape.get(part) for tape in tapes]
        waiting = [at for at, one in enumerate(known) if one is None]
        for at, one in zip(waiting, _compared(baseline, [variants[at] for at in waiting], part, most), strict=True):
            tapes[at].put(part, one)
            known[at] = one
        for held, measured in zip(seen, known, strict=True):
            held += [measured] if measured is not None else []
        if progress:
            progress(index + 1, len(parts))
    if variants and not any(seen):
        check(joined([]))
    first = FirstTokenDrift(baseline, refusals, most, tokens_per_batch)
    places = places_of(parts)
    groups = groups_of(places, passages, baseline.spell if isinstance(baseline, Speller) else None)
    found = []
    for variant, held in zip(variants, seen, strict=True):
        whole = joined(held)
        check(whole)
        tables = tables_of(whole, places, groups)
        found.append(summarize(whole, places.document, tables=tables, refusals=first.of(variant)))
    return found


def _most(baseline: Engine, parts: Sequence[Part]) -> int:
    """How many positions' logits fit in memory at a time, asked of one token."""
    if not parts:
        return 1
    ids = parts[0].ids[:1, :1]
    width = baseline.logits(ids, torch.ones_like(ids, dtype=torch.bool)).shape[-1]
    return max(1, LOGITS_AT_ONCE // width)


def _compared(baseline: Engine, variants: Sequence[Engine], part: Part, most: int) -> list[Positions]:
    """One part, beside every variant."""
    seen: list[list[Positions]] = [[] for _ in variants]
    for ids, at, targets in pieces(part, most) if variants else ():
        base = baseline.logits(ids, at)
        for held, variant in zip(seen, variants, strict=True):
            held += _positions(base, variant.logits(ids, at), targets)
    return [joined(held) for held in seen]


def _positions(base: Tensor, other: Tensor, targets: Tensor) -> list[Positions]:
    if base.shape != other.shape:
        raise EngineError(
            f"drift cannot be measured: the baseline tells {base.shape[-1]} tokens apart and the variant "
            f"{other.shape[-1]}; compare a variant with the model it was made from"
        )
    step = max(1, NUMBERS_AT_ONCE // base.shape[-1])
    cuts = [slice(start, start + step) for start in range(0, len(base), step)]
    return [positions(base[cut], other[cut], targets[cut]) for cut in cuts]


__all__ = ["Positions", "batches", "drift", "drift_of", "joined", "measure", "positions", "summarize"]
