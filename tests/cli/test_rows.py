from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import TextColumn

from quantgate.cli import screen
from quantgate.cli._rows import EVERY_S, Printed, rows
from quantgate.cli.screen import Bars


class Pipe:
    """Lines, and a clock that moves when told."""

    def __init__(self) -> None:
        self.lines, self.now = list[str](), 100.0
        self.printed = Printed(self.lines.append, lambda: self.now)

    def show(self, after: float, key: str, done: int, total: int, note: str = "") -> None:
        self.now += after
        self.printed.show(key, key.title(), done, total, note)


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def test_a_long_stage_says_now_and_then_where_it_stands_and_how_long_it_takes(pipe: Pipe) -> None:
    for done in range(4801):
        pipe.show(0.03125 if done else 0, "ask", done, 4800, "W4A16")
    assert pipe.lines == [
        "Ask 960/4,800; 30.0 s; about 2.0 min left; W4A16",
        "Ask 1,920/4,800; 1.0 min; about 1.5 min left; W4A16",
        "Ask 2,880/4,800; 1.5 min; about 1.0 min left; W4A16",
        "Ask 3,840/4,800; 2.0 min; about 30.0 s left; W4A16",
        "Ask 4,800/4,800; 2.5 min; W4A16",
    ]
    pipe.printed.close()
    assert len(pipe.lines) == 5


def test_what_an_earlier_run_did_counts_for_nothing_in_the_time_left(pipe: Pipe) -> None:
    pipe.show(0, "ask", 900, 1200)
    assert pipe.lines == []
    pipe.show(EVERY_S, "ask", 950, 1200)
    assert pipe.lines == ["Ask 950/1,200; 30.0 s; about 2.5 min left"]


def test_a_short_stage_is_one_line_and_many_reports_of_its_end_too(pipe: Pipe) -> None:
    for done in (0, 1, 1, 1):
        pipe.show(0.1, "write", done, 1)
    assert pipe.lines == ["Write 1/1"]


def test_a_stage_that_begins_anew_has_a_clock_of_its_own(pipe: Pipe) -> None:
    for done in (0, 2):
        pipe.show(10, "train", done, 2, "one")
    for done in (0, 2):
        pipe.show(5, "train", done, 2, "other")
    for done in (2, 9):
        pipe.show(3, "train", done, 9, "a longer one")
    assert pipe.lines == ["Train 2/2; 10.0 s; one", "Train 2/2; 5.0 s; other", "Train 9/9; 3.0 s; a longer one"]


def test_what_was_stopped_says_how_far_it_came(pipe: Pipe) -> None:
    pipe.show(0, "ask", 0, 10)
    pipe.show(2, "ask", 4, 10)
    pipe.printed.close()
    assert pipe.lines == ["Ask 4/10; 2.0 s; about 3.0 s left"]


@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (False, True), (True, True)])
def test_a_pipe_gets_lines_and_who_wants_quiet_gets_nothing(terminal: bool, quiet: bool) -> None:
    told = io.StringIO()
    console = Console(file=told, force_terminal=terminal, width=40)
    with rows(console, [TextColumn("{task.description}")], quiet=quiet, a_second=4) as found:
        found.say("a sentence that is longer than forty columns, and stays whole")
        found.show("a", "asking", 3, 3)
    written = "" if quiet else "a sentence that is longer than forty columns, and stays whole\nasking 3/3\n"
    assert told.getvalue() == written


def test_a_terminal_gets_bars() -> None:
    told = io.StringIO()
    console = Console(file=told, force_terminal=True, width=60)
    with rows(console, [TextColumn("{task.description} {task.completed:.0f}")], quiet=False, a_second=4) as found:
        found.show("a", "asking", 2, 3)
    assert "asking 2" in told.getvalue() and "2/3" not in told.getvalue()


def test_an_error_in_between_leaves_the_last_line(pipe: Pipe) -> None:
    told = io.StringIO()
    with pytest.raises(KeyError), rows(Console(file=told), [], quiet=False, a_second=4) as found:
        Bars(found)("evaluate", 3, 9, "W4A16: math")
        raise KeyError
    assert told.getvalue() == "asking baseline and variants 3/9; W4A16: math\n"


@pytest.mark.parametrize("width", [70, 80, 83, 84, 100, 109, 110, 120, 149, 150, 200])
def test_a_bar_is_never_cut_by_its_note(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(screen, "errors", Console(file=told, force_terminal=True, width=width, color_system=None))
    with screen.bars() as found:
        found("quantize", 5, 56, "quantize")
        found("train", 12345, 20000, "W2A16-qat: training, loss 0.2345, KL 0.0456")
    last = [line for line in told.getvalue().splitlines() if "/" in line][-2:]
    assert "quantizing all variants in one pass" in last[0] and " 5/56 " in last[0] and "…" not in last[0]
    before, count, after = last[1].partition(" 12345/20000 ")
    assert before.startswith("training") and count and "--:--" in after
    assert ("W2A16-qat: " in after) == (width >= 83)
    assert ("0:00:00 left" in after) == (width >= 110)
