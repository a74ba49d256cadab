"""A calibration set as a record, a table and a page: what traffic holds, what was left out, whether it is enough."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from rich.console import Console

from quantgate.calibrate import Audit, CalibrationSet
from quantgate.calibrate.audit import SliceRow
from quantgate.calibrate.slices import CATALOGUE
from quantgate.quantize.ranges import ClipRate
from quantgate.records import Record
from quantgate.report.charts import curves, strip
from quantgate.report.inspections import name_of
from quantgate.report.pages import rendered
from quantgate.report.tables import plain_table

BROKEN_SHOWN = 5
WORST_SHOWN = 8
FUNCTIONS_SHOWN = 12  # in the terminal; the page shows all


class Resampled(Record):
    """The drift of a variant that was made with other samples."""

    name: str  # whole, half 1, redrawn 1 ...
    samples: int
    kl: float  # mean over held-out answer tokens, nats


class Adequacy(Record):
    """Whether the samples are enough, on held-out traffic."""

    variant: str
    held_out: int  # conversations
    rates: tuple[ClipRate, ...]
    drift: tuple[Resampled, ...]  # the whole set first
    rise: float  # mean of the halves' drift over that of the whole set, nats per token
    rise_se: float  # its standard error, over held-out conversations and over which samples were drawn
    sentence: str  # whether more samples would help


class CalibrationReport(Record):
    """Everything that ``quantgate calibrate`` found; ``report.json`` is this record."""

    model: str
    weights: str  # digest
    set: CalibrationSet
    adequacy: Adequacy | None


def show_calibration(found: CalibrationReport, console: Console) -> None:
    """The coverage table, what was left out, what is missing, and the measured adequacy."""
    audit = found.set.audit
    if audit is None:
        return
    table = plain_table("slice", ("traffic", "share", "samples"), "right")
    table.add_column("what it is")
    functions = [row for row in audit.slices if row.name.startswith("tool=")]
    hidden = {row.name for row in functions[FUNCTIONS_SHOWN:]}
    for row in audit.slices:
        if row.name not in hidden:
            told = CATALOGUE[row.name].about if row.name in CATALOGUE else ""
            bare = "yellow" if not row.samples else ""
            table.add_row(row.name, f"{row.traffic:,}", share(row.traffic, audit), str(row.samples), told, style=bare)
    console.print(table)
    if hidden:
        console.print(f"and {len(hidden)} more functions, all of them in the report", style="dim")
    for sentence in left_out(found.set):
        console.print(sentence, soft_wrap=True)
    for one in audit.broken_lines[:BROKEN_SHOWN]:
        console.print(f"  {one.file}, line {one.line}: {one.problem}", soft_wrap=True, style="dim", markup=False)
    if audit.broken > BROKEN_SHOWN:
        console.print(f"  and {audit.broken - BROKEN_SHOWN:,} more", style="dim")
    for sentence in audit.missing:
        console.print(f"[yellow]missing[/]: {sentence}", soft_wrap=True)
    if found.adequacy is not None:
        _show_adequacy(found.adequacy, console)


def _show_adequacy(found: Adequacy, console: Console) -> None:
    table = plain_table("layers, worst first", ("beyond tensor %", "beyond channel %", "furthest"), "right")
    for rate in worst(found.rates)[:WORST_SHOWN]:
        cells = (f"{100 * rate.beyond_tensor:.4f}", f"{100 * rate.beyond_channel:.3f}", f"{rate.furthest:.2f}")
        table.add_row(name_of(rate.layers), *cells)
    console.print(table)
    console.print(
        "held-out values beyond the range that the samples gave; furthest: the largest over the largest in the samples",
        style="dim",
    )
    drift = plain_table(f"{found.variant} with", ("samples", "KL"), "right")
    for row in found.drift:
        drift.add_row(row.name, str(row.samples), f"{row.kl:.5f}")
    console.print(drift)
    console.print(found.sentence, soft_wrap=True)


def share(count: int, audit: Audit) -> str:
    """Of the conversations that could be read and used, in percent."""
    used = audit.conversations - audit.unfit - audit.dropped
    return f"{100 * count / max(used, 1):.1f} %"


def left_out(found: CalibrationSet) -> list[str]:
    """One sentence for each thing that became of lines and samples, where there is something to tell."""
    audit = found.audit
    if audit is None:
        return []
    told = [
        f"{len(found.samples):,} samples of {found.asked:,} asked for, {found.tokens:,} tokens, {found.cut:,} cut; "
        f"from {audit.lines:,} lines of {', '.join(audit.files)}, the longest of {audit.longest:,} tokens"
    ]
    if found.cut:
        told.append(
            f"{found.cut:,} samples end before their conversation does; raise the token limit to calibrate on the rest"
        )
    if audit.broken:
        told.append(f"{audit.broken:,} lines are broken and were left out:")
    if audit.unfit:
        told.append(f"{audit.unfit:,} conversations are refused by the model's chat template and were left out")
    if audit.secrets:
        kinds = ", ".join(f"{count:,} x {kind}" for kind, count in audit.secrets.items())
        dropped = audit.secrets_rule == "drop"
        done = f"{audit.dropped:,} conversations dropped" if dropped else f"{audit.masked:,} samples masked"
        told.append(f"secrets in the traffic: {kinds}; {done}")
    if audit.repeated or audit.near_duplicates:
        told.append(
            f"among the candidates {audit.repeated:,} were said again word for word and {audit.near_duplicates:,} "
            "nearly so; each counts once"
        )
    return told


def worst(rates: Sequence[ClipRate]) -> list[ClipRate]:
    return sorted(rates, key=lambda one: (-one.beyond_tensor, -one.beyond_channel, one.layers))


def calibration_page(found: CalibrationReport) -> str:
    """One self-contained HTML page."""
    audit, adequacy = found.set.audit, found.adequacy
    return rendered(
        "calibration.html",
        found=found,
        audit=audit,
        rows=[] if audit is None else [_row(row, audit) for row in audit.slices],
        told=left_out(found.set),
        worst=[] if adequacy is None else worst(adequacy.rates),
        plots=None if adequacy is None else _plots(adequacy),
        name_of=name_of,
    )


def _row(row: SliceRow, audit: Audit) -> tuple[str, str, int, str, int, int | str]:
    about = CATALOGUE[row.name].about if row.name in CATALOGUE else ""
    return row.name, about, row.traffic, share(row.traffic, audit), row.samples, audit.required.get(row.name, "")


def _plots(found: Adequacy) -> tuple[Markup, Markup]:
    """Clip rates along the model, and the drift of the whole set among that of the others."""
    lines = [
        ("beyond its channel", [rate.beyond_channel for rate in found.rates]),
        ("beyond the tensor", [rate.beyond_tensor for rate in found.rates]),
    ]
    points = [(row.name, row.kl) for row in found.drift]
    return curves(lines, "input, in the order of the model", "clip rate"), strip(points, "KL, nats per token")
