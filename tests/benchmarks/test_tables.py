"""The page of benchmarks: what is written is what was measured, cell by cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.result import Result
from benchmarks.tables import Table, of_results, section


def test_section_is_dated_named_by_its_command_and_followed_by_its_notes() -> None:
    one = Table(("tool", "KL"), (("ours", "0.1"), ("theirs", "0.2")), "Quality", ("Two threads.",))
    assert section("2026-01-02", "python -m benchmarks peers", [one]) == (
        "\n## 2026-01-02, `python -m benchmarks peers`\n\n"
        "### Quality\n\n| tool | KL |\n|---|---|\n| ours | 0.1 |\n| theirs | 0.2 |\n\nTwo threads.\n"
    )


def test_results_keep_the_columns_that_the_page_had() -> None:
    made = of_results([Result("sweep", "1.5x", "at most 2.5x", True), Result("demo", "9 s")])
    assert made.markdown() == [
        "| what | measured | target |  |",
        "|---|---|---|---|",
        "| sweep | 1.5x | at most 2.5x | met |",
        "| demo | 9 s |  |  |",
    ]


def test_row_with_a_cell_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 cells, it has 2 columns"):
        Table(("a", "b"), (("1",),))


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_stays_one_row_of_as_many_cells(cells: list[str]) -> None:
    made = Table(tuple("c" * len(cells)), (tuple(cells),)).markdown()
    assert len(made) == 3 and "\n" not in made[2]
    assert made[2].replace("\\|", "").count("|") == len(cells) + 1
