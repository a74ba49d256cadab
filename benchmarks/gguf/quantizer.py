"""llama.cpp's own quantizer, as its program ``llama-quantize`` calls it: a plain GGUF file in, one of blocks out.

As of llama-cpp-python 0.3.36 an importance matrix is handed over as an array of structures that ends with a name that
is NULL, and so are types by tensor; before, both were pointers to C++ containers that nothing but C++ could make.
Source: llama.cpp include/llama.h ``llama_model_quantize_params``, src/llama-quant.cpp ``llama_tensor_get_type``.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp
from torch import Tensor

from quantgate.engines._llama import KEEP, LOG
from quantgate.errors import ArtifactError, EngineError
from quantgate.quantize.gguf import FILE_TYPES, TYPES, BlockType, GgufFile, open_gguf
from quantgate.quantize.gguf.presets import EMBEDDINGS, OUTPUT


def quantize(
    source: Path,
    target: Path,
    types: Mapping[str, BlockType],
    importance: Mapping[str, Tensor] | None = None,
    *,
    threads: int = 1,
) -> GgufFile:
    """Write ``source``, a file in F32, F16 or BF16, as ``target`` with ``types``; both by the file's tensor names.

    ``importance``: float32 [columns], how much the squared error of a column counts. Raises EngineError when llama.cpp
    stops, ArtifactError when it took another type than the one asked for.
    """
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.nthread, settings.ftype = threads, _unlike(types)
    settings.token_embedding_type = types[EMBEDDINGS].id
    if OUTPUT in types:
        settings.output_tensor_type = types[OUTPUT].id
    settings.tt_overrides = _overrides(types)
    held = {name: weights.detach().float().contiguous() for name, weights in (importance or {}).items()}
    if held:
        settings.imatrix = _entries(held)
    llama_cpp.llama_log_set(KEEP, ctypes.c_void_p(0))
    LOG.clear()
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), settings):
        said = "".join(LOG).strip().rpartition("\n")[2]
        raise EngineError(f"{source}: llama.cpp's quantizer stopped ({said}); check the file with `quantgate inspect`")
    made = open_gguf(target)
    for name, kind in types.items():
        if made.tensors[name].type != kind:
            raise ArtifactError(
                f"{target}: llama.cpp stored '{name}' as {made.tensors[name].type.name}, asked for was {kind.name}; "
                "the file is no peer of equal size"
            )
    return made


def _unlike(types: Mapping[str, BlockType]) -> int:
    """A file type that no tensor asks for: versions differ in whether a type equal to the usual one counts as told."""
    taken = {kind.name for kind in types.values()}
    return next(number for number, usual in FILE_TYPES.values() if TYPES[usual].quantized and usual not in taken)


def _overrides(types: Mapping[str, BlockType]) -> Any:
    kind = llama_cpp.llama_model_tensor_override
    rows = [kind(f"^{re.escape(name)}$".encode(), one.id) for name, one in types.items()]
    return (kind * (len(rows) + 1))(*rows, kind(None, 0))


def _entries(importance: Mapping[str, Tensor]) -> Any:
    """Point into the tensors, which must outlive the call."""
    kind, floats = llama_cpp.llama_model_imatrix_data, ctypes.POINTER(ctypes.c_float)
    rows = [
        kind(name.encode(), ctypes.cast(ctypes.c_void_p(one.data_ptr()), floats), one.numel())
        for name, one in importance.items()
    ]
    return (kind * (len(rows) + 1))(*rows, kind(None, None, 0))
