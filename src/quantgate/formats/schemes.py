"""Schemes: the formats of weights and activations together, under the names that the field uses."""

from __future__ import annotations

import re
from typing import Literal

from quantgate.errors import UnknownName, UsageError
from quantgate.formats.ggml import FORMATS, PRESETS
from quantgate.formats.grids import BlockGrid, FloatGrid, Fp4Grid, Grid, IntGrid
from quantgate.records import Record

DEFAULT_GROUP = 128
_WEIGHT_ONLY = {
    "W1A16": 2,
    "W2A16": 2,
    "W3A16": 3,
    "W4A16": 4,
    "W8A16": 8,
}  # name -> bits; group or channel, symmetric or not
_TOKENS = {  # name -> bits of weights, symmetric, and of activations with a scale per token
    "W4A4": (4, 4),
    "W4A8": (4, 8),
}
_SIGNS = "W1A16"  # its codes are -1 and 1, stored in 2 bits
_FIXED: dict[str, tuple[Grid | None, Grid | None]] = {  # name -> weights, activations
    "BF16": (None, None),
    "W8A8": (IntGrid(bits=8), IntGrid(bits=8, strategy="token")),
    "FP8": (FloatGrid(strategy="tensor"), FloatGrid(strategy="tensor")),
    "FP8_DYNAMIC": (FloatGrid(), FloatGrid(strategy="token")),
    "FP8_BLOCK": (FloatGrid(strategy="block", group_size=128), FloatGrid(strategy="group", group_size=128)),
    "NVFP4": (Fp4Grid(group_size=16, scales="fp8"), Fp4Grid(group_size=16, scales="fp8")),
    "NVFP4A16": (Fp4Grid(group_size=16, scales="fp8"), None),
    "MXFP4A16": (Fp4Grid(group_size=32, scales="e8m0"), None),
    "MXFP4": (Fp4Grid(group_size=32, scales="e8m0"), Fp4Grid(group_size=32, scales="e8m0")),
}
# Of GGUF: every block format by its own name, and llama.cpp's file types by that of most of their layers. Where both
# share a name (Q4_0, Q6_K), a recipe means the file type, a layer its format.
BLOCK_SCHEMES: dict[str, tuple[Grid | None, Grid | None]] = {
    name if name not in _FIXED else f"GGUF_{name}": (BlockGrid(name=usual), None)
    for name, usual in ({name: name for name in FORMATS} | PRESETS).items()
}
_FIXED |= BLOCK_SCHEMES
_LABEL = re.compile(r"(?P<name>.+?)(?:-(?:g(?P<group>\d+)|(?P<channel>channel)))?(?P<asym>-asym)?", re.IGNORECASE)


class Scheme(Record):
    """What a recipe stores linear layers as, and what their inputs are rounded to at run time."""

    name: str
    weights: Grid | None = None  # None: left in the model's own dtype
    activations: Grid | None = None  # None: not rounded

    @property
    def calibrated(self) -> bool:
        """Whether the rounding of activations needs a number from a calibration set."""
        return self.activations is not None and (
            self.activations.strategy == "tensor"
            or (isinstance(self.activations, Fp4Grid) and self.activations.scales == "fp8")
        )

    @property
    def packed(self) -> bool:
        """Integer codes packed into int32 words, not one code per byte, which is what kernels of 8-bit inputs read."""
        return isinstance(self.weights, IntGrid) and (self.activations is None or self.activations.bits < 8)

    @property
    def sized(self) -> bool:
        """Whether a recipe may choose how many input columns share a scale."""
        return isinstance(self.weights, IntGrid) and self.name not in _FIXED

    @property
    def label(self) -> str:
        """The name, plus whatever differs from its defaults: ``W4A16``, ``W4A16-g64``, ``W4A16-channel-asym``.

        >>> scheme("W4A16", group_size=64).label
        'W4A16-g64'
        """
        if not isinstance(self.weights, IntGrid) or not self.sized:
            return self.name
        size = self.weights.group_size
        group = "" if size == _default_group(self.weights.bits) else "-channel" if size is None else f"-g{size}"
        return self.name + group + ("" if self.weights.symmetric else "-asym")


def scheme_names() -> tuple[str, ...]:
    return tuple(sorted([*_WEIGHT_ONLY, *_TOKENS, *_FIXED]))


def scheme(
    name: str, *, group_size: int | Literal["channel"] | None = None, symmetric: bool | None = None, where: str = ""
) -> Scheme:
    """The scheme called ``name``, a label such as ``W4A16-g64`` included.

    ``group_size`` None is the scheme's default (128 columns at 2-4 bits, else per channel); -1 and "channel" both mean
    one scale per output channel. Raises UnknownName with the nearest name, UsageError for options it cannot have.

    >>> scheme("W8A16").weights.strategy
    'channel'
    """
    found = _LABEL.fullmatch(name)
    base = found["name"].upper() if found else name.upper()
    if found is None or base not in scheme_names():
        raise UnknownName("scheme", name, scheme_names(), where=where)
    at = f"{where}: " if where else ""
    told: int | Literal["channel"] | None = int(found["group"]) if found["group"] else None
    told = "channel" if found["channel"] else told
    if told is not None and group_size not in (None, told):
        raise UsageError(f"{at}scheme '{name}' names group size {told}, group_size says {group_size}; keep one of them")
    if found["asym"] and symmetric:
        raise UsageError(f"{at}scheme '{name}' is asymmetric, symmetric says true; keep one of them")
    size = group_size if told is None else told
    symmetric = not found["asym"] if symmetric is None else symmetric
    if base in _FIXED:
        if size is not None or not symmetric:
            raise UsageError(f"{at}scheme {base} has no choice of group size or zero points; leave both out")
        weights, activations = _FIXED[base]
        return Scheme(name=base, weights=weights, activations=activations)
    bits, of_tokens = _TOKENS[base] if base in _TOKENS else (_WEIGHT_ONLY[base], None)
    signs, activations = base == _SIGNS, None if of_tokens is None else IntGrid(bits=of_tokens, strategy="token")
    if signs and not symmetric:
        raise UsageError(f"{at}scheme {base} stores signs, which have no zero points; leave 'symmetric' out")
    if activations is not None and not symmetric:
        raise UsageError(f"{at}scheme {base} has no zero points; leave 'symmetric' out")
    if size is None:
        size = _default_group(bits)
    if size in (None, "channel", -1):
        return Scheme(name=base, weights=IntGrid(bits=bits, symmetric=symmetric, signs=signs), activations=activations)
    if not isinstance(size, int) or size < 1:
        raise UsageError(
            f"{at}group_size {size!r} of scheme {base}; expected a positive number of columns or 'channel'"
        )
    grid = IntGrid(bits=bits, symmetric=symmetric, signs=signs, strategy="group", group_size=size)
    return Scheme(name=base, weights=grid, activations=activations)


def _default_group(bits: int) -> int | None:
    return DEFAULT_GROUP if bits <= 4 else None


KV_CACHES: dict[str, Grid] = {  # what keys and values may be rounded to when they are cached
    "fp8": FloatGrid(strategy="tensor"),  # one calibrated scale for a layer's keys, one for its values
    "int8": IntGrid(bits=8, strategy="token"),  # a scale per token and head
    "int4": IntGrid(bits=4, strategy="token"),
}
