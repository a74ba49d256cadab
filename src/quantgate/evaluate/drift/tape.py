"""What was measured, kept part by part, so that a killed measurement goes on where it stopped."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import safetensors
from safetensors.torch import load, save

from quantgate.engines import Engine
from quantgate.evaluate.drift.distances import NUCLEUS, TOP, Positions
from quantgate.evaluate.drift.passages import Part
from quantgate.records import digest_of, write_whole

LAYOUT = 1  # raised when a figure changes its meaning


class Tape:
    """The figures of one variant beside one baseline, a file a part, under a digest of all that they depend on."""

    def __init__(self, folder: Path | None, baseline: Engine, variant: Engine) -> None:
        """Without a folder nothing is kept."""
        self.folder = folder
        self.sides = [LAYOUT, TOP, NUCLEUS, baseline.identity.key, variant.identity.key]

    def _path(self, part: Part) -> Path | None:
        if self.folder is None:
            return None
        key = digest_of([self.sides, part.ids.tolist(), part.scored.nonzero().tolist()])
        return self.folder / f"{key[7:39]}.safetensors"

    def get(self, part: Part) -> Positions | None:
        path = self._path(part)
        if path is None or not path.exists():
            return None
        try:
            return Positions(**load(path.read_bytes()))
        except (safetensors.SafetensorError, TypeError):
            path.unlink()  # not one of ours, or of an older version: measured again
            return None

    def put(self, part: Part, seen: Positions) -> None:
        path = self._path(part)
        if path is not None:
            write_whole(path, save({one.name: getattr(seen, one.name).contiguous() for one in fields(seen)}))
