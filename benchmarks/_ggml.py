"""llama.cpp's own quantizer without a file: ``ggml_quantize_chunk`` of the library that llama-cpp-python brings."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from quantgate.errors import MissingExtra
from quantgate.formats.ggml import BlockFormat

TYPES = {  # ggml_type in ggml.h
    "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
    "IQ4_NL": 20, "MXFP4": 39,
}  # fmt: skip


class Ggml:
    """Raises MissingExtra where llama-cpp-python is not installed."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("llama_cpp")
        folders = [] if found is None else [Path(one) for one in found.submodule_search_locations or ()]
        files = [file for folder in folders for file in sorted(folder.rglob("*ggml-base*")) if ".so" in file.name]
        if not files:
            raise MissingExtra(
                "benchmark kquants: compares with llama.cpp, which is not installed; pip install llama-cpp-python"
            )
        self._quantize = ctypes.CDLL(str(files[0])).ggml_quantize_chunk
        self._quantize.restype = ctypes.c_size_t
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]

    def quantize(self, weight: Tensor, layout: BlockFormat, importance: Tensor | None = None) -> Tensor:
        """uint8 [out, blocks * size] of ``weight`` [out, in]; ``importance`` [in] is what an imatrix file holds."""
        weight = weight.float().contiguous()
        out, columns = weight.shape
        rows = torch.empty(out, columns // layout.block * layout.size, dtype=torch.uint8)
        heavy = None if importance is None else importance.float().contiguous()
        told = None if heavy is None else heavy.data_ptr()
        size = self._quantize(TYPES[layout.name], weight.data_ptr(), rows.data_ptr(), 0, out, columns, told)
        assert size == rows.numel()
        return rows
