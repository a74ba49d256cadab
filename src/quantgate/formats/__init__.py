"""Formats: what a number is. Grids and schemes are small records; the arithmetic on tensors has two files of its own.

    grid = IntGrid(bits=4, strategy="group", group_size=128)        # one format
    scheme("W4A16-g64"), scheme("W8A8")                             # formats for weights and activations together
    stored_bytes(out, columns, grid).bits_per_weight                # 4.125

    codec.py   scales_for, encode, decode, quantize_activations     # needs torch, so it is imported where it is used
    pack.py    pack, unpack                                         # codes <-> int32 words
    ggml/      the block formats of GGUF files, with a codec and a packer of their own

A new format is one record in ``grids.py`` and its branch in ``codec.py``; methods and containers read those.
"""

from quantgate.formats.grids import BlockGrid, FloatGrid, Fp4Grid, Grid, IntGrid
from quantgate.formats.schemes import Scheme, scheme, scheme_names
from quantgate.formats.size import StoredBytes, stored_bytes

__all__ = [
    "BlockGrid",
    "FloatGrid",
    "Fp4Grid",
    "Grid",
    "IntGrid",
    "Scheme",
    "StoredBytes",
    "scheme",
    "scheme_names",
    "stored_bytes",
]
