"""The files of a publication as rows: found by name, read whole, every column known.

A row is ``("test.jsonl, line 3", {"question": ..., "answer": ...})``: where it stands, and what it holds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from quantgate.calibrate import json_lines
from quantgate.errors import DataError, hint
from quantgate.evaluate.published._hub import Hub, hub_rows

Rows = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Table:
    """One file of a publication: the names it goes by, and the columns of its rows."""

    files: tuple[str, ...]  # patterns relative to the folder; the first one is the published name
    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    form: Literal["jsonl", "csv", "tsv"] = "jsonl"  # a tsv has no header: its columns are those above, in order
    hub: Hub | None = None
    needed: bool = True  # the suite is nothing without it
    beside: bool = False  # also read where the user names another file of the same folder


def rows_of(suite: str, source: str, tables: Mapping[str, Table], path: Path | None) -> dict[str, Rows]:
    """The rows of every table that is there, by its name. Raises DataError where a needed one is not."""
    if path is None:
        return {name: hub_table(suite, source, table) for name, table in tables.items() if table.hub is not None}
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; name where the files of {suite} lie (see {source})")
    folder = path if path.is_dir() else path.parent
    named = None if path.is_dir() else path
    found: dict[str, Rows] = {}
    for name, table in tables.items():
        file = _file_of(table, folder, named, alone=sum(one.needed for one in tables.values()) == 1)
        if file is not None:
            found[name] = _read(file, table, suite, source)
        elif table.needed:
            raise DataError(
                f"{path}: no {table.files[0]} there; name the folder with the files of {suite} as published ({source})"
            )
    if not found:
        wanted = ", ".join(table.files[0] for table in tables.values() if not table.beside)
        raise DataError(f"{path}: none of the files of {suite} is there ({wanted}); see {source}")
    return found


def _file_of(table: Table, folder: Path, named: Path | None, *, alone: bool) -> Path | None:
    """The table's file in a folder; or the file that the user names, by any name where the suite has but one."""
    if named is not None and not table.beside:
        fits = any(fnmatch(named.name, Path(pattern).name) for pattern in table.files)
        return named if fits or (alone and table.needed) else None
    for pattern in table.files:
        matches = sorted(one for one in folder.glob(pattern) if one.is_file())
        if len(matches) > 1:
            listed = ", ".join(one.name for one in matches)
            raise DataError(f"{folder}: {len(matches)} files go by {pattern} ({listed}); keep one, or name it itself")
        if matches:
            return matches[0]
    return None


def _read(path: Path, table: Table, suite: str, source: str) -> Rows:
    if table.form == "jsonl":
        rows = list(json_lines(path, f"the path of {suite}"))
    else:
        rows = list(_separated(path, table, suite))
    if not rows:
        raise DataError(f"{path}: is empty; expected {table.files[0]} of {suite} ({source})")
    return checked(rows, table, suite, source)


def _separated(path: Path, table: Table, suite: str) -> list[tuple[str, dict[str, Any]]]:
    """Rows of a csv with a header, or of a tsv without one. Raises DataError for a row of another width."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        raise DataError(f"{path}: not UTF-8 text near byte {broken.start}; save it as UTF-8") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}); name a file of {suite}") from None
    if table.form == "tsv":  # no quoting: a quote in a question is a quote
        cells = [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        header: Sequence[str] = table.columns
    else:
        lines = csv.reader(io.StringIO(text, newline=""))
        try:
            cells = [(lines.line_num, row) for row in lines if row]
        except csv.Error as broken:
            raise DataError(f"{path}, line {lines.line_num}: not valid CSV ({broken}); mend the line") from None
        header = cells.pop(0)[1] if cells else ()
    for number, row in cells:
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(row)} columns instead of {len(header)} ({', '.join(header)}); mend the "
                f"line, or take the file of {suite} as published"
            )
    return [(f"{path}, line {number}", dict(zip(header, row, strict=True))) for number, row in cells]


def checked(rows: Sequence[tuple[str, Any]], table: Table, suite: str, source: str) -> Rows:
    """The rows, once every column is known. Raises DataError naming the first row of another shape."""
    known = (*table.columns, *table.optional)
    for where, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with {', '.join(table.columns)}; see {source}")
        missing = [column for column in table.columns if column not in row]
        if missing:
            raise DataError(
                f"{where}: the column '{missing[0]}' of {suite} is missing (found {', '.join(map(str, row))}); this is "
                f"another file or another version: take the one of {source}"
            )
        unknown = [str(column) for column in row if column not in known]
        if unknown:
            raise DataError(
                f"{where}: unknown column '{unknown[0]}' in {suite}, perhaps of another version; "
                f"{hint(unknown[0], known)}"
            )
    return [(where, row) for where, row in rows]


def hub_table(suite: str, source: str, table: Table) -> Rows:
    """The same rows from the hub; columns that only the hub has are left out."""
    assert table.hub is not None
    rows = hub_rows(suite, source, table.files[0], table.hub)
    kept = [
        (where, {name: value for name, value in row.items() if name in (*table.columns, *table.optional)})
        for where, row in rows
    ]
    return checked(kept, table, suite, source)


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """A column that must hold text. Raises DataError."""
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: '{column}' is {value!r} instead of text; mend or remove the line")
    return value
