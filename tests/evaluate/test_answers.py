"""The journal of answers: nothing stale is replayed, nothing is asked twice, nothing half-written survives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.engines import Completion, Failure
from quantgate.engines.scripted import ScriptedEngine
from quantgate.errors import EngineError, RecordError
from quantgate.evaluate.answers import Answers

SOURCE = Path(__file__).parents[2] / "src"


def texts(answers: list[Completion | Failure]) -> list[str]:
    return [answer.text if isinstance(answer, Completion) else answer.reason for answer in answers]


def test_second_process_asks_nothing(sums: Any, tmp_path: Path) -> None:
    cases, engine = sums.cases(7), sums.engine()
    first = Answers(tmp_path, engine.identity).of(engine, cases)
    again = sums.engine()
    journal = Answers(tmp_path, again.identity)
    assert journal.of(again, cases) == first
    assert (journal.asked, again.asked) == (0, [])


def test_only_the_missing_cases_are_asked(sums: Any, tmp_path: Path) -> None:
    cases, engine = sums.cases(7), sums.engine()
    journal = Answers(tmp_path, engine.identity)
    journal.of(engine, cases[:4])
    answers = journal.of(engine, cases)
    assert texts(answers) == [case.answer for case in cases]
    assert [sums.number(prompt) for prompt in engine.asked] == list(range(7))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"weights": "other weights"}, id="weights"),
        pytest.param({"template": "other template"}, id="template"),
        pytest.param({"runtime": ("kernels=dequantize",)}, id="runtime flag"),
    ],
)
def test_another_identity_hits_nothing(sums: Any, tmp_path: Path, other: Any) -> None:
    cases, engine = sums.cases(5), sums.engine()
    Answers(tmp_path, engine.identity).of(engine, cases)
    changed = sums.engine(miss=lambda _: True, **other)
    journal = Answers(tmp_path, changed.identity)
    assert journal.held == {}
    assert texts(journal.of(changed, cases)) == ["no idea"] * 5
    assert journal.asked == 5


def test_another_sampling_hits_nothing(sums: Any, tmp_path: Path) -> None:
    engine = sums.engine()
    Answers(tmp_path, engine.identity).of(engine, sums.cases(5))
    assert Answers(tmp_path, engine.identity.model_copy(update={"sampling": "top_p=0.9"})).held == {}


@pytest.mark.parametrize(
    "change", [{"max_tokens": 9}, {"reference": "other"}, {"messages": ({"role": "user", "content": "0 + 2"},)}]
)
def test_a_changed_case_is_another_case(sums: Any, tmp_path: Path, change: Any) -> None:
    (case,), engine = sums.cases(1), sums.engine()
    journal = Answers(tmp_path, engine.identity)
    journal.of(engine, [case])
    journal.of(engine, [type(case).model_validate(case.body() | change)])
    assert journal.asked == 2


def test_an_engine_cannot_use_the_journal_of_another(sums: Any, tmp_path: Path) -> None:
    journal = Answers(tmp_path, sums.engine().identity)
    with pytest.raises(EngineError, match="keeps another engine's answers than the one asked; open its own journal"):
        journal.of(sums.engine(weights="requantized"), sums.cases(1))


def test_failures_are_asked_once_in_a_process_and_again_in_the_next(sums: Any, tmp_path: Path) -> None:
    cases, engine = sums.cases(4), sums.engine(fails=lambda prompt: sums.number(prompt) == 2)
    journal = Answers(tmp_path, engine.identity)
    first = journal.of(engine, cases)
    assert [type(answer) for answer in first] == [Completion, Completion, Failure, Completion]
    assert journal.of(engine, cases) == first
    assert journal.asked == 4
    mended = sums.engine()
    later = Answers(tmp_path, mended.identity)
    assert texts(later.of(mended, cases)) == ["1", "3", "5", "7"]
    assert [sums.number(prompt) for prompt in mended.asked] == [2]


def journal_of(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@settings(max_examples=25)
@given(data=st.data())
def test_a_journal_cut_at_any_byte_grows_back_to_the_same_bytes(data: Any) -> None:
    from quantgate.evaluate.suites import Case, Message

    cases = [
        Case(suite="s", id=str(at), messages=(Message(role="user", content=f"é{at}"),), scorer="exact", reference="x")
        for at in range(6)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder, engine = Path(name), ScriptedEngine(lambda prompt: prompt.turns[-1][1] * 3)
        journal = Answers(folder, engine.identity)
        whole = [journal.of(engine, cases[start : start + 2]) for start in (0, 2, 4)]
        path = journal_of(folder)
        before = path.read_bytes()
        cut = data.draw(st.integers(0, len(before)))
        os.truncate(path, cut)
        again = Answers(folder, engine.identity)
        assert [again.of(engine, cases[start : start + 2]) for start in (0, 2, 4)] == whole
        assert path.read_bytes() == before
        lost = 3 - max(before[:cut].count(b"\n") - 1, 0)
        assert again.asked == 2 * lost  # whole batches, and only those that were cut


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"not json\n", "line 2: not a line of a journal of answers"),
        (b'{"case": 1}\n', "line 2: not a line of a journal of answers"),
        (b'{"answers": 3}\n', "line 2: not a line of a journal of answers"),
        (b"\xff\n", "line 2: not a line of a journal of answers"),
        (b'{"answers": [{"case": "c", "completion": {"text": "t"}}]}\n', "'tokens': is missing"),
    ],
)
def test_a_broken_line_that_is_not_the_last_is_told(sums: Any, tmp_path: Path, line: bytes, told: str) -> None:
    engine = sums.engine()
    Answers(tmp_path, engine.identity).of(engine, sums.cases(1))
    path = journal_of(tmp_path)
    head, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(head + b"\n" + line + rest)
    with pytest.raises(RecordError, match=told):
        Answers(tmp_path, engine.identity)


def test_a_journal_under_a_foreign_name_is_refused(sums: Any, tmp_path: Path) -> None:
    engine, other = sums.engine(), sums.engine(weights="other")
    Answers(tmp_path, engine.identity)
    path = journal_of(tmp_path)
    os.rename(path, path.with_name(f"{other.identity.key[7:39]}.jsonl"))
    with pytest.raises(RecordError, match="line 1: the answers of another engine; delete the file"):
        Answers(tmp_path, other.identity)


FULL = """
import resource, sys
from pathlib import Path
from quantgate.engines.scripted import ScriptedEngine
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.suites import Case, Message

folder, room = Path(sys.argv[1]), int(sys.argv[2])
cases = [Case(suite="s", id=str(at), messages=(Message(role="user", content=str(at)),), scorer="exact", reference="x")
         for at in range(40)]
engine = ScriptedEngine(lambda prompt: prompt.turns[-1][1] * 20)
journal = Answers(folder, engine.identity)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
for start in range(0, 40, 10):
    journal.of(engine, cases[start : start + 10])
"""


@pytest.mark.parametrize("room", [3000, 4500])
def test_no_room_left_keeps_whole_batches_only(tmp_path: Path, room: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(room)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "File too large" in done.stderr, done.stderr
    raw = journal_of(tmp_path).read_bytes()
    assert raw.endswith(b"\n") and len(raw) <= room
    rows = [json.loads(line) for line in raw.splitlines()]
    assert [len(row["answers"]) for row in rows[1:]] == [10] * (len(rows) - 1)
    assert len(rows) > 1
    engine = ScriptedEngine(lambda prompt: prompt.turns[-1][1] * 20)
    assert len(Answers(tmp_path, engine.identity).held) == 10 * (len(rows) - 1)
