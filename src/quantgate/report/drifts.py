"""Drift on a page: where it is, with what chance, and what moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from quantgate.decide.sentences import percent
from quantgate.evaluate.drift_record import Drift, DriftRow, DriftTable
from quantgate.records import Record
from quantgate.report.charts import Dot, curves, spreads
from quantgate.report.pages import rendered

LINES = ("position in the sequence", "position in the answer", "rarity of the true token")  # what has an order
FEW = 30  # positions below which a group is neither drawn nor called the worst
MOST = 24  # groups without an order that are drawn
NATS = "nats"


class DriftReport(Record):
    """What ``quantgate drift`` measured; ``drift.json`` is this record."""

    baseline: str
    variant: str
    engines: tuple[str, str]  # identity digests of both sides
    measured_on: tuple[str, ...]  # files and suites
    context: int | None  # tokens of a window of running text
    drift: Drift


def worst(table: DriftTable) -> DriftRow | None:
    """The group that surely drifts most: by the near end of its interval where it has one."""
    rows = [row for row in table.rows if row.tokens >= FEW]
    if len(rows) < 2:
        return None
    return max(rows, key=lambda row: row.kl_mean if row.kl_low is None else row.kl_low)


def worst_sentence(name: str, drift: Drift) -> str:
    """Where a variant drifts most, in one line; empty where nothing more than the mean is known."""
    if drift.detail is None or drift.kl_mean <= 0:
        return ""
    found = [(table.by, row) for table in drift.detail.tables if (row := worst(table)) is not None]
    short = {by: by.removeprefix("position in the ").removeprefix("rarity of the ") for by, _ in found}
    parts = [f"{row.name} ({short[by]}) {row.kl_mean / drift.kl_mean:.1f}x" for by, row in found]
    return f"{name} drifts most at {', '.join(parts)} of its mean KL {drift.kl_mean:.3g}" if parts else ""


def figures(drift: Drift) -> list[tuple[str, str]]:
    """The headline figures with their chance, name and text."""
    bound = "at least " if drift.lower_bound else ""
    detail = drift.detail
    if detail is None:
        return [("mean KL", f"{bound}{drift.kl_mean:.5g} nats over {drift.tokens} tokens")]
    kl, dp = detail.kl, detail.dp
    listed = ", ".join(f"{name} {value:.3g}" for name, value in kl.percentiles.items())
    moved = ", ".join(f"{name} {100 * value:.2f}" for name, value in dp.percentiles.items())
    ratio = f"{drift.ppl_ratio:.4f}"
    return [
        ("mean KL", f"{bound}{kl.mean:.5g} nats {between(kl.low, kl.high)}, +- {kl.se:.2g} were tokens independent"),
        ("KL percentiles", f"{bound}{listed}"),
        ("same top token", f"{percent(drift.same_top)} +- {percent(detail.same_top_se, 2)}"),
        (
            "true token's probability",
            f"{100 * dp.mean:+.3f} points {between(dp.low, dp.high, 100)}; {moved}",
        ),
        ("RMS of that change", f"{100 * drift.rms_dp:.3f} +- {100 * detail.rms_dp_se:.3f} points"),
        (
            "perplexity",
            f"{drift.ppl_baseline:.4f} +- {detail.ppl_baseline_se:.4f} -> {drift.ppl_variant:.4f} +- "
            f"{detail.ppl_variant_se:.4f}; ratio {ratio}, ln ratio +- {drift.ppl_ratio_se:.2g} "
            f"{between(detail.ln_ratio_low, detail.ln_ratio_high)}",
        ),
        ("correlation of both", "-" if detail.correlation is None else percent(detail.correlation, 2)),
        ("total variation", "-" if detail.tv_mean is None else f"{bound}{detail.tv_mean:.4f}"),
        *((f"mass outside {one.outside}", _tail(one)) for one in detail.tails),
    ]


def _tail(one: Any) -> str:
    change = f"{100 * one.moved:+.3f} points {between(one.low, one.high, 100)}"
    return f"{percent(one.baseline, 3)} -> {percent(one.variant, 3)}, {change}"


def between(low: float | None, high: float | None, times: float = 1.0) -> str:
    """An interval, if there is one.

    >>> between(0.01, 0.02), between(None, None)
    ('(0.01 to 0.02)', '(too few documents for an interval)')
    """
    if low is None or high is None:
        return "(too few documents for an interval)"
    return f"({times * low:.3g} to {times * high:.3g})"


def plots(drifts: Mapping[str, Drift]) -> list[dict[str, Any]]:
    """One chart for every property of the first variant's tables, over all variants with the same groups.

    Groups of few positions are left to the tables, and so is all but the worst of many.
    """
    tables = {name: {one.by: one for one in drift.detail.tables} for name, drift in drifts.items() if drift.detail}
    if not tables:
        return []
    found = []
    for by, first in next(iter(tables.values())).items():
        names = [row.name for row in first.rows]
        same = {
            name: own[by].rows
            for name, own in tables.items()
            if by in own and [row.name for row in own[by].rows] == names
        }
        shown = _shown(by, list(same.values()))
        if len(shown) > 1 and any(rows[at].kl_mean > 0 for rows in same.values() for at in shown):
            some = {name: [rows[at] for at in shown] for name, rows in same.items()}
            left = "" if len(shown) == len(names) else f"; {len(shown)} of {len(names)} groups, all are in the table"
            found.append({"by": by, "about": first.about + left, "plot": _plot(by, [names[at] for at in shown], some)})
    return found


def _shown(by: str, variants: Sequence[Sequence[DriftRow]]) -> list[int]:
    """Which groups are drawn, in their order: those with enough positions, and of many the MOST that drift most."""
    solid = [at for at, row in enumerate(variants[0]) if row.tokens >= FEW]
    if by in LINES or len(solid) <= MOST:
        return solid
    return sorted(sorted(solid, key=lambda at: -max(rows[at].kl_mean for rows in variants))[:MOST])


def _plot(by: str, groups: Sequence[str], rows: Mapping[str, Sequence[DriftRow]]) -> Markup:
    if by in LINES:
        lines = [(name, [row.kl_mean for row in own]) for name, own in rows.items()]
        return curves(lines, by, "mean KL", ticks=groups, unit=NATS)
    members = [
        (group, [Dot(name, own[at].kl_mean, own[at].kl_low, own[at].kl_high) for name, own in rows.items()])
        for at, group in enumerate(groups)
    ]
    return spreads(members, "mean KL", NATS)


def drift_section(drifts: Mapping[str, Drift]) -> dict[str, Any]:
    """What the template ``_drift.html`` shows."""
    known = {name: drift for name, drift in drifts.items() if drift.detail is not None}
    return {"plots": plots(known), "drifts": known, "figures": figures, "between": between, "percent": percent}


def drift_page(report: DriftReport) -> str:
    """drift.html: one self-contained file."""
    return rendered("drift.html", report=report, drifting=drift_section({Path(report.variant).name: report.drift}))
