"""What crosses the floors: frozen records, saved as canonical JSON under a content digest, with a version.

A saved record is one JSON object, ``{"record": kind, "version": n, "digest": "sha256:...", "body": {...}}``. The
digest is taken over the canonical body, so two records with the same content have the same name on every machine.
Everything is written aside and renamed: a file that exists is a file that is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from quantgate.errors import DiskFull, QuantgateError, RecordError, UsageError, hint

M = TypeVar("M", bound=BaseModel)


class Record(BaseModel):
    """A frozen value with a canonical form. Subclasses raise ``version`` when their fields change meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: ClassVar[int] = 1
    written_by: ClassVar[str] = ""  # how messages name the command that writes one

    @classmethod
    def kind(cls) -> str:
        return cls.__name__

    def body(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """``sha256:`` and 64 hex digits over kind, version and canonical body."""
        return digest_of([self.kind(), self.version, self.body()])

    def save(self, path: Path) -> Path:
        """Write aside, flush to disk, rename. Raises DiskFull with nothing left behind."""
        envelope = {"record": self.kind(), "version": self.version, "digest": self.digest, "body": self.body()}
        return write_whole(path, json.dumps(envelope, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved record back; raises RecordError when it is broken, foreign, of another version or edited."""
        try:
            envelope = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RecordError(
                f"{path}: no such {cls.kind()}; run the step that writes it first{cls.written_by}"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as broken:
            raise RecordError(f"{path}: not a {cls.kind()} record ({broken}); delete it and run again") from None
        if not isinstance(envelope, dict) or set(envelope) != {"record", "version", "digest", "body"}:
            raise RecordError(f"{path}: not a quantgate record; expected the keys record, version, digest, body")
        if (envelope["record"], envelope["version"]) != (cls.kind(), cls.version):
            found = f"{envelope['record']} version {envelope['version']}"
            raise RecordError(f"{path}: holds {found}, expected {cls.kind()} version {cls.version}; run the step again")
        record = parse(cls, envelope["body"], where=str(path), error=RecordError)
        if record.digest != envelope["digest"]:
            raise RecordError(f"{path}: its content does not match its digest; it was edited, delete it and run again")
        return record


def canonical(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN: the bytes that a digest is taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """Digest of any JSON value by its canonical form."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def digest_file(path: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def parse(model: type[M], data: Any, *, where: str, error: type[QuantgateError] = UsageError) -> M:
    """Check ``data`` against ``model``; the first problem becomes one sentence with the nearest known key.

    An unknown key is told before anything else: a misspelt key is also a missing one, and a choice of types
    (``str | Recipe``) complains about each of its types in turn.
    """
    try:
        return model.model_validate(data)
    except ValidationError as problems:
        found = problems.errors(include_url=False)
        unknown = [one for one in found if one["type"] == "extra_forbidden"]
        here = [one for one in found if one["loc"][:2] == found[0]["loc"][:2]]
        first = unknown[0] if unknown else max(here, key=lambda one: len(one["loc"]))
        loc = _place(first, data)
        if first["type"] == "extra_forbidden":
            known = _known_keys(model, first["loc"][:-1])
            inside = f" in '{'.'.join(loc[:-1])}'" if loc[:-1] else ""
            raise error(f"{where}: unknown key '{loc[-1]}'{inside}; {hint(loc[-1], known)}") from None
        at = f"'{'.'.join(loc)}': " if loc else ""
        raise error(f"{where}: {at}{_plain(first)}") from None


def _place(problem: Any, data: Any) -> list[str]:
    """Where the problem sits, without the names of types that pydantic puts between the keys of a choice."""
    shown = []
    for depth, part in enumerate(problem["loc"], start=1):
        if isinstance(data, dict) and (part in data or (problem["type"] == "missing" and depth == len(problem["loc"]))):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int):
            data = data[part]
        else:
            continue
        shown.append(str(part))
    return shown


def _plain(problem: Any) -> str:
    if problem["type"] == "missing":
        return "is missing; add it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message
    shown = repr(problem["input"])
    return f"{message[0].lower()}{message[1:]}, found {shown if len(shown) < 80 else shown[:77] + '...'}"


def _known_keys(model: Any, path: tuple[int | str, ...]) -> list[str]:
    """The field names of the model that sits at ``path`` inside ``model``; follows lists, dicts and unions."""
    found: list[Any] = [model]
    for part in path:
        nxt: list[Any] = []
        for one in found:
            if isinstance(one, type) and issubclass(one, BaseModel):
                if part in one.model_fields:
                    nxt += _models_in(one.model_fields[str(part)].annotation)
                elif one.__name__ == part:
                    nxt.append(one)
        found = nxt or found
    return sorted({name for one in found for name in getattr(one, "model_fields", {})})


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in get_args(annotation) for model in _models_in(part)]


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' and 'quota exceeded' into DiskFull."""
    try:
        yield
    except Exception as problem:
        # safetensors writes in Rust: its error is no OSError and carries the number in its text alone
        told = re.search(r"\(os error (\d+)\)$", str(problem))
        number = problem.errno if isinstance(problem, OSError) else int(told[1]) if told else None
        if number not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sentence = f"{path}: the disk is full; nothing half-written was kept, free some space and run again"
        raise DiskFull(sentence) from None


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file aside, flush it to disk, rename it over ``path``: readers see old bytes or new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk_errors(path):
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def append_line(path: Path, row: Any, size: int) -> int:
    """Append a record as one line of canonical JSON, flushed to disk; the bytes it took.

    ``size`` is what the file holds: a line that could not be written whole is cut off again. Raises DiskFull.
    """
    line = canonical(row) + b"\n"
    try:
        with disk_errors(path), path.open("ab", buffering=0) as file:
            rest = memoryview(line)
            while rest:  # a nearly full disk takes a part; the next write then says why
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):  # what cannot be cut off now is cut off by the next reader
            os.truncate(path, size)
        raise
    return len(line)


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the name ``path`` only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with disk_errors(path):
            aside.mkdir()
            yield aside
            for file in aside.rglob("*"):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            if path.exists():
                os.replace(path, old)  # deleting takes time: a folder that is half deleted must not bear the name
            os.replace(aside, path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
