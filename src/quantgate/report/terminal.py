"""The final tables: size, bits per weight, drift and verdict of every variant, then variants x capabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from quantgate.decide import CapabilityVerdict, VariantVerdict
from quantgate.decide.sentences import percent
from quantgate.evaluate.evidence import Comparison, Evidence
from quantgate.evaluate.lock import Lock
from quantgate.report import RunReport
from quantgate.report.drifts import worst_sentence
from quantgate.report.noise import noise_sentence, pace_lines
from quantgate.report.tables import MARKS, SHORT, megabytes, plain_table
from quantgate.report.target_lines import show_decisions
from quantgate.report.trained import WAYS, held_sentence, training_sentence, ways_of
from quantgate.report.traps import traps


def show(report: RunReport, console: Console) -> None:
    """Print the decision of a run: what each variant is, what each capability became, one sentence per variant."""
    evidence = {one.variant: one for one in report.evidence}
    facts = plain_table("variant", ("MB", "bits", "KL", "ppl ratio"), "right")
    facts.add_column("verdict")
    scores = plain_table("variant", [SHORT.get(gate.capability, gate.capability) for gate in report.gates], "center")
    facts.add_row("  baseline", megabytes(report.baseline_bytes), "16", "", "", "", style="dim")
    scores.add_row("  baseline", *baseline_cells(report), style="dim")
    if report.noise:
        scores.add_row("  flips by itself", *noise_cells(report), style="dim")
    for verdict in report.decision.verdicts:
        name = _name(report, verdict)
        facts.add_row(name, *fact_cells(report, verdict, evidence.get(verdict.variant)))
        scores.add_row(name, *score_cells(verdict, evidence.get(verdict.variant)))
    console.print(facts)
    console.print(scores)
    console.print(
        "score in percent; green: proven within its margin, red: loss proven, yellow: not decided", style="dim"
    )
    if report.noise:
        console.print(noise_sentence(report.noise), style="dim")
    for verdict in report.decision.verdicts:
        mark, style = MARKS[verdict.verdict]
        console.print(Text.assemble((f"{mark:<5}", style), (f" {verdict.variant}: ", "bold"), verdict.sentence))
    for line in (*kin_lines(report), *training_lines(report)):
        console.print(Text(line, style="dim"))
    for one in report.evidence:
        show_accepted(one.lock, console, f"{one.variant}: ")
    for line in pace_lines(report.evidence, report.paces):
        console.print(Text(line, style="dim"))
    for one in report.evidence:
        if one.drift and (sentence := worst_sentence(one.variant, one.drift)):
            console.print(sentence, style="dim")
    for trap in traps(report):
        console.print(Text(f"\n{trap_sentence(trap)}", style="italic"))
    console.print()
    console.print(Text(report.decision.sentence, style="bold green" if report.decision.chosen else "bold yellow"))
    show_decisions(report, console)
    console.print(Text(spent(report), style="dim"))


def show_accepted(lock: Lock | None, console: Console, prefix: str = "") -> None:
    """What the two sides do not have in common, because the user said that they need not."""
    for one in lock.accepted if lock else ():
        console.print(Text(f"{prefix}compared although they differ, as allowed: {one}", style="yellow"))


def kin_lines(report: RunReport) -> list[str]:
    """What each model of its own is beside the baseline, with the variants that are it or were made of it."""
    kin = {one.kin.weights: one.kin for one in report.variants if one.kin is not None}
    names = {
        weights: [one.name for one in report.variants if one.kin and one.kin.weights == weights] for weights in kin
    }
    return [f"{', '.join(names[weights])}: {one.sentence}" for weights, one in kin.items()]


def training_lines(report: RunReport) -> list[str]:
    """How each variant was trained; a student's own training once, with the variants that were made of it."""
    names: dict[str, list[str]] = {}
    for one in report.variants:
        for training in one.training:
            names.setdefault(training_sentence(training), []).append(one.name)
    held = [f"training data: {held_sentence(report.training_overlaps)}"] if report.training_overlaps else []
    return [*(f"{', '.join(of)}: {sentence}" for sentence, of in names.items()), *held]


def trap_sentence(trap: dict[str, Any]) -> str:
    """What the averages of a damaged variant hide."""
    worst, one = trap["worst"], trap["evidence"]
    return (
        f"What averages hide: {one.variant} has {one.drift.ppl_ratio:.3f} times the baseline's perplexity, and "
        f"{worst.gate.capability.replace('_', ' ')} fell from {percent(worst.baseline_score)} to "
        f"{percent(worst.variant_score)}."
    )


def repair_hint(report: RunReport, config: Path, out: Path | None = None) -> str:
    """How to go on with the largest variant that failed and is smaller than what was chosen, if there is one."""
    sizes = {one.name: one.stored_bytes for one in report.candidates}
    ours = {one.name for one in report.variants if one.repairable}
    limit = sizes.get(report.decision.chosen or "", report.baseline_bytes)
    failed = [one.variant for one in report.decision.verdicts if one.verdict == "fail" and one.variant in ours]
    smaller = sorted((one for one in failed if sizes[one] < limit), key=lambda one: -sizes[one])
    if not smaller:
        return ""
    where = f"--config {config}" + (f" --out {out}" if out else "")
    return f"Bring a failed one back, layer by layer: [bold]quantgate repair {smaller[0]} {where}[/]"


def _name(report: RunReport, verdict: VariantVerdict) -> Text:
    chosen = verdict.variant == report.decision.chosen
    relation = next(one.relation for one in report.candidates if one.name == verdict.variant)
    told = [one for one in (relation, *(WAYS[way] for way in ways_of(report, verdict.variant))) if one]
    return Text.assemble(
        (("> " if chosen else "  ") + verdict.variant, "bold green" if chosen else ""),
        (f" ({', '.join(told)})" if told else "", "dim"),
    )


def baseline_cells(report: RunReport) -> list[str]:
    """The baseline's score on the most cases that any variant needed."""
    best: dict[str, Comparison] = {}
    for one in report.evidence:
        for row in one.comparisons:
            if row.gate.capability not in best or row.n > best[row.gate.capability].n:
                best[row.gate.capability] = row
    found = [best.get(gate.capability) for gate in report.gates]
    return [score_text(row.baseline_score if row else None) for row in found]


def noise_cells(report: RunReport) -> list[str]:
    """How many answers of the baseline flip by themselves, of how many."""
    found = {one.capability: f"{one.flips}/{one.n}" for one in report.noise}
    return [found.get(gate.capability, "-") for gate in report.gates]


def fact_cells(report: RunReport, verdict: VariantVerdict, evidence: Evidence | None) -> list[str | Text]:
    candidate = next(one for one in report.candidates if one.name == verdict.variant)
    drift = evidence.drift if evidence else None
    mark, style = MARKS[verdict.verdict]
    return [
        megabytes(candidate.stored_bytes),
        f"{candidate.bits_per_weight:.2f}",
        f"{drift.kl_mean:.4f}" if drift else "-",
        f"{drift.ppl_ratio:.3f}" if drift else "-",
        Text("chosen" if verdict.variant == report.decision.chosen else mark, style=style),
    ]


def score_cells(verdict: VariantVerdict, evidence: Evidence | None) -> list[Text]:
    rows = {one.gate.capability: one for one in evidence.comparisons} if evidence else {}
    return [cell(one, rows.get(one.capability)) for one in verdict.capabilities]


def cell(verdict: CapabilityVerdict, comparison: Comparison | None) -> Text:
    score = comparison.variant_score if comparison else None
    return Text(score_text(score), style=MARKS[verdict.verdict][1])


def score_text(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.1f}"


def spent(report: RunReport) -> str:
    """How many cases were asked, against an exhaustive run, and where the time went."""
    rows = [row for one in report.evidence for row in one.comparisons]
    asked, available = sum(row.asked + row.asked_for_slices for row in rows), sum(row.available for row in rows)
    times = ", ".join(f"{stage.name} {stage.seconds:.0f} s" for stage in report.stages if stage.seconds >= 1)
    share = f" ({asked / available:.0%})" if available else ""
    reused = "".join(f"; {stage.reused}" for stage in report.stages if stage.reused)
    return f"{asked} of {available} paired cases were enough{share}" + (f"; {times}" if times else "") + reused
