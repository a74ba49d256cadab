"""A training run as a record, a summary and a page: its curve, what it was trained on, and what it came to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from rich.console import Console
from rich.text import Text

from quantgate.decide.sentences import percent
from quantgate.quantize.manifest import Training
from quantgate.records import Record
from quantgate.report.pages import rendered
from quantgate.report.tables import plain_table
from quantgate.report.training_chart import training_curve
from quantgate.train import DataSummary

STAGES = {  # what a training tells of itself, in words
    "teacher": "asking the teacher",
    "start: check": "checking the weights",
    "start: quantize": "rounding alone, to begin with",
    "start: write": "writing it",
    "reconstruct": "block after block",
    "train": "training the whole model",
    "write": "writing what was made",
}
SECONDS = ((3600, "h"), (60, "min"))


class CurveRow(Record):
    """One step."""

    step: int
    loss: float  # what was minimised
    kl: float | None = None  # on the tune documents, nats a counted token; None: not looked at after this step
    answers: float | None = None  # the same over tokens of answers alone
    agree: float | None = None  # share of the answers' tokens whose likeliest is the teacher's
    rate: float = 0.0
    tokens: int = 0
    seconds: float = 0.0


class SourceRow(Record):
    """One source of conversations."""

    name: str
    documents: int  # that train
    tokens: int
    tune: int  # that decide when to stop


class Held(Record):
    """What the training set was held against."""

    samples: int
    cases: int
    suites: tuple[str, ...]
    sources: int  # conversations that are only of one source with a case


class BlockRow(Record):
    """One block that was held to the baseline's own: squared error on held-out conversations, relative."""

    block: int
    before: float
    after: float
    steps: int  # of the state that was kept


class Rebuilt(Record):
    """What block after block came to, as tune KL, and whether the whole was trained from there."""

    start: float
    after: float
    kept: bool
    blocks: tuple[BlockRow, ...]


class TrainingReport(Record):
    """Everything that ``quantgate train qat`` or ``distill`` did. No conversation's text is in it."""

    written_by = "; run quantgate train"

    method: Literal["qat", "distill"]
    name: str
    model: str  # the baseline, or the student's teacher, as it was called
    path: str  # of what was made
    digest_made: str  # of the artifact's manifest, or of the student's training
    scheme: str = ""
    start: str = ""  # the post-training method, or how the student was cut
    training: Training
    data: DataSummary
    sources: tuple[SourceRow, ...]
    notes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()  # by the training itself: which blocks a student lost, and what they were worth
    held: Held
    rebuilt: Rebuilt | None = None
    curve: tuple[CurveRow, ...]
    stages: dict[str, float] = Field(default_factory=dict)  # seconds of this call
    reused: tuple[str, ...] = ()  # what this call found done already
    stored_bytes: int = 0
    baseline_bytes: int = 0

    @property
    def closed(self) -> float | None:
        """Share of the distance to the teacher that training took away, on the tune split."""
        before, after = self.training.before, self.training.after
        return None if not before or after is None else 1 - after / before

    @property
    def headline(self) -> str:
        """What training came to."""
        start, end = ("cutting", "its teacher") if self.method == "distill" else (self.start, "the baseline")
        if self.closed is None:
            return f"{self.name}: trained for {self.training.steps:,} steps"
        if self.closed <= 0:
            return f"{self.name}: training found nothing better than what {start} left, which is kept"
        return f"{self.name}: training closed {percent(self.closed, 0)} of the distance that {start} left to {end}"

    @property
    def early(self) -> bool:
        """Whether it ended before its last step, because nothing got better."""
        wanted = self.training.options.get("steps")
        return isinstance(wanted, int) and self.training.steps < wanted

    @property
    def next_steps(self) -> tuple[tuple[str, str], ...]:
        """What to type, and what for."""
        suites = " ".join(f"--suite {one.name}" for one in self.sources if one.name in self.held.suites)
        judged = f"quantgate compare {self.model} {self.path} {suites}".rstrip()
        more = [(judged, "judge it: cases that training never saw, with margins")] if suites else []
        if self.method == "distill":
            return (*more, (f"quantgate quantize {self.path} -v W8A8", "make the student smaller still"))
        return (*more, (f"quantgate drift {self.model} {self.path}", "where its predictions still move"))


def said(stage: str, done: int, total: int) -> bool:
    """Whether what a training tells is a sentence, and no stage that takes time."""
    return (done, total) == (1, 1) and stage not in STAGES and ": " in stage and not stage.startswith("start: ")


def told_seconds(seconds: float) -> str:
    """
    >>> told_seconds(12.34), told_seconds(75), told_seconds(7300)
    ('12.3 s', '1.2 min', '2.0 h')
    """
    for size, unit in SECONDS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def training_page(report: TrainingReport) -> str:
    """One self-contained file."""
    looks = [row for row in report.curve if row.kl is not None]
    steps = [row for row in report.curve if row.step > 0]
    plot = training_curve(
        [(row.step, row.loss) for row in steps],
        [(row.step, row.kl) for row in looks if row.kl is not None],
        report.training.best,
    )
    return rendered(
        "training.html",
        {"seconds": told_seconds, "share": lambda one: percent(one, 1), "nats": lambda one: f"{one:.3g}"},
        report=report,
        training=report.training,
        plot=plot,
        looks=looks,
        stages=STAGES,
        seconds_all=report.curve[-1].seconds if report.curve else 0.0,
    )


def show_training(report: TrainingReport, console: Console) -> None:
    """Before and after, what it was trained on, and what to do next."""
    training = report.training
    console.print(report.headline, style="bold", markup=False, soft_wrap=True)
    if training.before is not None and training.after is not None:
        console.print(
            f"tune KL [bold]{training.before:.3g}[/] -> [bold]{training.after:.3g}[/] nats a token, {training.steps:,} "
            f"steps, best after step {training.best:,}"
            + (" (stopped early: nothing got better)" if report.early else ""),
            soft_wrap=True,
        )
    table = plain_table("trained on", ("conversations", "tokens", "to stop by"), "right")
    for row in report.sources:
        table.add_row(row.name, f"{row.documents:,}", f"{row.tokens:,}", f"{row.tune:,}")
    console.print(table)
    console.print(f"held against {report.held.cases:,} cases of the gates: no conversation is one of them", style="dim")
    for note in (*report.notes, *report.reused):
        console.print(note, soft_wrap=True, markup=False, style="dim")
    share = f" ({report.stored_bytes / report.baseline_bytes:.0%} of the baseline)" if report.baseline_bytes else ""
    made = f"made: {report.path}, {report.stored_bytes / 1e6:.2f} MB{share}"
    console.print(made, soft_wrap=True, markup=False)
    for command, what in report.next_steps:
        console.print(Text.assemble("next: ", (command, "bold"), (f"  {what}", "dim")), soft_wrap=True)


def write(report: TrainingReport, folder: Path) -> Path:
    """NAME.json and NAME.html beside what was made; the page's path."""
    from quantgate.records import write_whole

    report.save(folder / f"{report.name}.json")
    page = folder / f"{report.name}.html"
    write_whole(page, training_page(report).encode())
    return page
