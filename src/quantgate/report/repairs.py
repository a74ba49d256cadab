"""A repair as a record, and what is printed about it: what was lifted, what it cost in bytes, what it bought."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.text import Text

from quantgate.records import Record
from quantgate.report import RunReport
from quantgate.report.inspections import name_of
from quantgate.report.tables import MARKS, SHORT, megabytes, plain_table
from quantgate.report.terminal import score_text

SHOWN = 12  # lifted groups in the table; the record has all


class Lift(Record):
    """Layers that read one input, and where they come from now."""

    layers: tuple[str, ...]
    source: str  # another variant of the run, or BF16 for the model itself
    bytes_added: int
    drift_removed: dict[str, float]  # capability -> nats per answer token, as foreseen


class Trial(Record):
    """One mixture on the tune split."""

    share: float  # of the failed variant's foreseen drift that it may have
    bytes: int  # of all its tensors
    scores: dict[str, tuple[float, float]]  # capability -> baseline's and its own mean score
    kept: bool  # whether it lost so little that it may go to the gate


class Repair(Record):
    """From a failed variant to a verdict on fresh cases; ``repair.json`` is this record."""

    variant: str
    repaired: str
    number: int  # the first repair of the run, the second ...: it is judged at alpha / 2, alpha / 4 ...
    targets: tuple[str, ...]  # capabilities that the variant did not keep
    lifts: tuple[Lift, ...]  # the largest gain per byte first
    trials: tuple[Trial, ...]  # in the order tried; the last one went to the gate
    bytes_before: int
    bytes_after: int
    chosen: str | None  # what the run had chosen
    chosen_bytes: int | None
    report: RunReport  # the repaired variant alone, judged on cases that the run had not asked


def lifted_sentence(repair: Repair) -> str:
    """``3 of its layer groups come from W8A16 and 1 from BF16 now, 120,000 bytes more (+4.1 %)``."""
    counts = Counter(one.source for one in repair.lifts)
    parts = " and ".join(f"{count} from {source}" for source, count in counts.most_common())
    more = repair.bytes_after - repair.bytes_before
    return (
        f"{repair.variant} with {parts}: {len(repair.lifts)} lifted "
        f"{'group' if len(repair.lifts) == 1 else 'groups'} of layers, {more:,} bytes more "
        f"({more / repair.bytes_before:+.1%})."
    )


def bought_sentence(repair: Repair) -> str:
    """What the bytes bought, on the cases that judged the repair."""
    rows = {one.gate.capability: one for one in repair.report.evidence[0].comparisons}
    parts = [
        f"{name.replace('_', ' ')} {score_text(rows[name].variant_score)} % "
        f"(baseline {score_text(rows[name].baseline_score)} %)"
        for name in repair.targets
    ]
    return f"On {sum(one.asked for one in rows.values())} cases that nobody had asked: {', '.join(parts)}."


def smaller_sentence(repair: Repair) -> str:
    """How it stands beside what the run had chosen, or nothing."""
    if repair.report.decision.chosen is None:
        return f"{repair.repaired} may not ship: {repair.report.decision.verdicts[0].sentence}"
    if repair.chosen_bytes is None:
        return f"{repair.repaired} is proven; nothing else of this run was."
    share = repair.bytes_after / repair.chosen_bytes - 1
    if share < 0:
        return f"{repair.repaired} is proven, and {-share:.0%} smaller than {repair.chosen}, which the run had chosen."
    return f"{repair.repaired} is proven, but {repair.chosen}, which the run had chosen, is no larger."


def show_repair(repair: Repair, console: Console) -> None:
    """The lifted groups, the trials on the tune split, and the verdict."""
    table = plain_table("lifted layers", ("from", "bytes more", "KL removed"), "right")
    for one in repair.lifts[:SHOWN]:
        moved = f"{1000 * sum(one.drift_removed.values()):.2g}"
        table.add_row(name_of(one.layers), one.source, f"{one.bytes_added:,}", moved)
    if len(repair.lifts) > SHOWN:
        table.add_row(f"and {len(repair.lifts) - SHOWN} more", "", "", "")
    console.print(table)
    console.print("KL: foreseen, in thousandths of a nat per token, over what was lost", style="dim")
    tried = plain_table("tried on the tune split", ("MB", *(SHORT.get(name, name) for name in repair.targets)), "right")
    first = repair.trials[0].scores
    tried.add_row("  baseline", "", *(score_text(first[name][0]) for name in repair.targets), style="dim")
    for trial in repair.trials:
        cells = [score_text(trial.scores[name][1]) for name in repair.targets]
        kept = trial is repair.trials[-1]
        tried.add_row(f"{'> ' if kept else '  '}{trial.share:.0%} of its drift", megabytes(trial.bytes), *cells)
    console.print(tried)
    console.print(lifted_sentence(repair))
    console.print(bought_sentence(repair))
    for verdict in repair.report.decision.verdicts[0].capabilities:
        mark, style = MARKS[verdict.verdict]
        console.print(Text.assemble((f"{mark:<5}", style), f" {verdict.sentence}"))
    chosen = repair.report.decision.chosen
    console.print(Text(f"\n{smaller_sentence(repair)}", style="bold green" if chosen else "bold yellow"))
