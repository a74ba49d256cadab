"""Shapes that a kernel needs of every shard, and layers that a runtime runs as one: what goes wrong, one sentence each.

With tensor parallelism over ``tp`` devices, a layer [out, in] is split along its outputs, and one that reads a split
input (attention output, down projection) along its inputs.
Sources: vLLM's marlin_utils (min_thread_n 64, min_thread_k 128, groups -1, 32, 64, 128) and its issues 9913, 13640,
17604 and 1258; compressed-tensors' and vLLM's fused layers, vLLM issue 47473 and PR 47445, sglang issue 33245.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quantgate.formats import Scheme
from quantgate.formats.grids import Fp4Grid, IntGrid

SPLIT_INPUTS = ("o_proj", "out_proj", "down_proj", "dense", "dense_4h_to_h", "fc2", "w2", "wo")
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
MARLIN_GROUPS = (32, 64, 128)
MARLIN_OUT, MARLIN_IN = 64, 128


@dataclass(frozen=True)
class Layer:
    """A linear layer [out, columns] of a variant; ``scheme`` is what it is stored as, BF16 where it is kept."""

    name: str
    out: int
    columns: int
    scheme: str

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    def shard(self, tp: int) -> tuple[float, float]:
        """[out, in] of one device."""
        if self.leaf in SPLIT_INPUTS:
            return self.out, self.columns / tp
        return self.out / tp, self.columns


@dataclass(frozen=True)
class Geometry:
    """What a runtime looks at before it takes a variant."""

    layers: tuple[Layer, ...]
    heads: int
    key_heads: int
    experts: bool = False


def check_parallel(shapes: Geometry, tp: int) -> Iterator[str]:
    """Whether heads can be dealt out to ``tp`` devices."""
    if shapes.heads % tp:
        yield f"{shapes.heads} attention heads do not divide among {tp} devices; choose another tensor_parallel"
    if shapes.key_heads % tp and tp % shapes.key_heads:
        yield f"{shapes.key_heads} key heads can be neither dealt out nor repeated on {tp} devices; choose others"


def check_marlin(scheme: Scheme, shapes: Geometry, tp: int) -> Iterator[str]:
    grid = scheme.weights
    group = None if grid is None else grid.group_size
    if group is not None and group not in MARLIN_GROUPS:
        known = ", ".join(map(str, MARLIN_GROUPS))
        yield f"Marlin has kernels for groups of {known} and for whole rows, not of {group}; choose one of them"
    stacked = Geometry(tuple(_stacked(shapes.layers)), shapes.heads, shapes.key_heads, shapes.experts)
    yield from _each(stacked, scheme, lambda out, columns: _marlin_shard(out, columns, group), tp, "Marlin")


def check_groups(scheme: Scheme, shapes: Geometry, tp: int) -> Iterator[str]:
    group = None if scheme.weights is None else scheme.weights.group_size
    yield from _each(shapes, scheme, lambda out, columns: _whole(columns, group, "inputs", "group"), tp, "the kernel")


def check_fp8_block(scheme: Scheme, shapes: Geometry, tp: int) -> Iterator[str]:
    grid = scheme.weights
    if grid is None or grid.strategy != "block":
        return
    size = grid.group_size

    def shard(out: float, columns: float) -> str:
        return _whole(out, size, "outputs", "block") or _whole(columns, size, "inputs", "block")

    yield from _each(shapes, scheme, shard, tp, "block fp8")


def check_fp4(scheme: Scheme, shapes: Geometry, tp: int) -> Iterator[str]:
    group = scheme.weights.group_size if isinstance(scheme.weights, Fp4Grid) else None
    yield from _each(shapes, scheme, lambda out, columns: _whole(columns, group, "inputs", "group"), tp, "fp4")


def check_fused(scheme: Scheme, shapes: Geometry, tp: int) -> Iterator[str]:
    """Layers that a runtime stacks into one matrix have one scheme, or are all kept."""
    by_parent: dict[str, dict[str, Layer]] = {}
    for layer in shapes.layers:
        by_parent.setdefault(layer.name.rpartition(".")[0], {})[layer.leaf] = layer
    mixed = len({layer.scheme for layer in shapes.layers}) > 1
    for parent, leaves in by_parent.items():
        for fused in FUSED:
            found = [leaves[leaf] for leaf in fused if leaf in leaves]
            kinds = {layer.scheme for layer in found}
            if len(kinds) > 1:
                told = ", ".join(f"{layer.leaf} {layer.scheme}" for layer in found)
                yield (
                    f"{parent}: {told} run as one matrix and must have one scheme; vLLM refuses it, SGLang loads it "
                    "and answers garbage (sgl-project/sglang issue 33245); give them one scheme, or keep all of them"
                )
                return
            if mixed and fused[0] == "q_proj" and len(found) == 2:
                missing = next(leaf for leaf in fused if leaf not in leaves)
                yield (
                    f"{parent}: has no {missing}, and layers of several schemes beside such attention do not load "
                    "(vllm-project/vllm issue 47473); give all layers one scheme"
                )
                return


def check_torch_int4(scheme: Scheme, shapes: Geometry, tp: int) -> Iterator[str]:
    grid = scheme.weights
    assert isinstance(grid, IntGrid)  # rows with this rule name integer schemes alone

    def shard(out: float, columns: float) -> str:
        group = grid.group_size or int(columns)
        if group % 32:
            return f"groups of {group} are no multiple of 32"
        return _whole(out, 16, "outputs", "tile")

    yield from _each(shapes, scheme, shard, tp, "_weight_int4pack_mm_for_cpu")


def check_torch_int8(scheme: Scheme, shapes: Geometry, tp: int) -> Iterator[str]:
    grid = scheme.weights
    if grid is not None and grid.strategy != "channel":
        yield "_weight_int8pack_mm takes one scale per output channel"
    yield from _each(shapes, scheme, lambda out, columns: _whole(columns, 16, "inputs", "tile"), tp, "int8pack")


Check = Callable[[Scheme, Geometry, int], Iterator[str]]
CHECKS: dict[str, Check] = {
    "marlin": check_marlin,
    "groups": check_groups,
    "fused": check_fused,
    "fp8_block": check_fp8_block,
    "fp4": check_fp4,
    "torch_int4": check_torch_int4,
    "torch_int8": check_torch_int8,
}


def _stacked(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Layers of one scheme that run as one matrix, as that matrix: its outputs are theirs together."""
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        parent = layer.name.rpartition(".")[0]
        fused = next((one for one in FUSED if layer.leaf in one), ())
        found = [by_name[f"{parent}.{leaf}"] for leaf in fused if f"{parent}.{leaf}" in by_name]
        if len({one.scheme for one in found}) != 1:
            yield layer
        elif layer is found[0]:
            name = f"{parent}.{'+'.join(one.leaf for one in found)}"
            yield Layer(name, sum(one.out for one in found), layer.columns, layer.scheme)


def _marlin_shard(out: float, columns: float, group: int | None) -> str:
    return (
        _whole(out, MARLIN_OUT, "outputs", "tile")
        or _whole(columns, MARLIN_IN, "inputs", "tile")
        or _whole(columns, group, "inputs", "group")
    )


def _whole(number: float, size: int | None, what: str, of: str) -> str:
    if size is None or number % size == 0:
        return ""
    return f"{number:g} {what} do not divide into {of}s of {size}"


def _each(
    shapes: Geometry, scheme: Scheme, reason: Callable[[float, float], str], tp: int, kernel: str
) -> Iterator[str]:
    """One sentence for the first quantized layer that does not fit, with how many more there are."""
    bad = [(layer, told) for layer in _coded(shapes.layers, scheme) if (told := reason(*layer.shard(tp)))]
    if bad:
        layer, told = bad[0]
        leaves = sorted({one.leaf for one, _ in bad})
        shard = f"on each of {tp} devices {told}" if tp > 1 else told
        more = "choose a smaller group, fewer devices" if tp > 1 else "choose another group"
        yield (
            f"{layer.name} [{layer.out}, {layer.columns}]: {shard}, which {kernel} needs ({len(bad)} layers: "
            f"{', '.join(leaves)}); {more}, or keep {', '.join(leaves)}"
        )


def _coded(layers: Sequence[Layer], scheme: Scheme) -> list[Layer]:
    """Layers of ``scheme``; where none bears its name, as in files whose types vary, all that are quantized."""
    quantized = [layer for layer in layers if layer.scheme != "BF16" and scheme.weights is not None]
    return [layer for layer in quantized if layer.scheme == scheme.label] or quantized
