"""The page of all signals names those that there are, with their kinds, directions and shares."""

from __future__ import annotations

import re
from pathlib import Path

from quantgate.watch import signals

PAGE = Path(__file__).resolve().parents[3] / "docs" / "watch-signals.md"


def test_the_page_says_what_the_code_says() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]+ \| (\w+) \| (\w+) \| ([\d.]+) \| (yes)? ?\|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    told = {name: (kind, worse, float(weight), promotes == "yes") for name, kind, worse, weight, promotes in rows}
    made = [signals.get(name) for name in signals.names()]
    assert told == {one.name: (one.kind, one.worse, one.weight, one.promotes) for one in made}
