"""The tables of ``quantgate compare``: capabilities, and what each setting of a stack changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantgate.report.noise import noise_sentence, pace_sentence
from quantgate.report.tables import MARKS, SHORT, plain_table
from quantgate.report.terminal import cell, score_text, show_accepted

if TYPE_CHECKING:
    from quantgate.evaluate.evidence import Pace


def show_comparisons(result: Any, console: Console) -> None:
    """Print the outcome of ``quantgate compare``, a ``CompareResult``."""
    if result.stacks:
        _show_stacks(result.stacks, console)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    flips = {one.capability: f"{one.flips}/{one.n}" for one in result.noise}
    itself = ["flips by itself"] if flips else []
    for name in ("capability", "baseline", "variant", "cases", "lost", "gained", *itself, "verdict"):
        table.add_column(name, justify="left" if name in ("capability", "verdict") else "right")
    for row, verdict in zip(result.comparisons, result.verdicts, strict=True):
        mark, style = MARKS[verdict.verdict]
        noise = [flips.get(verdict.capability, "-")] if flips else []
        table.add_row(
            verdict.capability, score_text(row.baseline_score), score_text(row.variant_score), str(row.n),
            str(row.finding.losses), str(row.finding.gains), *noise, Text(mark, style=style),
        )  # fmt: skip
    console.print(table)
    for verdict in result.verdicts:
        console.print(verdict.sentence)
    for side, sentence in result.served.items():
        console.print(f"{side}: {sentence}", style="dim", soft_wrap=True)
    for line in [noise_sentence(result.noise)] if result.noise else []:
        console.print(line, style="dim")
    if spoken := pace_sentence(result.pace, result.runtime):
        console.print(spoken, style="dim")
    show_accepted(result.lock, console)


def _show_stacks(stacks: Any, console: Console) -> None:
    """One row per stack: scores, how many answers read otherwise than in the plain stack, drift, speed, drafts."""
    names = [SHORT.get(one.capability, one.capability) for one in stacks[0].verdicts]
    table = plain_table("stack", [*names, "other text", "KL", "same top", "tokens/s", "accepted"], "right")
    for one in stacks:
        rows = {row.gate.capability: row for row in one.comparisons}
        drift = [f"{one.drift.kl_mean:.5f}", f"{one.drift.same_top:.2%}"] if one.drift else ["-", "-"]
        table.add_row(
            one.name,
            *(cell(verdict, rows.get(verdict.capability)) for verdict in one.verdicts),
            f"{one.differ}/{one.beside}", *drift, *_pace_cells(one.pace),
        )  # fmt: skip
    console.print(table)
    console.print(
        "score in percent against the baseline (green: proven within its margin, red: loss proven, yellow: not "
        "decided); other text: answers that differ from those of the variant as it is",
        style="dim",
    )


def _pace_cells(pace: Pace | None) -> list[str]:
    if pace is None or pace.tokens_per_s is None:
        return ["-", "-"]
    return [f"{pace.tokens_per_s:,.0f}", "-" if pace.acceptance is None else f"{pace.acceptance:.0%}"]
