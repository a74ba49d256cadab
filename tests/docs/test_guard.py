"""The example of the guard's page runs, and gives what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guard.md"


def test_the_example_of_the_page_gives_what_it_says():
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    lines = [line for line in code.splitlines() if line and not line.startswith("contract.")]
    asked = [line.partition("  #")[0].strip() for line in code.splitlines() if line.startswith("contract.")]
    names: dict[str, Any] = {"schema": {"type": "object", "properties": {"age": {"type": "integer"}}}}
    exec("\n".join(lines), names)
    checked, early, mended = (eval(one, names) for one in asked)
    assert (checked.kind, checked.where, checked.sentence) == (
        "schema",
        "content",
        '\'age\': "7" is not of type "integer"',
    )
    assert early.kind == "prefix"
    assert mended == ({"content": '{"age": 7}'}, ("quotes", "trailing_comma"))
