"""What every table in the terminal shares: its look, the words of verdicts, short names."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import JustifyMethod
from rich.table import Table

MARKS = {"pass": ("pass", "green"), "fail": ("FAIL", "bold red"), "inconclusive": ("open", "yellow")}
SHORT = {
    "long_context": "long",
    "multilingual": "multi",
    "rare_vocabulary": "rare",
    "json_tools": "tools",
    "code_gen": "code",
    "refusals": "refuse",
}


def plain_table(first: str, others: Sequence[str], justify: JustifyMethod) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify=justify, no_wrap=True, min_width=min(len(name), 4))
    return table


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
