"""Where the published files lie, and a baseline that answers every case rightly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from quantgate.engines import Prompt
from quantgate.engines.scripted import ScriptedEngine
from quantgate.evaluate import published
from quantgate.evaluate.answers import Answers, prompt_of
from quantgate.evaluate.compare import Side
from quantgate.evaluate.suites import Case

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def published_cases(name: str, **options: Any) -> list[Case]:
    """All test cases of a suite, or a skip that says why there are none here."""
    if not (DATA / name).is_dir():
        pytest.skip(f"no ../shared/data/{name} beside the repository")
    return published.load(name, DATA / name, options).cases


def engine_of(cases: Sequence[Case], answer: Callable[[Case], str], **identity: str) -> ScriptedEngine:
    """An engine that answers each case by a function of it, uncut whatever its budget."""
    known = {prompt_of(case).digest: answer(case) for case in cases}
    return ScriptedEngine(lambda prompt: known[prompt.digest], **identity)  # type: ignore[arg-type]


def side_of(engine: ScriptedEngine, folder: Path) -> Side:
    return Side(engine, Answers(folder, engine.identity))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


__all__ = ["DATA", "Prompt", "engine_of", "published_cases", "side_of", "write_rows"]
