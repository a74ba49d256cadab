"""What llama.cpp really multiplied: input and output of every matrix of a forward pass, as its kernels made them.

The scheduler calls back after each node of the graph; nodes whose first source is a weight of the file are copied out.
The graph's nodes are read as C structures, whose layout is checked against the library's own accessors before use.
Source: ggml.h ``struct ggml_tensor``; ggml-backend.h ``ggml_backend_sched_eval_callback``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from quantgate.engines import Product
from quantgate.engines._llama import LlamaContext, LlamaModel
from quantgate.errors import EngineError

F32 = 0  # ggml's numbers of types
INTEGERS = 26


class _Node(ctypes.Structure):
    """``struct ggml_tensor``."""


_Node._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Node) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


class Tracer:
    """A context of its own that copies products out. Raises EngineError where the library has another layout."""

    def __init__(self, model: LlamaModel, length: int, threads: int) -> None:
        self.found: list[Product] = []
        self.trouble = ""
        folder = Path(llama_cpp.__file__).parent / "lib"
        self.library = ctypes.CDLL(str(next(iter(sorted(folder.glob("*ggml-base*"))))))
        for name, kind in (
            ("ggml_get_name", ctypes.c_char_p),
            ("ggml_get_data", ctypes.c_void_p),
            ("ggml_op_name", ctypes.c_char_p),
        ):
            getattr(self.library, name).restype = kind
        self.library.ggml_get_name.argtypes = self.library.ggml_get_data.argtypes = [ctypes.c_void_p]
        self.library.ggml_op_name.argtypes = [ctypes.c_int]
        self._called = llama_cpp.ggml_backend_sched_eval_callback(self._see)
        self.context = LlamaContext(model, 1, length, "f16", "f16", threads, watch=self._called)

    def products(self, ids: Sequence[int]) -> list[Product]:
        """Every product of a weight, for ``ids`` read together from an empty cache."""
        self.found, self.trouble = [], ""
        self.context.clear()
        self.context.decode([(token, place, 0, True) for place, token in enumerate(ids)])
        if self.trouble:
            raise EngineError(f"{self.context.model.path}: llama.cpp's matrices cannot be looked at ({self.trouble})")
        return self.found

    def _see(self, address: int, ask: bool, _data: Any) -> bool:
        node = ctypes.cast(address, ctypes.POINTER(_Node)).contents
        if node.name != self.library.ggml_get_name(address) or node.data != self.library.ggml_get_data(address):
            self.trouble = "its graph has another layout than the one known here"
            return False
        kind = self.library.ggml_op_name(node.op)
        if kind not in (b"MUL_MAT", b"GET_ROWS") or not node.src[0].contents.name.endswith(b".weight"):
            return False
        if ask:
            return True
        weight, given = node.src[0].contents, node.src[1].contents
        self.found.append(
            Product(
                weight=weight.name.decode(),
                inputs=_numbers(given, INTEGERS if kind == b"GET_ROWS" else F32),
                outputs=_numbers(node, F32),
            )
        )
        return True


def _numbers(node: Any, kind: int) -> np.ndarray[Any, Any]:
    """The numbers of a contiguous node, [rows, columns], in their own memory."""
    if node.type != kind:
        raise EngineError(f"llama.cpp's '{node.name.decode()}' has the type {node.type}, expected {kind}")
    dtype = np.dtype(np.float32 if kind == F32 else np.int32)
    columns = int(node.ne[0])
    rows = int(node.ne[1]) * int(node.ne[2]) * int(node.ne[3])
    step = int(node.nb[1]) // dtype.itemsize
    pointer = ctypes.cast(node.data, ctypes.POINTER(ctypes.c_float if kind == F32 else ctypes.c_int32))
    flat = np.ctypeslib.as_array(pointer, shape=((rows - 1) * step + columns,))
    return np.stack([flat[at * step : at * step + columns] for at in range(rows)]).copy()
