"""quantgate beside llm-compressor, AutoRound, hqq and torchao: same model, same calibration rows, same held-out text.

python -m benchmarks peers [--only quality|time|memory|qat] [--quick] [--fresh] [--write]

entries.py       formats, goals, our settings and the peers'
inputs.py        models, calibration rows, held-out text
environments.py  a virtual environment for each peer, pinned in NAME.txt beside it
tools/           what runs in it, one file a tool
children.py      one measured process a tool, its results kept under the digest of their inputs
judge.py         mean KL and stored bits of every artifact, by one loader
quality.py, speed.py, memory.py, qat.py   the tables

Everything is kept in ``.bench/peers``: a second run makes only what is missing or has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.tables import Table

CACHE = Path(__file__).parents[2] / ".bench" / "peers"
PARTS = ("quality", "time", "memory", "qat")


def run(
    *,
    only: Sequence[str] = PARTS,
    quick: bool = False,
    fresh: bool = False,
    threads: int = 2,
    cache: Path = CACHE,
    say: Callable[[str], None] = print,
) -> list[Table]:
    """The tables of the parts asked for. ``quick`` takes sizes that try the way and prove nothing."""
    import torch

    from benchmarks.peers import memory, qat, quality, speed
    from benchmarks.peers.children import Bench
    from benchmarks.peers.inputs import Sizes, reference, stories
    from benchmarks.peers.machine import machine, versions

    torch.set_num_threads(threads)
    bench = Bench(cache / "quick" if quick else cache, threads, fresh, say, venvs=cache)
    tables: list[Table] = []
    if "quality" in only:
        sizes = Sizes(16, 64, 4) if quick else Sizes()
        for subject in (reference(sizes), stories(sizes)):
            if subject is None:
                say("a model of the comparison is not on this machine; it is left out")
            else:
                tables.append(quality.compare(bench, subject, quick=quick))
    if "time" in only:
        tables.append(speed.compare(bench, speed.QUICK if quick else speed.FULL))
    if "memory" in only:
        tables.append(memory.compare(bench, memory.QUICK if quick else memory.FULL))
    if "qat" in only:
        tables.append(qat.compare(bench, qat.QUICK if quick else qat.Sizes()))
    if tables:
        notes = (machine(threads), versions(bench.versions))
        tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, *notes))
    return tables
