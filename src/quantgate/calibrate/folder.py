"""A calibration set on disk: ``samples.jsonl``, which is traffic itself, and ``calibration.json``, its record.

The record names every sample by its digest, so an edited line is found; quantization takes such a folder whole.
"""

from __future__ import annotations

import json
from pathlib import Path

from quantgate.calibrate.audit import Audit
from quantgate.calibrate.conversation import Conversation
from quantgate.calibrate.traffic import lines
from quantgate.errors import DataError, RecordError
from quantgate.records import Record, write_whole

SAMPLES, HELD_OUT, RECORD = "samples.jsonl", "held-out.jsonl", "calibration.json"


class Kept(Record):
    """A calibration set: where it came from, its samples by digest, in order, and the audit of its traffic."""

    source: str
    seed: int
    asked: int  # samples asked for
    samples: tuple[str, ...]
    audit: Audit


def write_folder(out: Path, kept: Kept, samples: list[Conversation], held_out: list[Conversation]) -> None:
    """samples.jsonl and held-out.jsonl, then the record: a folder with a record is whole."""
    (out / RECORD).unlink(missing_ok=True)
    for name, rows in ((SAMPLES, samples), (HELD_OUT, held_out)):
        write_whole(out / name, "".join(json.dumps(one.body(), ensure_ascii=False) + "\n" for one in rows).encode())
    kept.save(out / RECORD)


def read_folder(folder: Path) -> tuple[Kept, list[Conversation]]:
    """Raises RecordError for a folder that is no calibration set, DataError where a sample is not the recorded one."""
    kept = Kept.load(folder / RECORD)
    found = read_conversations(folder / SAMPLES)
    digests = tuple(one.digest for one in found)
    if digests != kept.samples:
        at = next((at for at, pair in enumerate(zip(digests, kept.samples, strict=False)) if pair[0] != pair[1]), None)
        where = f"line {at + 1}" if at is not None else f"{len(digests)} lines where {len(kept.samples)} are recorded"
        raise DataError(f"{folder / SAMPLES}, {where}: not what the record names; run quantgate calibrate again")
    return kept, found


def read_conversations(path: Path) -> list[Conversation]:
    """Every conversation of a small file. Raises DataError for the first broken line."""
    found = []
    for line in lines([path]):
        if line.conversation is None:
            raise DataError(f"{path}, line {line.place.number}: {line.problem}")
        found.append(line.conversation)
    return found


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a calibration set. Raises RecordError for another folder."""
    if path.is_dir() and not (path / RECORD).is_file():
        raise RecordError(f"{path}: holds no {RECORD}; name a JSONL file, or a folder that quantgate calibrate wrote")
    return path.is_dir()
