"""A program that moves a target to and fro and says each revision once it was acknowledged; tests kill it.

python -m tests.release.mover URL MOVES    # so many moves, then ends
"""

from __future__ import annotations

import os
import sys

from quantgate.release.lifecycle import promote, rollback
from quantgate.release.store import Registry


def move(url: str, moves: int, out: int) -> None:
    registry = Registry.open(url, "mover")
    for _ in range(moves):
        if registry.live("fleet").stable.is_baseline:
            revision = promote(registry, "fleet", "A").revision
        else:
            done = rollback(registry, "fleet", why="to and fro")
            assert done
            revision = done.revision
        os.write(out, f"{revision}\n".encode())


if __name__ == "__main__":
    move(sys.argv[1], int(sys.argv[2]), 1)
