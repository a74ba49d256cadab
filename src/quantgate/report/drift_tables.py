"""Drift in the terminal: its figures, and one table for each property."""

from __future__ import annotations

from rich.console import Console

from quantgate.decide.sentences import percent
from quantgate.evaluate.drift_record import DriftTable
from quantgate.report.drifts import DriftReport, between, figures
from quantgate.report.tables import plain_table

MOST = 16  # groups of one property that the terminal shows


def show_drift(report: DriftReport, console: Console) -> None:
    """Print the figures and one table for each property."""
    drift = report.drift
    console.print(
        f"{report.variant} beside {report.baseline}: {drift.tokens} tokens of {', '.join(report.measured_on)}"
    )
    if drift.lower_bound:
        console.print("The engine tells the likeliest tokens alone: KL and total variation are lower bounds.")
    for name, text in figures(drift):
        console.print(f"  [bold]{name}[/]: {text}")
    for table in drift.detail.tables if drift.detail else ():
        _show_table(table, console)
    refusals = drift.detail.refusals if drift.detail else None
    if refusals:
        openers = ", ".join(repr(one) for one in refusals.openers)
        console.print(f"First tokens of answers that are to refuse or to comply; a refusal begins with {openers}")
        for one in refusals.rows:
            console.print(
                f"  {one.expect}: {one.cases} cases, total variation {one.tv:.3f}, chance to begin a refusal "
                f"{percent(one.baseline)} -> {percent(one.variant)} {between(one.low, one.high)}"
            )
    console.print("Drift screens and explains; it decides nothing.", style="dim")


def _show_table(table: DriftTable, console: Console) -> None:
    """All groups, or the worst of many; drift.html has the others."""
    rows = list(table.rows)
    left = len(rows) - MOST
    if left > 0:
        rows = sorted(rows, key=lambda row: (row.kl_low is None, -(row.kl_low or row.kl_mean)))[:MOST]
    console.print(f"By {table.by}" + (f", the worst {MOST} of {len(table.rows)}" if left > 0 else ""), style="bold")
    shown = plain_table("group", ("tokens", "KL", "95 % interval", "same top", "ln ratio"), "right")
    for row in rows:
        interval = "-" if row.kl_low is None else f"{row.kl_low:.2g} to {row.kl_high:.2g}"
        same, ratio = f"{100 * row.same_top:.1f}", f"{row.ln_ratio:+.3f}"
        shown.add_row(row.name, str(row.tokens), f"{row.kl_mean:.2g}", interval, same, ratio)
    console.print(shown)
