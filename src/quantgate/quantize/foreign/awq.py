"""AutoAWQ's GEMM layout: four bits in groups along the input, eight outputs a word (see ``checkpoints/awq.py``).

Source: AutoAWQ 0.2, modules/linear/gemm.py and utils/packing_utils.py; AutoRound 0.15, export_to_awq/utils.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from quantgate.errors import ArtifactError
from quantgate.formats import IntGrid
from quantgate.models.tensors import TensorFiles
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.checkpoints.awq import unpack_words
from quantgate.quantize.foreign.layers import FLOATS, LayerFormat, LayerTensors, number


class Awq:
    container = "awq"
    lists_kept = False

    def __init__(self, config: dict[str, Any], file: Path) -> None:
        version = str(config.get("version") or "gemm").lower()
        if version != "gemm":
            raise ArtifactError(f"{file}: AWQ version '{version}'; supported is gemm, so convert or make it again")
        self.file = file
        self.bits = number(config, ("bits", "w_bit"), file)
        if self.bits != 4:
            raise ArtifactError(f"{file}: AWQ of {self.bits} bits; supported are 4")
        self.group_size = number(config, ("group_size", "q_group_size"), file)
        self.zero_point = bool(config.get("zero_point", True))
        self.kept = tuple(config.get("modules_to_not_convert") or ())

    def asked(self, layer: str) -> LayerFormat | None:
        if any(part in layer for part in self.kept):
            return None
        return awq_format(self.group_size, self.zero_point)

    def coded(self, layer: str, files: TensorFiles) -> bool:
        return f"{layer}.qweight" in files.entries

    def read(self, at: LayerTensors, shape: tuple[int, int], asked: LayerFormat) -> StoredLinear:
        return read_awq(at, shape, asked)


def awq_format(group_size: int, zero_point: bool) -> LayerFormat:
    grouped: dict[str, Any] = (
        {"strategy": "group", "group_size": group_size} if group_size > 0 else {"strategy": "channel"}
    )
    return LayerFormat("awq", IntGrid(bits=4, symmetric=not zero_point, **grouped))


def read_awq(at: LayerTensors, shape: tuple[int, int], asked: LayerFormat) -> StoredLinear:
    """One layer [out, in] of AWQ's GEMM layout; a zero point of 8 everywhere makes it symmetric."""
    out, columns = shape
    size = asked.weights.group_size or columns
    if columns % size or out % 8:
        raise at.refuse(f"[{out}, {columns}] does not divide into groups of {size} columns and words of 8 outputs")
    groups = columns // size
    codes = unpack_words(at.take("qweight", ["I32"], (columns, out // 8))).T.contiguous()
    scales = at.take("scales", FLOATS, (groups, out)).T.contiguous()
    if asked.weights.symmetric and not at.has("qzeros"):
        return StoredLinear(at.layer, codes, scales, None, asked.weights, None)
    zeros = unpack_words(at.take("qzeros", ["I32"], (groups, out // 8))).T.contiguous()
    if asked.weights.symmetric and zeros.any():
        raise at.refuse("the config says zero_point is false, and qzeros holds others than 8; runtimes would disagree")
    symmetric = not bool(torch.any(zeros))
    grid = asked.weights.model_copy(update={"symmetric": symmetric})
    return StoredLinear(at.layer, codes, scales, None if symmetric else zeros, grid, None)
