"""A GGUF file put together from layers of others: their bytes as they stand, no weight quantized anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.errors import FormatError
from quantgate.models import OpenedModel
from quantgate.quantize.gguf.artifact import GgufArtifact
from quantgate.quantize.gguf.blocks import Bytes, encode
from quantgate.quantize.gguf.plan import plain_type, tensor_bytes
from quantgate.quantize.gguf.publish import vouch_for_file
from quantgate.quantize.gguf.write import layout_of, numbers_of, write_gguf
from quantgate.quantize.manifest import BASELINE, Fate, Note


def write_mixture(
    folder: Path,
    model: OpenedModel,
    sources: Mapping[str, GgufArtifact],
    choice: Mapping[str, str],
    fates: dict[str, Fate],
    name: str,
    ledger: tuple[Note, ...],
    **facts: Any,
) -> None:
    """Fill ``folder`` with ``name``.gguf. Every linear layer comes from the source that ``choice`` names, or is the
    model's own; all other tensors from the source that lends most. ``fates`` of the linear layers are given, and those
    of the others added.

    Raises FormatError when the sources hold other tensors than the model has in GGUF, DiskFull.
    """
    layout = layout_of(model)
    lending = sources[Counter(one for one in choice.values() if one != BASELINE).most_common(1)[0][0]]
    origin = layout.sources

    def lender(file_name: str) -> GgufArtifact | None:
        layer = origin.get(file_name, "").removesuffix(".weight")
        return sources.get(choice[layer]) if layer in choice else lending

    types = {}
    for file_name in layout.shapes:
        source = lender(file_name)
        if source is None:
            types[file_name] = plain_type(model, origin[file_name])
            continue
        if file_name not in source.tensors.file.tensors:
            raise FormatError(f"mix: {source.name} has no tensor '{file_name}', which {model.ref} has; leave it out")
        types[file_name] = source.tensors.file.tensors[file_name].type

    def blocks(file_name: str) -> Bytes:
        source = lender(file_name)
        if source is not None:
            return source.tensors.file.rows(file_name)
        return encode(numbers_of(model, layout, file_name), types[file_name])

    write_gguf(folder / f"{name}.gguf", layout, types, blocks)
    others = {fate.name: fate for fate in lending.manifest.fates}
    for tensor in model.files.entries:
        layer = tensor.removesuffix(".weight")
        if layer in choice:
            kind = types[layout.places[tensor].name]
            size = tensor_bytes(layout.shapes[layout.places[tensor].name], kind)
            fates[layer] = fates[layer].model_copy(update={"bytes": size, "tensors": (tensor,)})
            if fates[layer].asked == "keep":
                fates[layer] = fates[layer].model_copy(update={"got": kind.name.lower()})
        else:
            fates[layer] = others[layer]
    size = sum(tensor_bytes(shape, types[one]) for one, shape in layout.shapes.items())
    vouch_for_file(folder, model, layout, fates, tensor_bytes=size, name=name, ledger=ledger, **facts)
