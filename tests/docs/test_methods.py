"""The page on methods names the architectures that are proven, all of them and no others."""

from __future__ import annotations

import re
from pathlib import Path

from quantgate.models.families import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_table_of_architectures_is_that_of_the_tests() -> None:
    section = PAGE.read_text("utf-8").partition("## Architectures")[2].partition("### Experts")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row) if name != "model_type") == sorted(
        FAMILIES
    )
