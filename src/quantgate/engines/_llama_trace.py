"""What llama.cpp really computed: inputs and outputs of every matrix of a forward pass, and what its cache kept.

The scheduler calls back after each node of the graph; nodes whose first source is a weight of the file are copied out,
and so are the nodes that write keys and values into the cache, with what they were given.
The graph's nodes are read as C structures, whose layout is checked against the library's own accessors before use.
Source: ggml.h ``struct ggml_tensor``; ggml-backend.h ``ggml_backend_sched_eval_callback``.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from quantgate.engines import Kept, Product
from quantgate.engines._llama import LlamaContext, LlamaModel
from quantgate.errors import EngineError
from quantgate.quantize.gguf.types import BY_ID

F32, INTEGERS, LONGS = 0, 26, 27  # ggml's numbers of types
NUMPY: dict[int, tuple[type[np.generic], Any]] = {
    F32: (np.float32, ctypes.c_float), INTEGERS: (np.int32, ctypes.c_int32), LONGS: (np.int64, ctypes.c_int64)
}  # fmt: skip
CACHE = re.compile(rb"cache_[kv]_l\d+")
TURNS = re.compile(rb"attn_inp_[kv]_rot")
SAME = (b"VIEW", b"RESHAPE", b"PERMUTE", b"TRANSPOSE", b"CONT")  # nodes that hold what their source holds


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

    def __init__(self, model: LlamaModel, length: int, kv_cache: str, threads: int) -> None:
        self.found: list[Product] = []
        self.kept: list[Kept] = []
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
        self.context = LlamaContext(model, 1, length, kv_cache, kv_cache, threads, watch=self._called)

    def watch(self, ids: Sequence[int]) -> None:
        """Fill ``found`` and ``kept``, with ``ids`` read together from an empty cache."""
        self.found, self.kept, self.trouble = [], [], ""
        self.context.clear()
        self.context.decode([(token, place, 0, True) for place, token in enumerate(ids)])
        if self.trouble:
            raise EngineError(f"{self.context.model.path}: llama.cpp's matrices cannot be looked at ({self.trouble})")

    def _see(self, address: int, ask: bool, _data: Any) -> bool:
        try:
            return self._look(address, ask)
        except EngineError as problem:  # C has no exceptions: it is raised once the pass is over
            self.trouble = str(problem)
            return False

    def _look(self, address: int, ask: bool) -> bool:
        node = ctypes.cast(address, ctypes.POINTER(_Node)).contents
        if node.name != self.library.ggml_get_name(address) or node.data != self.library.ggml_get_data(address):
            self.trouble = "its graph has another layout than the one known here"
            return False
        kind = self.library.ggml_op_name(node.op)
        written = kind == b"SET_ROWS" and CACHE.match(node.name)
        used = kind in (b"MUL_MAT", b"GET_ROWS") and node.src[0].contents.name.endswith(b".weight")
        if ask or not (written or used):
            return bool(written or used)
        if written:
            self.kept.append(self._kept(node))
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

    def _kept(self, node: Any) -> Kept:
        """What a node wrote into the cache, and what of. A transposed cache has rows of one number: all are one row."""
        given, places = (_numbers(node.src[at].contents, kind) for at, kind in ((0, F32), (1, LONGS)))
        kind, step = BY_ID[int(node.type)], int(node.nb[1])
        size = kind.row_bytes(int(node.ne[0]))
        raw = np.ctypeslib.as_array(
            ctypes.cast(node.data, ctypes.POINTER(ctypes.c_uint8)), shape=(int(places.max()) * step + size,)
        )
        written = np.stack([raw[place * step : place * step + size] for place in places.flatten().tolist()])
        shape = (1, -1) if node.ne[0] == 1 else (len(written), -1)
        return Kept(
            name=node.name.decode().split(" ")[0],
            kind=kind.name,
            turned=self._turned(node.src[0]),
            given=given.reshape(shape),
            kept=written.reshape(shape),
        )

    def _turned(self, source: Any) -> int:
        """The width of the matrix that turned what a node holds, 0 where none did."""
        while self.library.ggml_op_name(source.contents.op) in SAME:
            source = source.contents.src[0]
        node = source.contents
        turned = self.library.ggml_op_name(node.op) == b"MUL_MAT" and TURNS.search(node.src[0].contents.name)
        return int(node.src[0].contents.ne[0]) if turned else 0


def _numbers(node: Any, kind: int) -> np.ndarray[Any, Any]:
    """The numbers of a contiguous node, [rows, columns], in their own memory."""
    if node.type != kind:
        raise EngineError(f"llama.cpp's '{node.name.decode()}' has the type {node.type}, expected {kind}")
    dtype, form = np.dtype(NUMPY[kind][0]), NUMPY[kind][1]
    columns = int(node.ne[0])
    rows = int(node.ne[1]) * int(node.ne[2]) * int(node.ne[3])
    step = int(node.nb[1]) // dtype.itemsize
    pointer = ctypes.cast(node.data, ctypes.POINTER(form))
    flat = np.ctypeslib.as_array(pointer, shape=((rows - 1) * step + columns,))
    return np.stack([flat[at * step : at * step + columns] for at in range(rows)]).copy()
