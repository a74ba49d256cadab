"""Run all benchmarks of speed, or those named: ``python -m benchmarks sweep``; ``--write`` appends to the page.

``kquants``, ``gguf`` and ``llamacpp`` compare with llama.cpp and need llama-cpp-python, ``harness`` compares with
lm-eval and needs that, ``gateway`` compares with LiteLLM's proxy: they run when they are named.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import gateway, peers
from benchmarks.result import Result
from benchmarks.tables import Table, of_results, section

NAMES = ("engine", "sweep", "forecast", "sandbox", "overlap", "loadgen", "guard", "constrained", "watch",
         "demo")  # unless something is named  # fmt: skip
NAMED = ("kquants", "drill", "train_step")  # need another program, or ten minutes
# with tables of their own; ``watch`` without another program, ``students`` too, in an hour
TABLED = ("gguf", "llamacpp", "harness", "planner", "qat", "students", "watch")
PEERS, GATEWAY = "peers", "gateway"
PAGE = Path(__file__).parents[1] / "docs" / "BENCHMARKS.md"


def main() -> None:
    known = tuple(dict.fromkeys((*NAMES, *NAMED, *TABLED, PEERS, GATEWAY)))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"which: {', '.join(known)}")
    parser.add_argument("--write", action="store_true", help="append the tables to docs/BENCHMARKS.md")
    parser.add_argument("--only", action="append", choices=sorted({*peers.PARTS, *gateway.PARTS}),
                        help="peers, gateway: this part alone (repeatable)")  # fmt: skip
    parser.add_argument(
        "--quick",
        action="store_true",
        help="peers, gateway, gguf, llamacpp, harness: tiny sizes, to try the way; not for the page",
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="the same: threads of every tool (2)")
    parser.add_argument("--fresh", action="store_true", help="peers: make again what is there")
    parser.add_argument("--anyway", action="store_true", help="gateway: on a machine at work too; proves nothing")
    wanted = parser.parse_args()
    for name in wanted.names:
        if name not in known:
            parser.error(f"unknown benchmark '{name}'; known: {', '.join(known)}")
    if (wanted.quick or wanted.anyway) and wanted.write:
        parser.error("--quick and --anyway measure nothing that belongs on the page; leave out --write")
    console, results, tables = Console(), list[Result](), list[Table]()
    for name in wanted.names:
        console.print(f"running {name}", style="dim")
        if name == PEERS:
            parts = wanted.only or peers.PARTS
            tables += peers.run(only=parts, quick=wanted.quick, fresh=wanted.fresh, threads=wanted.threads)
        elif name == GATEWAY:
            try:
                tables += gateway.run(only=wanted.only or gateway.PARTS, quick=wanted.quick, anyway=wanted.anyway)
            except gateway.Unfit as error:
                parser.exit(4, f"{GATEWAY}: {error}\n")
        elif name in TABLED:
            module = importlib.import_module(f"benchmarks.{name}")
            tables += module.run(quick=wanted.quick, threads=wanted.threads)
        else:
            results += importlib.import_module(f"benchmarks.{name}").run()
    if results:
        tables.insert(0, of_results(results))
    for table in tables:
        console.print(table.shown())
        for note in table.notes:
            console.print(note, style="dim")
    if wanted.write and tables:
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        with PAGE.open("a", encoding="utf-8") as file:
            file.write(section(day, " ".join(["python -m benchmarks", *sys.argv[1:]]), tables))


main()
