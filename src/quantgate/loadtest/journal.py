"""Stretches of a run on disk: a stopped sweep goes on with the first one that is not whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from quantgate.errors import RecordError
from quantgate.loadtest import Timed
from quantgate.loadtest.drive import Run
from quantgate.records import append_line, parse

LAYOUT = 1


class Cell(NamedTuple):
    """One stretch of one schedule, under one limit, against one arm; each by its place in the plan."""

    schedule: int
    limit: int
    block: int
    arm: int


class Journal:
    """Whole stretches by their cell. A line is appended and flushed whole; a cut last line is dropped.

    Raises RecordError for a file of another plan, and where it is broken before its last line; DiskFull.
    """

    def __init__(self, path: Path, plan: str) -> None:
        """``plan`` is the digest of everything that the numbers depend on."""
        self.path, self.head = path, {"plan": plan, "layout": LAYOUT}
        self.held: dict[Cell, Run] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read()
        if not path.exists() or not path.stat().st_size:
            self._append(self.head)

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                self._take(line, number)
                whole += len(line)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def _take(self, line: bytes, number: int) -> None:
        where = f"{self.path}, line {number}"
        try:
            row = json.loads(line)
            if number > 1:
                cell, run = Cell(*row["cell"]), Run(**{key: row["run"][key] for key in NUMBERS})
                run.timed = [parse(Timed, one, where=where, error=RecordError) for one in row["timed"]]
        except (ValueError, TypeError, KeyError):
            raise RecordError(f"{where}: no stretch of a load test; delete the file, it is measured again") from None
        if number == 1:
            if row != self.head:
                raise RecordError(f"{where}: belongs to another load test; name another --out, or delete the file")
        else:
            self.held[cell] = run

    def keep(self, cell: Cell, run: Run) -> None:
        self._append(
            {
                "cell": list(cell),
                "run": {key: getattr(run, key) for key in NUMBERS},
                "timed": [one.body() for one in run.timed],
            }
        )
        self.held[cell] = run

    def _append(self, row: dict[str, Any]) -> None:
        append_line(self.path, row, self.path.stat().st_size if self.path.exists() else 0)


NUMBERS = ("sent", "window_s", "wanted_s", "span_s", "stopped", "ended_s")
