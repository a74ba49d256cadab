"""Write a model folder as one GGUF file: metadata, tokenizer, and its tensors in the types of a preset.

The file is written aside and renamed, one tensor in memory at a time.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from quantgate.errors import ArtifactError, FormatError
from quantgate.models import OpenedModel
from quantgate.models.tensors import TensorFiles
from quantgate.quantize.gguf import presets
from quantgate.quantize.gguf.blocks import Bytes, Encode, encode, package
from quantgate.quantize.gguf.metadata import Kind, Metadata, describe
from quantgate.quantize.gguf.names import Place, places, stored
from quantgate.quantize.gguf.read import GgufFile, open_gguf
from quantgate.quantize.gguf.types import TYPES, BlockType
from quantgate.quantize.gguf.vocabulary import vocabulary
from quantgate.quantize.manifest import tool_version
from quantgate.records import disk_errors

QUANTIZATION_VERSION = 2  # of the block layouts


@dataclass(frozen=True)
class Layout:
    """A model as a file: where each tensor of the checkpoint goes, and everything that is no weight."""

    architecture: str
    metadata: Metadata
    places: dict[str, Place]  # by the checkpoint's name
    shapes: dict[str, tuple[int, ...]]  # by the file's name, as torch writes them
    extra: dict[str, Any]  # tensors that no checkpoint holds, float32, by the file's name
    shape: presets.Shape
    notes: tuple[str, ...]  # what the file cannot say

    @property
    def sources(self) -> dict[str, str]:
        """The checkpoint's name of every tensor, by the file's."""
        return {place.name: tensor for tensor, place in self.places.items()}


def layout_of(model: OpenedModel, name: str = "") -> Layout:
    """How ``model`` is told in GGUF; ``name`` is its general.name, its folder's unless given.

    Raises ModelError for an architecture, a tensor or a tokenizer that llama.cpp would treat otherwise.
    """
    config, name = model.config, name or model.path.resolve().name
    described = describe(config, str(model.path))
    entries = model.files.entries
    wanted = [one for one in entries if not (one == "lm_head.weight" and config.tie_word_embeddings)]
    found = places(config, sorted(wanted), str(model.path))
    words = vocabulary(model, name)
    shapes = {place.name: entries[one].shape for one, place in found.items()}
    shapes |= {one: tuple(tensor.shape) for one, tensor in described.extra.items()}
    metadata: Metadata = {
        "general.type": ("string", "model"),
        "general.name": ("string", name),
        "general.quantized_by": ("string", tool_version()),
        "general.quantization_version": ("uint32", QUANTIZATION_VERSION),
        **described.metadata,
        **words.metadata,
    }
    heads = int(config.num_attention_heads)
    shape = presets.Shape(described.architecture, model.depth, heads, int(config.num_key_value_heads or heads))
    return Layout(described.architecture, metadata, found, shapes, described.extra, shape, words.notes)


def make_gguf(
    model: OpenedModel,
    path: Path | str,
    preset: str = "Q4_K_M",
    *,
    quantize: Encode = encode,
    importance: Mapping[str, Any] | None = None,
    types: Mapping[str, BlockType] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GgufFile:
    """Write ``model`` to the file ``path`` in a preset's types, or in ``types`` (by the file's tensor names).

    ``quantize`` turns numbers into blocks; ``importance`` holds float32 [columns] for layers by the checkpoint's names.
    Raises ModelError for a model that GGUF cannot tell, UnknownName, MissingExtra, DiskFull.
    """
    layout = layout_of(model)
    chosen = dict(types) if types is not None else presets.types_of(preset, layout.shapes, layout.shape)
    number = presets.FILE_TYPES[preset][0] if types is None else None

    def blocks(name: str) -> Bytes:
        weights = (importance or {}).get(layout.sources.get(name, "").removesuffix(".weight"))
        return quantize(numbers_of(model, layout, name), chosen[name], weights)

    return write_gguf(Path(path), layout, chosen, blocks, file_type=number, progress=progress)


def numbers_of(model: OpenedModel, layout: Layout, name: str, instead: TensorFiles | None = None) -> Tensor:
    """The model's numbers of the tensor that a file calls ``name``, float32 [rows, columns] as the file has them.

    ``instead``: where the tensor lies, by the model's name for it, if not in the model.
    """
    if name in layout.extra:
        return layout.extra[name].reshape(1, -1)  # type: ignore[no-any-return]
    tensor = layout.sources[name]
    numbers = stored(layout.places[tensor], lambda: (instead or model.files).read(tensor))
    return numbers.reshape(-1, numbers.shape[-1])


def write_gguf(
    path: Path,
    layout: Layout,
    types: Mapping[str, BlockType],
    blocks: Callable[[str], Bytes],
    *,
    file_type: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GgufFile:
    """Write a file of ``layout`` whose tensors have ``types``; ``blocks`` gives one tensor's bytes, uint8.

    Raises FormatError when a tensor has no type or other bytes than its type asks for, DiskFull with nothing kept.
    """
    for name, shape in layout.shapes.items():
        if name not in types:
            raise FormatError(f"{path}: no type for the tensor '{name}'; give it one of {', '.join(TYPES)}")
        if shape[-1] % types[name].block:
            raise FormatError(
                f"{path}: '{name}' has rows of {shape[-1]}, which do not divide into {types[name].name}'s blocks of "
                f"{types[name].block}; choose a type with smaller blocks"
            )
    with _aside(path) as aside:
        writer = _writer(aside, layout, file_type)
        try:
            names = _write_header(writer, layout, types)
            for done, name in enumerate(names, start=1):
                made = blocks(name)
                _check(path, name, layout.shapes[name], types[name], made)
                writer.write_tensor_data(made.reshape(-1))
                if progress:
                    progress(done, len(names))
            writer.flush()
        finally:
            writer.close()
        open_gguf(aside)  # nothing gets its name before it can be read
    return open_gguf(path)


def config_json(model: OpenedModel) -> str:
    """What stands beside a file, so that its architecture can be built without the model."""
    return json.dumps(json.loads((model.path / "config.json").read_bytes()), indent=2, ensure_ascii=False) + "\n"


def header_bytes(layout: Layout, types: Mapping[str, BlockType]) -> int:
    """How long the file is before its first tensor, padding aside."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header.gguf"
        writer = _writer(path, layout, 0)
        try:
            _write_header(writer, layout, types)
        finally:
            writer.close()
        return path.stat().st_size


def _write_header(writer: Any, layout: Layout, types: Mapping[str, BlockType]) -> list[str]:
    """Everything before the tensors; their names in the order in which they follow."""
    names = _in_order(layout.shapes)
    for name in names:
        shape, kind = layout.shapes[name], types[name]
        size = kind.row_bytes(shape[-1]) * (int(np.prod(shape[:-1])) if len(shape) > 1 else 1)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind.id)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return names


def _check(path: Path, name: str, shape: tuple[int, ...], kind: BlockType, made: Bytes) -> None:
    rows = int(np.prod(shape[:-1])) if len(shape) > 1 else 1
    wanted = rows * kind.row_bytes(shape[-1])
    if made.dtype != np.uint8 or made.size != wanted:
        raise FormatError(
            f"{path}: '{name}' {list(shape)} is {wanted} bytes in {kind.name}, and {made.size} of {made.dtype} came; "
            "the quantizer does not fit the type"
        )


def _in_order(shapes: Mapping[str, Any]) -> list[str]:
    """The order in which a runtime reads: what stands around the blocks, then block after block."""

    def place(name: str) -> tuple[int, int, str]:
        parts = name.split(".")
        return (1, int(parts[1]), name) if parts[0] == "blk" else (0, 0, name)

    return sorted(shapes, key=place)


def _writer(path: Path, layout: Layout, file_type: int | None) -> Any:
    gguf = package()
    writer = gguf.GGUFWriter(path, layout.architecture)
    put: dict[Kind, Callable[[str, Any], None]] = {
        "uint32": writer.add_uint32, "float32": writer.add_float32, "bool": writer.add_bool,
        "string": writer.add_string, "strings": writer.add_array, "int32s": writer.add_array,
        "float32s": writer.add_array, "bools": writer.add_array,
    }  # fmt: skip
    for key, (kind, value) in layout.metadata.items():
        put[kind](key, value)
    if file_type is not None:
        writer.add_uint32("general.file_type", file_type)
    return writer


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A name to write under; the file takes its own when the block ends without an error."""
    if path.is_dir():
        raise ArtifactError(f"{path}: is a folder; name the file to write, such as model-Q4_K_M.gguf")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk_errors(path):
            yield aside
            with aside.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
