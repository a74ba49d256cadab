"""Run all benchmarks, or those named: ``python -m benchmarks sweep``; ``--write`` appends to docs/BENCHMARKS.md."""

from __future__ import annotations

import argparse
import datetime
import importlib
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

NAMES = ("engine", "sweep", "forecast", "demo")
PAGE = Path(__file__).parents[1] / "docs" / "BENCHMARKS.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"which: {', '.join(NAMES)}")
    parser.add_argument("--write", action="store_true", help="append the table to docs/BENCHMARKS.md")
    wanted = parser.parse_args()
    for name in wanted.names:
        if name not in NAMES:
            parser.error(f"unknown benchmark '{name}'; known: {', '.join(NAMES)}")
    console, results = Console(), list[Result]()
    for name in wanted.names:
        console.print(f"running {name}", style="dim")
        results += importlib.import_module(f"benchmarks.{name}").run()
    table = Table("what", "measured", "target", "")
    for row in results:
        table.add_row(row.what, row.measured, row.target, row.verdict)
    console.print(table)
    if wanted.write:
        _append(results, wanted.names)


def _append(results: list[Result], names: list[str]) -> None:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [
        f"\n## {day}, `python -m benchmarks {' '.join(names)}`\n",
        "| what | measured | target | |",
        "|---|---|---|---|",
    ]
    lines += [f"| {row.what} | {row.measured} | {row.target} | {row.verdict} |" for row in results]
    with PAGE.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


main()
