"""Without a path, rows come from the hub through ``datasets``, and what goes wrong there is one sentence."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.published.conftest import write_rows

from quantgate.errors import DataError, MissingExtra
from quantgate.evaluate import published
from quantgate.evaluate.published import Hub
from quantgate.evaluate.published._tables import hub_table

TABLE = published.get("gsm8k").tables["test"]


def test_rows_of_a_data_set_are_those_of_the_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is a data set for ``datasets``, as a repository on the hub is; what only the hub has is left out."""
    pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    rows = [{"question": "One and one?", "answer": "#### 2", "subset": "easy"}]
    write_rows(tmp_path / "data" / "test.jsonl", rows)
    table = replace(TABLE, hub=Hub(str(tmp_path / "data"), None, "test"))
    assert [row for _, row in hub_table("gsm8k", "source", table)] == [{"question": "One and one?", "answer": "#### 2"}]


def test_hub_that_cannot_be_reached_is_told_with_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    table = replace(TABLE, hub=Hub(str(tmp_path / "nothing"), None, "test"))
    with pytest.raises(DataError, match=r"gsm8k: no path is given, and .*nothing cannot be read from the hub") as told:
        hub_table("gsm8k", "openai/grade-school-math", table)
    assert "get test.jsonl from openai/grade-school-math and name its folder under path" in str(told.value)
    assert "\n" not in str(told.value)


def test_missing_package_is_told_with_the_extra_and_the_way_around(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "datasets", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'quantgate\[hub\]', or get test\.jsonl from"):
        published.load("gsm8k", None)
