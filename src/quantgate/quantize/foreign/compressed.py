"""compressed-tensors as llm-compressor and AutoRound write it, mixed precision included (tensors: ``checkpoints/``).

A group of the config has targets: layer names, ``re:`` patterns, or the class ``Linear``. A layer takes the first
group that names it, then the first whose pattern fits, patterns in alphabetical order, then the class.
Source: compressed-tensors 0.20, utils/match.py ``match_targets``, quantization/lifecycle/apply.py, compressors/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from quantgate.errors import ArtifactError, FormatError
from quantgate.formats import FloatGrid, Fp4Grid, Grid, IntGrid
from quantgate.formats.pack import unpack, unpack_fp4
from quantgate.formats.size import words
from quantgate.models.tensors import TensorFiles
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.foreign.layers import FLOATS, LayerFormat, LayerTensors, check_pattern

PACKINGS = (
    "float-quantized", "int-quantized", "mxfp4-pack-quantized", "naive-quantized", "nvfp4-pack-quantized",
    "pack-quantized",
)  # fmt: skip
CODE_TYPES = ("I8", "F8_E4M3")


class Compressed:
    """``quant_method: compressed-tensors``."""

    container = "compressed_tensors"
    lists_kept = True

    def __init__(self, config: dict[str, Any], file: Path) -> None:
        self.file = file
        self.ignore = [str(one) for one in config.get("ignore") or []]
        for part in ("sparsity_config", "transform_config"):
            told = config.get(part) or {}
            if told and told.get("format") != "dense":
                raise ArtifactError(f"{file}: {part} is not empty, and quantgate runs neither; make it without")
        if config.get("quantization_status", "compressed") != "compressed":
            status = config["quantization_status"]
            raise ArtifactError(f"{file}: quantization_status is '{status}'; supported is compressed, save it so")
        groups = config.get("config_groups")
        if not isinstance(groups, Mapping) or not groups:
            raise ArtifactError(f"{file}: config_groups is missing or empty; expected one group of layers at least")
        self.targets: dict[str, LayerFormat] = {}
        for name, group in groups.items():
            self._add(str(name), group, str(config.get("format")))
        for pattern in [*self.targets, *self.ignore]:
            if pattern.startswith("re:"):
                check_pattern(pattern[3:], file)

    def _add(self, name: str, group: Any, whole: str) -> None:
        if not isinstance(group, Mapping) or not group.get("targets") or not group.get("weights"):
            raise ArtifactError(f"{self.file}: {name} has no targets or no weights; expected both in every group")
        if group.get("output_activations"):
            raise ArtifactError(
                f"{self.file}: {name} rounds outputs (output_activations), which quantgate does not run"
            )
        packing = str(group.get("format") or whole)
        if packing not in PACKINGS:
            raise ArtifactError(f"{self.file}: {name} has the format '{packing}'; supported are {', '.join(PACKINGS)}")
        asked = LayerFormat(packing, self._weights(name, group["weights"]), self._inputs(name, group))
        self._fits(name, asked)
        for target in group["targets"]:
            if self.targets.setdefault(str(target), asked) != asked:
                raise ArtifactError(f"{self.file}: two groups ask different formats of '{target}'; keep one of them")

    def _fits(self, name: str, asked: LayerFormat) -> None:
        fp4 = {"nvfp4-pack-quantized": "fp8", "mxfp4-pack-quantized": "e8m0"}.get(asked.packing)
        grid = asked.weights
        if isinstance(grid, Fp4Grid):
            fits = grid.scales == fp4
        elif isinstance(grid, FloatGrid):
            fits = asked.packing in ("float-quantized", "naive-quantized")
        else:
            fits = asked.packing in ("int-quantized", "naive-quantized", "pack-quantized")
        if not fits:
            raise ArtifactError(f"{self.file}: {name} has the format '{asked.packing}', which its weights contradict")

    def _weights(self, name: str, told: Mapping[str, Any]) -> Grid:
        return self._grid(f"{name}: weights", told, _strategy(told), told.get("group_size"))

    def _inputs(self, name: str, group: Mapping[str, Any]) -> Grid | None:
        told = group.get("input_activations")
        if not told:
            return None
        strategy, where = _strategy(told), f"{name}: input_activations"
        static = not told.get("dynamic")
        if not told.get("symmetric", True) or static != (strategy == "tensor"):
            when = "asymmetric" if not told.get("symmetric", True) else "static" if static else "dynamic"
            raise ArtifactError(
                f"{self.file}: {where}: {when} with strategy '{strategy}'; supported are symmetric ones, static per "
                "tensor or dynamic per token or group"
            )
        return self._grid(where, told, strategy, told.get("group_size"))

    def _grid(self, where: str, told: Mapping[str, Any], strategy: str, size: Any) -> Grid:
        """The grid of one ``QuantizationArgs``. Raises ArtifactError for numbers that nobody here has."""
        kind, bits = str(told.get("type", "int")), told.get("num_bits", 8)
        if strategy == "block":
            block = told.get("block_structure")
            if not isinstance(block, list) or len(set(block)) != 1:
                raise ArtifactError(f"{self.file}: {where}: blocks of {block}; supported are square ones")
            size = block[0]
        data: dict[str, Any] = {"strategy": strategy, "group_size": size if strategy in ("group", "block") else None}
        scales = str(told.get("scale_dtype") or "").removeprefix("torch.")
        try:
            if kind == "int":
                return IntGrid(bits=bits, symmetric=told.get("symmetric", True), **data)
            if kind == "float" and bits == 8 and scales != "uint8":
                return FloatGrid(**data)
            if kind == "float" and bits == 4 and strategy == "tensor_group" and size == 16:
                return Fp4Grid(group_size=16, scales="fp8")
            if kind == "float" and bits == 4 and strategy == "group" and size == 32:
                return Fp4Grid(group_size=32, scales="e8m0")
        except ValidationError as wrong:
            first = wrong.errors(include_url=False)[0]["msg"]
            raise ArtifactError(
                f"{self.file}: {where}: {kind}{bits}, strategy '{strategy}', group_size {size} ({first}); "
                "supported are int of 2 to 8 bits, fp8, NVFP4 and MXFP4"
            ) from None
        raise ArtifactError(
            f"{self.file}: {where}: {kind}{bits}, strategy '{strategy}', group_size {size}, scales "
            f"{scales or 'plain'}; supported are int of 2 to 8 bits, fp8, NVFP4 and MXFP4"
        )

    def asked(self, layer: str) -> LayerFormat | None:
        if any(_matches(layer, pattern) or pattern == "Linear" for pattern in self.ignore):
            return None
        for target in sorted(self.targets, key=lambda one: ("re:" in one, one)):
            if _matches(layer, target):
                return self.targets[target]
        return self.targets.get("Linear")

    def coded(self, layer: str, files: TensorFiles) -> bool:
        whole = files.entries.get(f"{layer}.weight")
        return f"{layer}.weight_packed" in files.entries or (whole is not None and whole.dtype in CODE_TYPES)

    def read(self, at: LayerTensors, shape: tuple[int, int], asked: LayerFormat) -> StoredLinear:
        """One layer [out, in]."""
        grid = asked.weights
        try:
            grid.check_shape(*shape, at.layer)
        except FormatError:
            size = grid.group_size
            raise at.refuse(f"its shape {list(shape)} does not divide into groups or blocks of {size}") from None
        given = _input_scale(at, asked.activations)
        if isinstance(grid, Fp4Grid):
            return _read_fp4(at, shape, grid, asked.activations, given)
        scales = _scales(at, grid, shape)
        if asked.packing == "pack-quantized":
            assert isinstance(grid, IntGrid)  # _fits
            codes = _packed(at, grid, shape)
        else:
            codes = at.take("weight", [CODE_TYPES[1 if isinstance(grid, FloatGrid) else 0]], shape)
        zeros = _zeros(at, grid, scales, packed=asked.packing == "pack-quantized")
        group_of = _groups(at, grid, shape[1])
        return StoredLinear(
            at.layer, codes, scales, zeros, grid, asked.activations, input_scale=given, group_of=group_of
        )


def _strategy(told: Mapping[str, Any]) -> str:
    """The strategy, which compressed-tensors may leave to be guessed from the group size."""
    size = told.get("group_size")
    usual = "tensor" if size is None else "channel" if size == -1 else "group"
    return str(told.get("strategy") or usual).lower()


def _matches(layer: str, target: str) -> bool:
    return re.match(target[3:], layer) is not None if target.startswith("re:") else target == layer


def _scales(at: LayerTensors, grid: Grid, shape: tuple[int, int]) -> Tensor:
    """Scales as the grid shapes them; one for all may be stored as [1], [1, 1] or a number without dimensions."""
    wanted = grid.scales_shape(*shape)
    if grid.strategy == "tensor":
        return at.take("weight_scale", FLOATS, (1,), (1, 1), ()).reshape(1)
    return at.take("weight_scale", FLOATS, wanted, *([wanted[:1]] if grid.strategy == "channel" else [])).reshape(
        wanted
    )


def _packed(at: LayerTensors, grid: IntGrid, shape: tuple[int, int]) -> Tensor:
    told = tuple(at.take("weight_shape", ["I64", "I32"], (2,)).tolist())
    if told != shape:
        raise at.refuse(f"weight_shape says {list(told)}, the baseline's layer is {list(shape)}; they do not belong")
    old = -(-shape[1] // (32 // grid.bits))
    entry = at.files.entries.get(f"{at.layer}.weight_packed")
    if entry and 32 % grid.bits and entry.shape == (shape[0], old) != (shape[0], words(shape[1], grid.bits)):
        raise at.refuse(
            f"{grid.bits}-bit codes with {32 // grid.bits} in a word, as compressed-tensors packed before it packed "
            "densely; supported is the dense packing, save it again with compressed-tensors 0.20"
        )
    return unpack(at.take("weight_packed", ["I32"], (shape[0], words(shape[1], grid.bits))), grid.bits, shape)


def _zeros(at: LayerTensors, grid: Grid, scales: Tensor, *, packed: bool) -> Tensor | None:
    """Zero points like ``scales``; a symmetric layer may store some that are all 0."""
    leaf = "weight_zero_point"
    if grid.symmetric:
        entry = at.files.entries.get(f"{at.layer}.{leaf}")
        if entry and at.take(leaf, [entry.dtype], entry.shape).float().any():
            raise at.refuse("the config says symmetric, and weight_zero_point is not all 0; runtimes would disagree")
        return None
    assert isinstance(grid, IntGrid)  # float grids are symmetric
    if packed and grid.strategy != "tensor":
        rows = words(scales.shape[0], grid.bits)
        return unpack(
            at.take(leaf, ["I32"], (rows, scales.shape[1])), grid.bits, (scales.shape[0], scales.shape[1]), dim=0
        )
    return at.take(leaf, ["I8"], tuple(scales.shape))


def _groups(at: LayerTensors, grid: Grid, columns: int) -> Tensor | None:
    """int64 [in]: the group of each column, which llm-compressor stored for actorder "group"; None: side by side."""
    if not at.has("weight_g_idx"):
        return None
    found = at.take("weight_g_idx", ["I32", "I64"], (columns,)).long()
    if bool((found == -1).all()):  # never filled in
        return None
    size = grid.group_size or columns
    plain = torch.arange(columns) // size
    low, high = int(found.min()), int(found.max())
    if low < 0 or high > int(plain[-1]) or not torch.equal(torch.bincount(found), torch.bincount(plain)):
        raise at.refuse(
            f"weight_g_idx names the groups {low} to {high}; expected {int(plain[-1]) + 1} of {size} columns each"
        )
    return None if torch.equal(found, plain) else found


def _input_scale(at: LayerTensors, activations: Grid | None) -> Tensor | None:
    """[1]: the number from the calibration set that the rounding of inputs needs, if it needs one."""
    if isinstance(activations, Fp4Grid):
        return _positive(at, "input_global_scale") if activations.scales == "fp8" else None
    if activations is None or activations.strategy != "tensor":
        return None
    entry = at.files.entries.get(f"{at.layer}.input_zero_point")
    if entry and at.take("input_zero_point", [entry.dtype], entry.shape).float().any():
        raise at.refuse("the config says symmetric, and input_zero_point is not 0; runtimes would disagree")
    return _positive(at, "input_scale", FLOATS)


def _positive(at: LayerTensors, leaf: str, types: tuple[str, ...] = ("F32",)) -> Tensor:
    found = at.take(leaf, types, (1,), ()).reshape(1)
    if not float(found) > 0:
        raise at.refuse(f"{leaf} is {float(found):g}, expected a number above 0; calibrate it again")
    return found


def _read_fp4(
    at: LayerTensors, shape: tuple[int, int], grid: Fp4Grid, activations: Grid | None, given: Tensor | None
) -> StoredLinear:
    out, columns = shape
    codes = unpack_fp4(at.take("weight_packed", ["U8"], (out, columns // 2)))
    groups = grid.scales_shape(out, columns)
    if grid.scales == "e8m0":
        stored = at.take("weight_scale", ["U8"], groups)
        if int(stored.max()) == 255:
            raise at.refuse("weight_scale holds 255, which is no power of two; the file is damaged")
        scales = torch.ldexp(torch.ones(stored.shape), stored.int() - 127)
        return StoredLinear(at.layer, codes, scales, None, grid, activations)
    shared = _positive(at, "weight_global_scale")
    scales = at.take("weight_scale", ["F8_E4M3"], groups).float() / shared
    return StoredLinear(at.layer, codes, scales, None, grid, activations, global_scale=float(shared), input_scale=given)
