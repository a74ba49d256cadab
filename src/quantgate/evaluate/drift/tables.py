"""One table for each property of a position: place in the sequence and the answer, slice, rarity, structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from quantgate.evaluate.drift.distances import Positions
from quantgate.evaluate.drift.figures import percentiles
from quantgate.evaluate.drift.intervals import interval
from quantgate.evaluate.drift.passages import Passage
from quantgate.evaluate.drift.places import Places, by_name, by_structure, doubling
from quantgate.evaluate.drift.rarity import by_rarity
from quantgate.evaluate.drift_record import DriftRow, DriftTable

FIRST_BUCKET = 16  # positions of the sequence in the first group; every further one is as long as all before
Spell = Callable[[Sequence[int]], list[str]]
Group = tuple[str, Tensor, str]  # name, mask [n], note


def tables_of(
    seen: Positions, places: Places, groups: Sequence[tuple[str, str, list[Group]]]
) -> tuple[DriftTable, ...]:
    """``groups`` as ``groups_of`` makes them; they are the same for every variant, so they are made once."""
    found = []
    for by, about, members in groups:
        rows = tuple(_row(name, mask, note, seen, places) for name, mask, note in members)
        found.append(DriftTable(by=by, about=about, rows=rows))
    return tuple(found)


def groups_of(places: Places, text: Sequence[Passage], spell: Spell | None) -> list[tuple[str, str, list[Group]]]:
    """Title, explanation and groups of every table that has at least one group."""
    plain: list[tuple[str, str, list[tuple[str, Tensor]]]] = [
        (
            "position in the sequence",
            "how many tokens stand before the true one; each group is as long as all groups before it",
            doubling(places.position, FIRST_BUCKET),
        ),
        (
            "position in the answer",
            "the answer's own tokens, the first is 1; what was rounded wrongly early stays in the context",
            doubling(places.answer, 2) if int(places.answer.numel()) and _answers(places) else [],
        ),
        ("slice", "cases by suite and slice; a case is in one group for each of its slices", by_name(places)),
        (
            "structure of JSON answers",
            "tokens that hold braces, brackets, quotes, commas or colons; one token may hold several",
            by_structure(places, spell) if spell else [],
        ),
    ]
    found = [(by, about, [(name, mask, "") for name, mask in groups]) for by, about, groups in plain if groups]
    about = "true tokens by their frequency in all that was fed, equally frequent ones by the tokenizer's own order"
    rare = by_rarity(places.token, (one.ids for one in text))
    at = min(2, len(found))
    return [*found[:at], ("rarity of the true token", about, rare), *found[at:]] if rare else found


def _answers(places: Places) -> bool:
    """Whether answers begin at different places than sequences do; with running text the two tables were one."""
    return not bool((places.answer == places.position).all())


def _row(name: str, mask: Tensor, note: str, seen: Positions, places: Places) -> DriftRow:
    here, documents = seen[mask], places.document[mask]
    low, high = interval(here.kl, documents)
    return DriftRow(
        name=name,
        tokens=len(here),
        documents=len(documents.unique()),
        kl_mean=float(here.kl.mean()),
        kl_low=low,
        kl_high=high,
        kl_p99=percentiles(here.kl)["99"],
        same_top=float(here.same_top.double().mean()),
        rms_dp=float(here.dp.square().mean().sqrt()),
        ln_ratio=float((here.nll_variant - here.nll_baseline).mean()),
        tv=float(here.tv.mean()),
        note=note,
    )
