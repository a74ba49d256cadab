"""Finished blocks that sweeps leave to each other on this machine, and what was taken over. How: ``past``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KEPT = Path("~/.cache/quantgate/sweeps")
LIMIT = 20_000_000_000  # bytes of all entries together


@dataclass
class Reuse:
    """Work that is kept between sweeps, and what was taken over from it.

    >>> Reuse(blocks=8, taken=6, skipped=5).sentence
    '6 of 8 blocks were taken over from earlier sweeps; 5 did not even have to run'
    """

    folder: Path = KEPT
    limit: int = LIMIT  # bytes of the folder
    blocks: int = 0  # that were to be made, in the sweeps since this was opened
    taken: int = 0  # of these, found finished
    skipped: int = 0  # blocks that were not even run
    problem: str = ""  # why something could not be kept or taken

    def told(self) -> list[str]:
        """Sentences for people: what was taken over, and what could not be kept."""
        problem = f"not all finished blocks could be kept for later sweeps: {self.problem}" if self.problem else ""
        return [one for one in (self.sentence, problem) if one]

    @property
    def sentence(self) -> str:
        """What was taken over; "" for nothing."""
        if not self.taken:
            return ""
        told = f"{self.taken} of {self.blocks} blocks were taken over from earlier sweeps"
        return told + (f"; {self.skipped} did not even have to run" if self.skipped else "")
