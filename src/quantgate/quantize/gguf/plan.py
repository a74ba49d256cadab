"""Which block format every tensor of a GGUF variant gets: by llama.cpp's own rules for its file types, or one for all.

    Q4_K_M, Q3_K_S, Q8_0 ...    a file type: values, down projections, output layer as ``presets`` says
    Q4_K, Q5_K, GGUF_MXFP4      no file type of llama.cpp: every linear layer alike, the output layer as in its kin

A kept layer, a norm and a bias stand in the file as plain numbers. Layers that share an input need not share a format:
llama.cpp does not fuse them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from quantgate.errors import FormatError, UsageError
from quantgate.formats import BlockGrid, Scheme, scheme
from quantgate.models import OpenedModel
from quantgate.quantize.ends import Ends
from quantgate.quantize.gguf.presets import EMBEDDINGS, FILE_TYPES, OUTPUT, narrowed, types_of
from quantgate.quantize.gguf.read import ALIGNMENT
from quantgate.quantize.gguf.types import TYPES, BlockType
from quantgate.quantize.gguf.write import Layout, config_json, header_bytes, layout_of
from quantgate.quantize.manifest import KEEP, Recipe

PLAIN = {"F32": "F32", "F16": "F16", "BF16": "BF16"}  # safetensors' words for what a file stores as it is
OF_BLOCKS = {"GGUF_MXFP4": "MXFP4"}  # schemes that bear another name than their blocks


@dataclass(frozen=True)
class FilePlan:
    """One GGUF file, before its first number."""

    layout: Layout
    types: dict[str, BlockType]  # of every tensor, by the file's names
    preset: str | None  # llama.cpp's name for it, if it has one
    schemes: dict[str, Scheme]  # of the quantized linear layers, by the model's names
    kept: dict[str, str]  # linear layers whose rows do not divide into blocks, and why
    ends: Ends

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor_bytes(shape, self.types[name]) for name, shape in self.layout.shapes.items())

    def stored(self, tensor: str) -> tuple[str, int]:
        """The type of a checkpoint's tensor in the file, and its bytes."""
        name = self.layout.places[tensor].name
        return self.types[name].name, tensor_bytes(self.layout.shapes[name], self.types[name])


def tensor_bytes(shape: tuple[int, ...], kind: BlockType) -> int:
    return kind.row_bytes(shape[-1]) * prod(shape[:-1])


def file_plan(model: OpenedModel, recipe: Recipe, kept: Mapping[str, str], where: str, *, calibrated: bool) -> FilePlan:
    """The file of ``recipe``, whose scheme is one of blocks; ``kept``: linear layers that stay, with the reason.

    Raises ModelError for a model that GGUF cannot tell, UsageError and FormatError for what a file cannot have.
    """
    if recipe.untie:
        raise UsageError(f"{where}: untie: a GGUF file of a tied model has one table for both ends; leave untie out")
    if recipe.rotation:
        raise FormatError(f"{where}: embeddings in blocks are not turned with the stream; leave out rotation")
    if model.config.tie_word_embeddings and not model.tied:
        raise UsageError(
            f"{where}: {model.ref} says tie_word_embeddings and stores {model.walker.head} as well, so its readers "
            "differ in which they take; set tie_word_embeddings to what is meant, or delete that tensor"
        )
    layout = layout_of(model)
    label = scheme(recipe.scheme).name
    shape = replace(layout.shape, importance=calibrated)
    if label in FILE_TYPES:
        preset, types = label, types_of(label, layout.shapes, shape)
    else:
        preset, types = None, types_of(label, layout.shapes, shape, usual=OF_BLOCKS.get(label, label))
    schemes, left = dict[str, Scheme](), dict[str, str]()
    layers = [layer for block in range(model.depth) for group in model.linears(block) for layer in group]
    for layer in layers:
        tensor = f"{layer}.weight"
        name, plain = layout.places[tensor].name, plain_type(model, tensor)
        if layer in kept:
            types[name] = plain
        elif not types[name].quantized:
            columns = layout.shapes[name][-1]
            left[layer] = f"its rows of {columns} numbers divide into no blocks"
            types[name] = plain
        else:
            schemes[layer] = of_blocks(types[name].name)
    if not schemes:
        raise FormatError(
            f"{where}: no layer of {model.ref} has rows that divide into blocks of 32; choose another scheme, W4A16-g16"
        )
    ends = _ends(model, recipe, layout, types, where)
    return FilePlan(layout, types, preset, schemes, left, ends)


def bytes_around(model: OpenedModel, plan: FilePlan, groups: Sequence[Sequence[str]]) -> int:
    """Bytes of the artifact beside the linear layers of ``groups``: the file's header, other tensors, config.json."""
    inside = {plan.layout.places[f"{layer}.weight"].name for group in groups for layer in group}
    others = [name for name in plan.layout.shapes if name not in inside]
    padded = sum(tensor_bytes(plan.layout.shapes[name], plan.types[name]) + ALIGNMENT for name in others)
    return header_bytes(plan.layout, plan.types) + ALIGNMENT + padded + len(config_json(model).encode())


def of_blocks(name: str) -> Scheme:
    """The scheme of one block format.

    >>> of_blocks("MXFP4").label
    'GGUF_MXFP4'
    """
    return scheme(next((label for label, blocks in OF_BLOCKS.items() if blocks == name), name))


def plain_type(model: OpenedModel, tensor: str) -> BlockType:
    """The type of a weight that is stored as the model has it."""
    return TYPES[PLAIN.get(model.files.entry(tensor).dtype, "F32")]


def _ends(model: OpenedModel, recipe: Recipe, layout: Layout, types: dict[str, BlockType], where: str) -> Ends:
    """The rule of the file type, unless the recipe names other blocks; ``types`` follow."""
    head, table = model.walker.head, model.walker.table
    asked = {"lm_head": recipe.lm_head, "embeddings": recipe.embeddings}
    named = {key: _asked(label, f"{where}, {key}") for key, label in asked.items() if label != KEEP}
    if model.tied:
        if len(set(named.values())) > 1:
            raise UsageError(f"{where}: {model.ref} is tied, so lm_head and embeddings must be the same; name one")
        places = {EMBEDDINGS: next(iter(named.values()), None)}
    else:
        places = {EMBEDDINGS: named.get("embeddings"), OUTPUT: named.get("lm_head")}
    found = dict[str, Scheme | None]()
    for name, wanted in places.items():
        if wanted is not None:
            columns = layout.shapes[name][-1]
            types[name] = TYPES[narrowed(wanted, columns)]  # as llama.cpp does it in a file type
            if not types[name].quantized:
                end = "embeddings" if name == EMBEDDINGS else "output layer"
                raise FormatError(
                    f"{where}: the rows of {columns} numbers of the {end} divide into no blocks; leave {wanted} out"
                )
        if not types[name].quantized:
            tensor = next(one for one, place in layout.places.items() if place.name == name)
            types[name] = plain_type(model, tensor)
        found[name] = of_blocks(types[name].name) if types[name].quantized else None
    both = found[EMBEDDINGS]
    return Ends(head, table, both if model.tied else found[OUTPUT], both, tied=model.tied)


def _asked(label: str, where: str) -> str:
    """The block format that a recipe names for an end."""
    grid = scheme(label, where=where).weights
    if not isinstance(grid, BlockGrid):
        raise FormatError(f"{where}: {label} is not a block format; a GGUF file takes Q6_K, Q8_0, Q4_K ...")
    return grid.name
