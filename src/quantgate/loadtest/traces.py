"""Traces of real traffic: when requests came, how long they were. Azure's CSV, Mooncake's and guidellm's JSONL.

* Azure LLM inference traces: ``TIMESTAMP,ContextTokens,GeneratedTokens``, dates with fractions of a second.
* Mooncake: ``{"timestamp": milliseconds, "input_length", "output_length", "hash_ids"}``, one object a line.
* guidellm: the same keys, with ``timestamp`` in seconds.

The two JSONL forms look alike: timestamps that are all whole numbers are milliseconds, others seconds, unless ``unit``
says which.
"""

from __future__ import annotations

import csv
import io
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from quantgate.calibrate import json_lines
from quantgate.errors import DataError, UnknownName

UNITS = {"ms": 1e-3, "s": 1.0}
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
PROMPT = ("input_length", "prompt_tokens", "prompt_tokens_count", "input_tokens")
OUTPUT = ("output_length", "output_tokens", "output_tokens_count", "completion_tokens")


class TraceRow(NamedTuple):
    """One request of a trace."""

    at_s: float
    prompt_tokens: int | None
    output_tokens: int | None


def read_trace(path: Path, unit: str | None = None) -> list[TraceRow]:
    """The requests of a trace, by time. Raises DataError naming the first broken line, UnknownName for a unit."""
    if unit is not None and unit not in UNITS:
        raise UnknownName("unit of time", unit, UNITS)
    rows = _azure(path) if path.suffix.lower() == ".csv" else _lines(path, unit)
    if len(rows) < 2:
        raise DataError(f"{path}: holds {len(rows)} requests; a trace needs at least two")
    return sorted(rows, key=lambda row: row.at_s)


def _azure(path: Path) -> list[TraceRow]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name an existing trace") from None
    except UnicodeDecodeError as broken:
        raise DataError(f"{path}: not UTF-8 text near byte {broken.start}; save it as UTF-8") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}); name a trace") from None
    table = csv.reader(io.StringIO(text))
    head = [name.strip() for name in next(table, [])]
    missing = [name for name in AZURE if name not in head]
    if missing:
        raise DataError(f"{path}, line 1: no column {missing[0]}; expected the columns {', '.join(AZURE)}")
    places = [head.index(name) for name in AZURE]
    found = []
    for cells in table:
        if not cells:
            continue
        where = f"{path}, line {table.line_num}"
        if len(cells) <= max(places):
            raise DataError(f"{where}: {len(cells)} cells; expected {len(head)}, mend or remove the line")
        found.append(_azure_row([cells[at] for at in places], where))
    return found


def _azure_row(cells: list[str], where: str) -> TraceRow:
    try:
        date = datetime.fromisoformat(cells[0].strip())
        counts = [int(one) for one in cells[1:]]
    except ValueError:
        sentence = "expected a date and two whole numbers; mend or remove the line"
        raise DataError(f"{where}: {','.join(cells)[:80]!r}: {sentence}") from None
    at_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return TraceRow(at_s, _count(counts[0], "ContextTokens", where), _count(counts[1], "GeneratedTokens", where))


def _lines(path: Path, unit: str | None) -> list[TraceRow]:
    found = []
    for where, row in json_lines(path, "--trace"):
        if not isinstance(row, dict) or "timestamp" not in row:
            raise DataError(f"{where}: no 'timestamp'; expected timestamp, input_length and output_length")
        at = row["timestamp"]
        if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
            raise DataError(f"{where}: 'timestamp' is {at!r}, not a number; mend or remove the line")
        found.append((at, _named(row, PROMPT, where), _named(row, OUTPUT, where)))
    whole = all(isinstance(at, int) for at, _, _ in found)
    scale = UNITS[unit or ("ms" if whole else "s")]
    return [TraceRow(at * scale, prompt, output) for at, prompt, output in found]


def _named(row: dict[str, Any], names: tuple[str, ...], where: str) -> int | None:
    name = next((one for one in names if row.get(one) is not None), None)
    return None if name is None else _count(row[name], name, where)


def _count(value: Any, name: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{where}: '{name}' is {value!r}, not a number of tokens; mend or remove the line")
    return max(1, value)  # a request of 0 tokens was cancelled: it arrived all the same
