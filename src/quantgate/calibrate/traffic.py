"""Files of traffic, read line by line: .jsonl and .jsonl.gz of any size, one line in memory at a time.

Every line has a place (which file, which line, where its bytes begin), so that the chosen ones can be fetched again
and nothing else has to be kept. A broken line is an answer, too: its number and what is wrong with it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from quantgate.calibrate.conversation import MEND, Conversation, Turns, conversation
from quantgate.errors import DataError
from quantgate.records import disk_errors

LONGEST_LINE = 64 << 20  # bytes; one that is longer is broken, and is never whole in memory
KEY = "calibration: traffic"  # where a release.yaml names the files
Progress = Callable[[int, int], None]  # bytes read, bytes in all


@dataclass(frozen=True, order=True)
class Place:
    """Where a line is: ``file`` counts from 0, ``number`` from 1, ``offset`` in bytes, unpacked where it was packed."""

    file: int
    number: int
    offset: int


@dataclass(frozen=True)
class Line:
    """A line of traffic: a conversation, or why it is none."""

    place: Place
    conversation: Conversation | None
    problem: str = ""


def json_lines(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    """``("traffic.jsonl, line 3", value)`` for every line of a JSONL file that is not blank.

    ``key`` is where the user named the file. Raises DataError for a file that cannot be read, and for the first line
    that is not JSON; NaN and Infinity are not JSON.
    """
    for number, offset, raw in _raw_lines(path, key):
        where = f"{path}, line {number}"
        try:
            yield where, _json(raw, offset)
        except DataError as problem:
            raise DataError(f"{where}: {problem}") from None


def read_traffic(path: Path) -> list[Turns]:
    """Conversations of a JSONL file, whole in memory. Raises DataError naming the first broken line by its number."""
    found = []
    for line in lines([path]):
        if line.conversation is None:
            raise DataError(f"{path}, line {line.place.number}: {line.problem}")
        found.append(line.conversation.turns)
    if not found:
        raise DataError(f"{path}: holds no conversation; expected one JSON object per line")
    return found


def lines(paths: Sequence[Path], progress: Progress | None = None) -> Iterator[Line]:
    """Every line that is not blank, in order; a broken one with what is wrong with it.

    ``progress`` is told the bytes of the files that were read, packed ones as they lie on the disk. Raises DataError
    for a file that cannot be read, or whose packed bytes end too early or are damaged.
    """
    sizes = [_size(path) for path in paths]
    for at, path in enumerate(paths):
        before = sum(sizes[:at])

        def tell(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, sum(sizes))

        for number, offset, raw in _raw_lines(path, KEY, tell):
            place = Place(at, number, offset)
            try:
                yield Line(place, conversation(_json(raw, offset)))
            except DataError as problem:
                yield Line(place, None, str(problem))


def fetch(paths: Sequence[Path], places: Iterable[Place]) -> Iterator[tuple[Place, Conversation]]:
    """The conversations at ``places``, in the order of the files; each file is opened once and read forward."""
    wanted = sorted(places)
    for at, path in enumerate(paths):
        here = [place for place in wanted if place.file == at]
        if not here:
            continue
        with _opened(path, KEY) as (file, _):
            for place in here:
                file.seek(place.offset)
                raw = file.readline(LONGEST_LINE + 1)
                try:
                    yield place, conversation(_json(raw.removeprefix(b"\xef\xbb\xbf"), place.offset))
                except DataError:
                    raise DataError(
                        f"{path}, line {place.number}: is another line than before; the file was changed while it was "
                        "read, run again"
                    ) from None


@contextmanager
def readable_twice(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The same files; a pipe is copied into a temporary folder that nobody else may read, and that goes afterwards."""
    with TemporaryDirectory(prefix="quantgate-") as folder:
        found = []
        for at, path in enumerate(paths):
            if path.exists() and not path.is_file() and not path.is_dir():
                copy = Path(folder) / str(at) / path.name
                copy.parent.mkdir()
                with disk_errors(copy), path.open("rb") as pipe, copy.open("wb") as file:
                    shutil.copyfileobj(pipe, file)
                path = copy
            found.append(path)
        yield found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # opening it says why


def _raw_lines(path: Path, key: str, tell: Callable[[int], None] | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line that is not blank; of one that is too long, its beginning."""
    number = begin = 0
    with _opened(path, key) as (file, on_disk):
        while raw := file.readline(LONGEST_LINE + 1):
            number, offset, begin, longer = number + 1, begin, begin + len(raw), raw
            while len(longer) > LONGEST_LINE and not longer.endswith(b"\n"):
                longer = file.readline(LONGEST_LINE + 1)
                begin += len(longer)
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")  # some editors put a byte order mark in front
            if tell is not None and number % 256 == 0:
                tell(on_disk.tell())
            if raw.strip():
                yield number, offset, raw
        if tell is not None:
            tell(on_disk.tell())


@contextmanager
def _opened(path: Path, key: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A file, unpacked where its name ends with .gz, and the bytes on disk behind it."""
    try:
        with path.open("rb") as on_disk:
            if path.suffix != ".gz":
                yield on_disk, on_disk
                return
            with gzip.GzipFile(fileobj=on_disk) as unpacked:
                yield unpacked, on_disk  # type: ignore[misc]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name an existing one under {key}") from None
    except EOFError:
        raise DataError(f"{path}: its packed bytes end too early, lines are missing; fetch the file again") from None
    except (gzip.BadGzipFile, zlib.error) as problem:
        raise DataError(f"{path}: its packed bytes are damaged ({problem}); fetch the file again") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}); name a JSONL file under {key}") from None


def _refuse(name: str) -> None:
    raise DataError(f"{name} is not JSON; {MEND}")


def _json(raw: bytes, offset: int) -> Any:
    """The value of the line that begins at byte ``offset``. Raises DataError, which never shows what the line holds."""
    if len(raw) > LONGEST_LINE:
        raise DataError(f"longer than {LONGEST_LINE >> 20} MiB; {MEND}")
    try:
        value = json.loads(raw.rstrip(b"\r\n").decode(), parse_constant=_refuse)
        if b"\\ud" in raw or b"\\uD" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as broken:
        raise DataError(f"not valid JSON ({broken.msg}, column {broken.colno}); {MEND}") from None
    except UnicodeDecodeError as broken:
        raise DataError(f"not UTF-8 text near byte {offset + broken.start}; save it as UTF-8") from None
    except UnicodeEncodeError:
        raise DataError(f"holds half of a character (a lone surrogate); {MEND}") from None
    except RecursionError:
        raise DataError(f"nested too deep; {MEND}") from None
    except ValueError:
        raise DataError(f"holds a number of too many digits; {MEND}") from None
    return value
