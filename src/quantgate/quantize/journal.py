"""What a sweep has finished, on disk, so that a killed one goes on where it stopped.

    <out>/.sweep-<digest of the inputs>.partial/
        block-00003/<variant>.safetensors + .json    one variant's tensors and fates of one block
        block-00003.json                             written last: the block is done, with the digests of the above
        whole/<variant>/                             an artifact being put together, renamed to <out>/<variant>

The folder's name comes from the inputs, so a sweep with other inputs never meets it. A block counts as done only when
its marker names every file with the digest that the file has: a torn or edited file means the block is made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.errors import ArtifactError
from quantgate.models.tensors import Entry, read_header
from quantgate.quantize.manifest import Fate, Note
from quantgate.quantize.shards import write_tensors
from quantgate.records import Record, digest_file, disk_errors, write_whole

if TYPE_CHECKING:
    from torch import Tensor


class Piece(Record):
    """One variant's share of one block, without its tensors."""

    fates: tuple[Fate, ...]
    ledger: tuple[Note, ...]


class Journal:
    def __init__(self, out: Path, inputs: str) -> None:
        self.out = out
        self.folder = out / f".sweep-{inputs.removeprefix('sha256:')[:16]}.partial"

    def open(self) -> None:
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def done(self, block: int, variants: Sequence[str]) -> bool:
        """Whether the block was finished for all ``variants`` and its files are still what they were."""
        marker = self._marker(block)
        if not marker.is_file():
            return False
        try:
            digests: dict[str, str] = json.loads(marker.read_bytes())
        except ValueError:
            return False
        return all(
            file.name in digests and file.is_file() and digest_file(file) == digests[file.name]
            for file in self.files(block, variants)
        )

    def begin(self, block: int) -> None:
        """Forget whatever an earlier attempt left of this block."""
        self._marker(block).unlink(missing_ok=True)
        with disk_errors(self.folder):
            self.place(block).mkdir(exist_ok=True)

    def write(self, block: int, variant: str, tensors: dict[str, Tensor], piece: Piece) -> None:
        write_tensors(self._file(block, variant, "safetensors"), tensors)
        piece.save(self._file(block, variant, "json"))

    def finish(self, block: int, variants: Sequence[str]) -> None:
        digests = {file.name: digest_file(file) for file in self.files(block, variants)}
        write_whole(self._marker(block), json.dumps(digests, indent=1, sort_keys=True).encode())

    def files(self, block: int, variants: Sequence[str]) -> list[Path]:
        return [self._file(block, variant, end) for variant in variants for end in ("safetensors", "json")]

    def tensors(self, block: int, variant: str) -> dict[str, Entry]:
        return read_header(self._file(block, variant, "safetensors"))

    def piece(self, block: int, variant: str) -> Piece:
        return Piece.load(self._file(block, variant, "json"))

    def whole(self, variant: str) -> Path:
        """An empty folder in which to put the artifact together."""
        folder = self.folder / "whole" / variant
        shutil.rmtree(folder, ignore_errors=True)
        with disk_errors(folder):
            folder.mkdir(parents=True)
        return folder

    def publish(self, variant: str) -> Path:
        """Give a finished folder its name. What was there before under that name is removed after the rename."""
        final, old = self.out / variant, self.folder / "replaced"
        shutil.rmtree(old, ignore_errors=True)
        for file in (self.folder / "whole" / variant).iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if final.exists():
            os.replace(final, old)
        os.replace(self.folder / "whole" / variant, final)
        shutil.rmtree(old, ignore_errors=True)
        return final

    def close(self) -> None:
        """Everything is published: nothing is left to resume."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, block: int) -> Path:
        """The folder of a block's files."""
        return self.folder / f"block-{block:05d}"

    def _file(self, block: int, variant: str, end: str) -> Path:
        return self.place(block) / f"{variant}.{end}"

    def _marker(self, block: int) -> Path:
        return self.folder / f"block-{block:05d}.json"


def refuse_strangers(out: Path, variants: Sequence[str]) -> None:
    """Raises ArtifactError when a folder that an artifact would take holds something that is not an artifact."""
    for variant in variants:
        folder = out / variant
        if folder.exists() and not (folder / "manifest.json").is_file() and (folder.is_file() or any(folder.iterdir())):
            raise ArtifactError(
                f"{folder}: exists and is not an artifact; move it away or choose another output folder"
            )
