"""GPTQ's layouts 1 and 2 as AutoGPTQ, GPTQModel and AutoRound write them (tensors: ``checkpoints/_gptq.py``).

Two things differ from what quantgate writes. With ``desc_act`` the columns of a group need not stand side by side:
``g_idx`` names each column's group. And layout 1 stores zero points less one, in which 0 has no place: AutoGPTQ spills
it over its neighbours, GPTQModel borrows from them, ExLlama and vLLM read 16 (of 4 bits). Such a file means different
numbers to different runtimes, so it is refused; so is a ``sym`` that the stored zero points contradict.
Source: AutoGPTQ 0.7, nn_modules/qlinear/qlinear_cuda_old.py; GPTQModel 7, nn_modules/qlinear/torch.py and
utils/model.py ``convert_gptq_v1_to_v2_format``; vLLM, quantization/gptq.py; AutoRound 0.15, inference/backend.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantgate.errors import ArtifactError
from quantgate.formats import IntGrid
from quantgate.formats.pack import unpack
from quantgate.formats.size import words
from quantgate.models.tensors import TensorFiles
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.foreign.layers import FLOATS, LayerFormat, LayerTensors, check_pattern, number

WIDTHS = (2, 3, 4, 8)


class Gptq:
    """``quant_method: gptq``, with GPTQModel's settings of single layers under ``dynamic``."""

    lists_kept = False

    def __init__(self, config: dict[str, Any], file: Path) -> None:
        self.config, self.file = config, file
        named = config.get("checkpoint_format") or ("marlin" if config.get("is_marlin_format") else "gptq")
        self.container = str(named).lower()
        if self.container not in ("gptq", "gptq_v2"):
            raise ArtifactError(f"{file}: checkpoint_format '{named}'; supported are gptq and gptq_v2")
        if str(config.get("pack_dtype") or "int32").removeprefix("torch.") != "int32":
            raise ArtifactError(f"{file}: pack_dtype '{config['pack_dtype']}'; supported is int32")
        dynamic = config.get("dynamic") or {}
        self.dynamic = dict(dynamic) if isinstance(dynamic, Mapping) else {}
        for pattern in self.dynamic:
            check_pattern(pattern.removeprefix("-:").removeprefix("+:"), file)
        gptq_format(self.container, config, file)

    def asked(self, layer: str) -> LayerFormat | None:
        for pattern, changes in self.dynamic.items():
            if pattern.startswith("-:") and re.match(pattern[2:], layer):
                return None
            if not pattern.startswith("-:") and re.match(pattern.removeprefix("+:"), layer):
                return gptq_format(self.container, self.config | dict(changes or {}), self.file)
        return gptq_format(self.container, self.config, self.file)

    def coded(self, layer: str, files: TensorFiles) -> bool:
        return f"{layer}.qweight" in files.entries

    def read(self, at: LayerTensors, shape: tuple[int, int], asked: LayerFormat) -> StoredLinear:
        return read_gptq(at, shape, asked)


def gptq_format(packing: str, told: Mapping[str, Any], file: Path) -> LayerFormat:
    """Raises ArtifactError for widths that nobody stores so."""
    bits, size = number(told, ("bits",), file), number(told, ("group_size",), file)
    if bits not in WIDTHS:
        raise ArtifactError(f"{file}: GPTQ of {bits} bits; supported are {', '.join(map(str, WIDTHS))}")
    grouped: dict[str, Any] = {"strategy": "group", "group_size": size} if size > 0 else {"strategy": "channel"}
    grid = IntGrid(bits=bits, symmetric=bool(told.get("sym", True)), **grouped)
    return LayerFormat(packing, grid, ordered=bool(told.get("desc_act", False)))


def read_gptq(at: LayerTensors, shape: tuple[int, int], asked: LayerFormat) -> StoredLinear:
    """One layer [out, in] of layout 1 (``gptq``) or 2 (``gptq_v2``)."""
    out, columns = shape
    grid = asked.weights
    assert isinstance(grid, IntGrid)  # gptq_format
    if out * grid.bits % 32 or columns * grid.bits % 32:
        raise at.refuse(f"[{out}, {columns}] does not fill whole words with {grid.bits} bits")
    size = grid.group_size or columns
    groups = -(-columns // size)
    packed = at.take("qweight", ["I32"], (words(columns, grid.bits), out))
    codes = unpack(packed, grid.bits, (columns, out), dim=0).T.contiguous()
    scales = at.take("scales", FLOATS, (groups, out)).T.contiguous()
    zeros = _zeros(at, grid, groups, out, asked.packing == "gptq")
    group_of = _groups(at, columns, size, asked.ordered)
    if grid.symmetric and zeros.any():
        wrong = int(zeros[zeros != 0][0]) + (1 << (grid.bits - 1))
        other = "gptq_v2" if asked.packing == "gptq" else "gptq"
        raise at.refuse(
            f"the config says sym, and a zero point is {wrong} instead of {1 << (grid.bits - 1)}, so runtimes would "
            f"disagree; set sym to false, or checkpoint_format to {other} if that is what wrote it"
        )
    symmetric = not bool(zeros.any())
    made = grid.model_copy(update={"symmetric": symmetric})
    return StoredLinear(at.layer, codes, scales, None if symmetric else zeros, made, None, group_of=group_of)


def _zeros(at: LayerTensors, grid: IntGrid, groups: int, out: int, less_one: bool) -> Tensor:
    """Signed zero points int8 [out, groups]."""
    packed = at.take("qzeros", ["I32"], (groups, words(out, grid.bits)))
    stored = unpack(packed, grid.bits, (groups, out)).T.contiguous()
    if not less_one:
        return stored
    if int(stored.max()) == grid.high:
        top = (1 << grid.bits) - 1
        raise at.refuse(
            f"a zero point is stored as {top} in layout 1, which runtimes read as 0 or as {top + 1}; "
            "save it again as gptq_v2"
        )
    return stored + 1


def _groups(at: LayerTensors, columns: int, size: int, ordered: bool) -> Tensor | None:
    """int64 [in]: the group of each column; None when they stand side by side in whole groups."""
    plain = torch.arange(columns) // size
    if not at.has("g_idx"):
        return None if columns % size == 0 else plain
    found = at.take("g_idx", ["I32", "I64"], (columns,)).long()
    groups = int(plain[-1]) + 1
    if int(found.min()) < 0 or int(found.max()) >= groups:
        raise at.refuse(f"g_idx names the groups {int(found.min())} to {int(found.max())}; there are {groups}, from 0")
    if not torch.equal(torch.bincount(found, minlength=groups), torch.bincount(plain, minlength=groups)):
        raise at.refuse(f"g_idx does not give every group {size} columns; the file is damaged, download it again")
    if not torch.equal(found, plain) and not ordered:
        raise at.refuse("the config says desc_act is false, and g_idx is in another order; runtimes would disagree")
    return None if torch.equal(found, plain) and columns % size == 0 else found
