"""Releases in the terminal: what is live, what may be promoted, and the moves that led there."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from quantgate.release import Live, Variant
from quantgate.release.history import WORDS, Move, percent, same
from quantgate.release.store import Registry

SHORT = 12  # digits of a digest that people are shown


def live_sentence(live: Live) -> str:
    """
    >>> base = Variant(name="BF16", artifact="sha256:b", engine="none", is_baseline=True)
    >>> live_sentence(Live(target="fleet", revision=1, baseline=base, stable=base))
    'fleet: BF16, the baseline (revision 1)'
    """
    told = [f"{live.target}: {live.stable.name}" + (", the baseline" if same(live.stable, live.baseline) else "")]
    if live.canary is not None:
        told.append(f"{live.canary.name} is its canary with {percent(live.share)} of sessions")
    if live.holdback and not same(live.stable, live.baseline):
        told.append(f"{percent(live.holdback)} stay with the baseline")
    if live.frozen:
        told.append("held")
    return "; ".join(told) + f" (revision {live.revision})"


def live_table(live: Sequence[Live]) -> Table:
    table = _table("Live", ("target", "stable", "canary", "held back", "baseline", "revision"))
    for one in live:
        _row(
            table,
            one.target + (" (held)" if one.frozen else ""),
            _named(one.stable),
            f"{_named(one.canary)} {percent(one.share)}" if one.canary else "",
            percent(one.holdback) if one.holdback else "",
            _named(one.baseline),
            str(one.revision),
        )
    return table


def may_table(registry: Registry, live: Live) -> Table:
    """Every variant that a decision about the target names, and what the latest one says of it."""
    table = _table("Decided", ("variant", "verdict", "why", "since", "by"))
    seen: list[Variant] = []
    for one in registry.variants(live.target):
        found = registry.decided(live.target, one.artifact, one.engine)
        if found is None or any(same(one, other) for other in seen):
            continue
        seen.append(one)
        verdict = found.verdict if found.passed or found.verdict != "pass" else "not eligible"
        _row(
            table,
            _named(one),
            verdict + (" (chosen)" if found.chosen else ""),
            found.sentence,
            found.at[:16],
            found.who,
        )
    return table


def history_table(moves: Sequence[Move]) -> Table:
    table = _table("History", ("revision", "when", "who", "what", "from", "to", "why"))
    for one in moves:
        before = _traffic(one.before) if one.before else ""
        after = _traffic(one.live)
        told = "; ".join(part for part in (one.why, _capacity(one.capacity)) if part)
        when = one.at[:16].replace("T", " ")
        _row(table, str(one.revision), when, one.who, WORDS[one.what], before, after, told)
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading == "revision" else "left")
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))  # what people wrote is no markup


def _capacity(told: str) -> str:
    return f"capacity: {told}" if told and told != "not asked" else ""


def _traffic(live: Live) -> str:
    held = ", held" if live.frozen else ""
    canary = f" + {live.canary.name} {percent(live.share)}" if live.canary else ""
    return f"{live.stable.name}{canary}{held}"


def _named(variant: Variant) -> str:
    return f"{variant.name} {variant.artifact.removeprefix('sha256:')[:SHORT]}"
