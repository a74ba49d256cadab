"""Whether files are still what they were: digests are taken once, and must not speak for bytes that came later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ENDINGS = (".json", ".safetensors", ".gguf", ".jinja", ".model", ".txt")  # of files that an answer depends on


@dataclass(frozen=True)
class Seal:
    """Inode, bytes and time of the last change (nanoseconds) of every file that mattered when it was taken."""

    stamps: dict[Path, tuple[int, int, int]]

    @classmethod
    def of(cls, place: Path) -> Seal:
        """Of a file, or of the files of a folder."""
        files = [place] if place.is_file() else sorted(one for one in place.iterdir() if one.suffix in ENDINGS)
        return cls({file: _stamp(file) for file in files if file.is_file()})

    def broken(self) -> Path | None:
        """The first file that was changed, replaced or removed since."""
        return next((file for file, stamp in self.stamps.items() if not file.is_file() or _stamp(file) != stamp), None)


def _stamp(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
