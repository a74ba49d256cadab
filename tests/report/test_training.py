"""The record of a training run, its sentences, its curve and its page."""

from __future__ import annotations

import io
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from quantgate.errors import RecordError
from quantgate.quantize.manifest import Training
from quantgate.report.training import (
    BlockRow,
    CurveRow,
    Held,
    Rebuilt,
    SourceRow,
    TrainingReport,
    show_training,
    training_page,
    write,
)
from quantgate.report.training_chart import averaged, log_ticks, step_ticks, training_curve
from quantgate.train import DataSummary

DIGEST = "sha256:" + "a" * 64


def report_of(steps: int = 400, every: int = 50, **changed: Any) -> TrainingReport:
    """A run whose tune KL falls until step 300 and then rises."""
    curve = []
    for step in range(steps + 1):
        looked = step % every == 0
        kl = 0.05 + 0.7 * math.exp(-step / 60) + 0.0001 * max(0, step - 300) if looked else None
        curve.append(
            CurveRow(
                step=step,
                loss=0.12 + 0.6 * math.exp(-step / 50) + 0.03 * math.sin(step * 1.7),
                kl=kl,
                answers=None if kl is None else kl / 2,
                agree=None if kl is None else 1 - kl / 3,
                rate=3e-4,
                tokens=4096 * step,
                seconds=0.9 * step,
            )
        )
    looks = [row for row in curve if row.kl is not None]
    best = min(looks, key=lambda row: row.kl or 0.0)
    training = Training(
        method=changed.get("method", "qat"),
        teacher=DIGEST,
        data=DIGEST,
        sources={"math": 900, "traffic": 230},
        options={"steps": steps, "task": 0.1, "learning_rate": 3e-4, "adapters": None},
        steps=steps,
        best=best.step,
        tokens=4096 * steps,
        before=looks[0].kl,
        after=best.kl,
    )
    told: dict[str, Any] = {
        "method": "qat",
        "name": "W2A16-qat",
        "model": "quantgate/reference",
        "path": "runs/qat/W2A16-qat",
        "digest_made": DIGEST,
        "scheme": "W2A16",
        "start": "gptq",
        "training": training,
        "data": DataSummary(content=DIGEST, documents={"math": 900, "traffic": 230}, tokens=61_000, tune=96),
        "sources": (
            SourceRow(name="traffic", documents=230, tokens=31_000, tune=26),
            SourceRow(name="math", documents=900, tokens=30_000, tune=70),
        ),
        "held": Held(samples=1226, cases=400, suites=("math",), sources=3),
        "curve": tuple(curve),
        "stages": {"start: quantize": 11.2, "teacher": 20.0, "train": 360.0},
        "stored_bytes": 2_000_000,
        "baseline_bytes": 8_000_000,
    }
    return TrainingReport(**{**told, **changed})


class _Page(HTMLParser):
    """Tags that stand open, and the words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.words = list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass  # closed at once, as the parts of a drawing are

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_headline_says_what_share_of_the_distance_was_closed() -> None:
    report = report_of()
    share = 1 - (report.training.after or 0) / (report.training.before or 1)
    assert report.closed == pytest.approx(share)
    assert (
        report.headline
        == f"W2A16-qat: training closed {100 * share:.0f} % of the distance that gptq left to the baseline"
    )


def test_training_that_found_nothing_better_says_so_and_not_a_negative_share() -> None:
    worse = report_of().training.model_copy(update={"after": 0.75, "before": 0.75, "best": 0})
    assert "nothing better than what gptq left" in report_of(training=worse).headline


def test_a_run_that_stopped_before_its_last_step_says_why() -> None:
    early = report_of().training.model_copy(update={"steps": 250})
    assert "it stopped early, because nothing got better" in _Page(training_page(report_of(training=early))).text
    assert "stopped early" not in _Page(training_page(report_of())).text


def test_the_page_is_whole_and_holds_every_figure() -> None:
    report = report_of(
        rebuilt=Rebuilt(start=0.8, after=0.75, kept=True, blocks=(BlockRow(block=0, before=0.2, after=0.1, steps=50),)),
        notes=("12 conversations were cut to 512 tokens",),
        reused=("the teacher's answers of 1,226 conversations",),
    )
    page = _Page(training_page(report))
    assert page.open == []
    for wanted in (
        "tune KL 0.8 → 0.75",
        "Training of the whole model began there",
        "12 conversations were cut to 512 tokens",
        "the teacher's answers of 1,226 conversations",
        "Held against 400 cases of the gates (math)",
        "1,638,400 tokens",
        "quantgate compare quantgate/reference runs/qat/W2A16-qat --suite math",
        "learning_rate",
        "rounding alone, to begin with 11.2 s",
    ):
        assert wanted in page.text, wanted
    assert "adapters" not in page.text


def test_names_that_look_like_markup_are_text_on_the_page_and_in_the_terminal() -> None:
    report = report_of(model="<script>alert(1)</script>[red]", path="runs/[bold]x")
    assert "<script>" not in training_page(report)
    screen = io.StringIO()
    show_training(report, Console(file=screen, width=200))
    assert "<script>alert(1)</script>[red]" in screen.getvalue()
    assert "runs/[bold]x" in screen.getvalue()


@pytest.mark.parametrize("steps", [0, 1, 2, 2000])
def test_any_number_of_steps_can_be_shown(steps: int) -> None:
    page = _Page(training_page(report_of(steps=steps, every=1)))
    assert page.open == []


def test_a_student_names_its_teacher_and_how_it_was_cut() -> None:
    report = report_of(method="distill", name="student-l3", scheme="", start="3 of 6 blocks")
    text = _Page(training_page(report)).text
    assert "cut from quantgate/reference (3 of 6 blocks)" in text
    assert report.next_steps[-1][0] == "quantgate quantize runs/qat/W2A16-qat -v W8A8"


def test_a_saved_report_reads_back_and_an_edited_one_is_refused(tmp_path: Path) -> None:
    report = report_of()
    page = write(report, tmp_path)
    assert page.name == "W2A16-qat.html"
    saved = tmp_path / "W2A16-qat.json"
    assert TrainingReport.load(saved) == report
    saved.write_text(saved.read_text().replace('"best": 300', '"best": 50'))
    with pytest.raises(RecordError, match="edited"):
        TrainingReport.load(saved)


def test_the_kept_state_has_the_one_ring_of_each_drawing() -> None:
    drawn = str(training_curve([(1, 0.5), (2, 0.4)], [(0, 0.6), (2, 0.3)], best=2))
    assert drawn.count('r="8" class="ring"') == 2  # for a wide page and a narrow one
    assert drawn.count("step 2: tune KL 0.3 nats") == 2


@given(st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=30))
@example([999999.9999999999])
@example([1e-9])
def test_ticks_hold_all_values_and_are_few_enough_to_read(values: list[float]) -> None:
    ticks = log_ticks(values)
    assert ticks[0] <= min(values) and max(values) <= ticks[-1]
    assert 2 <= len(ticks) <= 18
    assert ticks == sorted(set(ticks))


@given(st.integers(0, 100_000), st.integers(2, 8))
def test_steps_are_ticked_from_zero_on_not_too_often(last: int, count: int) -> None:
    ticks = step_ticks(last, count)
    assert ticks[0] == 0 and ticks[-1] <= last and len(ticks) <= count + 1


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=1000))
def test_averaging_keeps_the_mean_and_the_last_step(values: list[float]) -> None:
    points = list(enumerate(values, 1))
    found = averaged(points, most=160)
    assert len(found) <= 160 and found[-1][0] == len(values)
    if len(values) <= 160:
        assert found == points
    assert min(values) - 1e-9 <= min(v for _, v in found) and max(v for _, v in found) <= max(values) + 1e-9
