"""GGUF files of ours beside those of llama.cpp's own quantizer: same types, same calibration rows, same held-out text.

python -m benchmarks gguf [--quick] [--write]

importance.py   what an importance matrix holds: mean squared inputs of every linear layer and of the output layer
quantizer.py    llama.cpp's quantizer, with and without one, in the types that our file has
judge.py        KL to the baseline, document by document, and intervals
quality.py      the tables

The models, the calibration rows and the held-out text are those of the comparison with other programs
(``benchmarks.peers.inputs``). Files are kept in ``.bench/gguf``; ours are made anew when their inputs have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.tables import Table

CASES = 64  # held out of each suite: a few carry most of a mean KL, so it takes many
CACHE = Path(__file__).parents[2] / ".bench" / "gguf"


def run(
    *, quick: bool = False, threads: int = 2, cache: Path = CACHE, say: Callable[[str], None] = print
) -> list[Table]:
    """A table a model, and one of llama.cpp's own logits. ``quick`` takes sizes that try the way and prove nothing.

    Without llama-cpp-python there is nothing to compare with: a line says so, and there is no table.
    """
    missing = [name for name in ("llama_cpp", "gguf") if find_spec(name) is None]
    if missing:
        say(f"gguf: the peer is llama.cpp, and {missing[0]} is not installed; left out (pip install 'quantgate[gguf]')")
        return []
    import torch

    from benchmarks.gguf import quality
    from benchmarks.peers.inputs import Sizes, reference, stories
    from benchmarks.peers.machine import machine
    from quantgate.engines._llama import system

    torch.set_num_threads(threads)
    folder = cache / "quick" if quick else cache
    tables: list[Table] = []
    for name, make, held_out in (("reference", reference, CASES), ("stories260K", stories, CASES // 2)):
        subject = make(Sizes(16, 64, 4) if quick else Sizes(64, 256, held_out))
        if subject is None:
            say(f"gguf: the model {name} is not on this machine; it is left out")
        else:
            tables += quality.compare(subject, folder / name, quick=quick, threads=threads, say=say)
    if tables:
        version = f"llama-cpp-python {system()['llama-cpp-python']}, torch {torch.__version__.partition('+')[0]}."
        tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, machine(threads), version))
    return tables
