"""The final table: variants x capabilities with verdicts, size, bits per weight, drift, and the chosen one."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantgate.decide import CapabilityVerdict, VariantVerdict
from quantgate.evaluate.evidence import Comparison, Evidence
from quantgate.report import RunReport

MARKS = {"pass": ("pass", "green"), "fail": ("FAIL", "bold red"), "inconclusive": ("open", "yellow")}
SHORT = {
    "long_context": "long ctx",
    "multilingual": "multiling.",
    "rare_vocabulary": "rare words",
    "json_tools": "tools",
    "code_gen": "code",
}


def show(report: RunReport, console: Console) -> None:
    """Print the decision of a run: a table, then one sentence for every variant."""
    evidence = {one.variant: one for one in report.evidence}
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1))
    table.add_column("variant", no_wrap=True)
    table.add_column("MB", justify="right")
    table.add_column("bits", justify="right")
    table.add_column("KL", justify="right")
    table.add_column("ppl x", justify="right")
    for gate in report.gates:
        table.add_column(SHORT.get(gate.capability, gate.capability), justify="center")
    table.add_column("verdict", justify="left")
    table.add_row(*baseline_row(report), style="dim")
    for verdict in report.decision.verdicts:
        table.add_row(*variant_row(report, verdict, evidence.get(verdict.variant)))
    console.print(table)
    console.print(
        "cells: score of the variant; green = proven within its margin, red = loss proven, yellow = not decided",
        style="dim",
    )
    for verdict in report.decision.verdicts:
        mark, style = MARKS[verdict.verdict]
        console.print(Text.assemble((f"{mark:<5}", style), (f" {verdict.variant}: ", "bold"), verdict.sentence))
    console.print()
    console.print(Text(report.decision.sentence, style="bold green" if report.decision.chosen else "bold yellow"))
    console.print(Text(spent(report), style="dim"))


def baseline_row(report: RunReport) -> list[Any]:
    scores: dict[str, float | None] = {}
    for one in report.evidence[:1]:
        scores = {row.gate.capability: row.baseline_score for row in one.comparisons}
    cells = [score_text(scores.get(gate.capability)) for gate in report.gates]
    return ["baseline", megabytes(report.baseline_bytes), "16", "", "", *cells, ""]


def variant_row(report: RunReport, verdict: VariantVerdict, evidence: Evidence | None) -> list[Any]:
    candidate = next(one for one in report.candidates if one.name == verdict.variant)
    drift = evidence.drift if evidence else None
    rows = {one.gate.capability: one for one in evidence.comparisons} if evidence else {}
    cells = [cell(one, rows.get(one.capability)) for one in verdict.capabilities]
    chosen = verdict.variant == report.decision.chosen
    mark, style = MARKS[verdict.verdict]
    name = Text(("> " if chosen else "  ") + verdict.variant, style="bold green" if chosen else "")
    return [
        name,
        megabytes(candidate.stored_bytes),
        f"{candidate.bits_per_weight:.2f}",
        f"{drift.kl_mean:.4f}" if drift else "-",
        f"{drift.ppl_ratio:.3f}" if drift else "-",
        *cells,
        Text("chosen" if chosen else mark, style=style),
    ]


def cell(verdict: CapabilityVerdict, comparison: Comparison | None) -> Text:
    score = comparison.variant_score if comparison else None
    return Text(score_text(score), style=MARKS[verdict.verdict][1])


def score_text(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.1f}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


def spent(report: RunReport) -> str:
    """How many cases were asked, against an exhaustive run, and where the time went."""
    rows = [row for one in report.evidence for row in one.comparisons]
    asked, available = sum(row.asked for row in rows), sum(row.available for row in rows)
    times = ", ".join(f"{stage.name} {stage.seconds:.0f} s" for stage in report.stages if stage.seconds >= 1)
    share = f" ({asked / available:.0%})" if available else ""
    return f"{asked} of {available} paired cases were enough{share}" + (f"; {times}" if times else "")


def show_comparisons(result: Any, console: Console) -> None:
    """Print the outcome of ``quantgate compare``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("capability", "baseline", "variant", "cases", "lost", "gained", "verdict"):
        table.add_column(name, justify="left" if name in ("capability", "verdict") else "right")
    for row, verdict in zip(result.comparisons, result.verdicts, strict=True):
        mark, style = MARKS[verdict.verdict]
        table.add_row(
            verdict.capability, score_text(row.baseline_score), score_text(row.variant_score), str(row.n),
            str(row.finding.losses), str(row.finding.gains), Text(mark, style=style),
        )  # fmt: skip
    console.print(table)
    for verdict in result.verdicts:
        console.print(verdict.sentence)
