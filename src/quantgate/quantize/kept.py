"""Finished work on disk under the digest of all that it follows from: a folder of bounded size, the oldest out first.

    <folder>/<64 hex digits>/<files>
    <folder>/<64 hex digits>/files.json     their digests; its time of change is when the entry was last used

An entry gets its name when it is whole, and what is taken is checked against its digests: a torn file is as good as
none. Nothing here fails a run: an entry that cannot be written or read is told in ``problem`` and done without.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantgate.quantize.reuse import LIMIT
from quantgate.records import digest_file

SPARE = 2_000_000_000  # bytes of the disk that are left to others
STALE_S = 3600  # after which what a killed writer left is cleared away
DIGESTS = "files.json"


@dataclass
class Kept:
    """``limit``: bytes. Entries that were put or taken by this object are not thrown out by it."""

    folder: Path
    limit: int = LIMIT
    spare: int = SPARE
    problem: str = ""  # why the last entry that could not be kept could not
    _sizes: dict[str, tuple[float, int]] = field(default_factory=dict)  # entry -> last used, bytes
    _mine: set[str] = field(default_factory=set)

    def open(self) -> None:
        """Look at what is there. What a killed process left half-written is cleared away."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = list(self.folder.iterdir())
        except OSError as problem:
            self.problem = _told(self.folder, problem)
            return
        self._sizes, self._mine = {}, set()
        for entry in found:
            with contextlib.suppress(OSError):  # thrown out by somebody else just now
                if entry.suffix == ".partial":
                    if time.time() - entry.stat().st_mtime > STALE_S:
                        shutil.rmtree(entry, ignore_errors=True)
                    continue
                size = sum(file.stat().st_size for file in entry.iterdir())
                self._sizes[entry.name] = ((entry / DIGESTS).stat().st_mtime, size)

    def take(self, key: str, into: Path) -> bool:
        """Put the files of an entry into a folder; False when there is no such entry, or it is not what it was."""
        entry, taken = self._entry(key), list[Path]()
        try:
            digests: dict[str, str] = json.loads((entry / DIGESTS).read_bytes())
            for name, digest in digests.items():
                target = into / name
                target.unlink(missing_ok=True)
                _link(entry / name, target)
                taken.append(target)
                if digest_file(target) != digest:
                    raise ValueError(f"{entry / name}: is not what was written")
            os.utime(entry / DIGESTS)
        except (OSError, ValueError, AttributeError) as problem:
            if entry.is_dir():
                self.problem = _told(entry, problem)
                shutil.rmtree(entry, ignore_errors=True)
            for target in taken:
                target.unlink(missing_ok=True)
            return False
        self._mine.add(entry.name)
        return True

    def put(self, key: str, files: Sequence[Path]) -> bool:
        """Keep these files, flushed to disk already, under a key; False when there is no room for them."""
        entry = self._entry(key)
        self._mine.add(entry.name)
        if entry.is_dir():
            return True
        aside = entry.with_name(f"{entry.name}.{os.getpid()}.partial")
        try:
            size = sum(file.stat().st_size for file in files)
            if not self.room(size):
                return False
            aside.mkdir(mode=0o700)
            for file in files:
                _link(file, aside / file.name)
            digests = {file.name: digest_file(aside / file.name) for file in files}
            (aside / DIGESTS).write_text(json.dumps(digests, indent=1, sort_keys=True))
            os.replace(aside, entry)
        except OSError as problem:
            shutil.rmtree(aside, ignore_errors=True)
            self.problem = _told(entry, problem)
            return entry.is_dir()  # another process was a moment faster
        self._sizes[entry.name] = (time.time(), size)
        return True

    @contextlib.contextmanager
    def aside(self) -> Iterator[Path]:
        """A folder beside the entries for as long as the block lasts. Raises OSError."""
        folder = Path(tempfile.mkdtemp(suffix=".partial", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def has(self, key: str) -> bool:
        return self._entry(key).is_dir()

    def room(self, size: int) -> bool:
        """Whether ``size`` bytes may be added, when the entries that were not used for longest are out."""
        others = sorted((used, name) for name, (used, _) in self._sizes.items() if name not in self._mine)
        while sum(held for _, held in self._sizes.values()) + size > self.limit:
            if not others:
                self.problem = f"{self.folder}: holds its {self.limit / 1e9:g} GB"
                return False
            _, oldest = others.pop(0)
            shutil.rmtree(self.folder / oldest, ignore_errors=True)
            del self._sizes[oldest]
        if shutil.disk_usage(self.folder).free < self.spare + size:
            self.problem = f"{self.folder}: less than {self.spare / 1e9:g} GB of its disk would be left free"
            return False
        return True

    def _entry(self, key: str) -> Path:
        return self.folder / key.removeprefix("sha256:")


def _link(file: Path, target: Path) -> None:
    """The same bytes under another name, without a copy where the file system lets it: files here are never edited."""
    try:
        os.link(file, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(file, target)


def _told(path: Path, problem: Exception) -> str:
    why = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return f"{path}: {why}"
