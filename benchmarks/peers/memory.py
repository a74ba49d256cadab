"""Memory: what a sweep holds beyond its imports, at two depths, against one block and its statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.peers.children import Bench, Made
from benchmarks.peers.entries import shown
from benchmarks.peers.inputs import Shape
from benchmarks.peers.tools.contract import IDLE, Job
from benchmarks.tables import Table

GPTQ = Job("W4-g128", 4, 128, method="gptq")
IMPORTS = Job("idle", 16, None, method=IDLE)
COLUMNS = (
    "what",
    "blocks",
    "private memory",
    "beyond its imports",
    "resident, files included",
    "ratio",
    "goal",
    "",
)
DEEPER = 1.1  # what the deep model takes beyond the imports, over the shallow one, at most


@dataclass(frozen=True)
class MemorySizes:
    shape: Shape
    depths: tuple[int, int]
    rows: int
    length: int

    @property
    def needed(self) -> int:
        """Bytes of one block in float32, of the Hessians of its four inputs, and of all tokens' hidden states."""
        s = self.shape
        key_value = s.hidden * s.kv_heads // s.heads
        block = 2 * s.hidden**2 + 2 * s.hidden * key_value + 3 * s.hidden * s.feed_forward
        hessians = 3 * s.hidden**2 + s.feed_forward**2
        return 4 * (block + hessians + self.rows * self.length * s.hidden)


FULL = MemorySizes(
    Shape(hidden=512, layers=8, feed_forward=1408, heads=8, kv_heads=4, vocabulary=2048), (8, 32), rows=8, length=512
)
QUICK = MemorySizes(
    Shape(hidden=128, layers=2, feed_forward=256, heads=4, kv_heads=2, vocabulary=300), (2, 4), rows=4, length=64
)


def compare(bench: Bench, sizes: MemorySizes, peers: Sequence[str] = ("llmcompressor",)) -> Table:
    made, idle = dict[tuple[str, int], Made](), dict[str, Made]()
    for layers in sizes.depths:
        shape = replace(sizes.shape, layers=layers)
        model, ids = shape.saved(bench.cache).path, shape.ids(bench.cache, sizes.rows, sizes.length)
        for tool in ("quantgate", *peers):
            if tool not in idle:
                idle[tool] = bench.run(tool, model, ids, [IMPORTS], f"{shape.name}-idle")[IMPORTS.name]
            made[tool, layers] = bench.run(tool, model, ids, [GPTQ], f"{shape.name}-memory")[GPTQ.name]
    about = (
        f"One GPTQ variant (W4 g128), hidden {sizes.shape.hidden}, {sizes.rows} rows of {sizes.length} tokens. One "
        f"block in float32, the Hessians of its inputs and all hidden states are {_mib(sizes.needed)}. Imports: the "
        "tool's process without any work; ours has opened the smaller model there, which reads no weights."
    )
    return Table(COLUMNS, tuple(rows_of(made, idle, sizes.depths)), "Memory, random weights", (about,))


def rows_of(
    made: Mapping[tuple[str, int], Made], idle: Mapping[str, Made], depths: tuple[int, int]
) -> list[tuple[str, ...]]:
    """``made`` by tool and blocks; ``idle`` a process of the tool that made nothing."""
    shallow, deep = depths
    rows = list[tuple[str, ...]]()
    for tool, nothing in idle.items():
        beyond = {layers: _beyond(made[tool, layers], nothing) for layers in depths}
        for layers in depths:
            told = _told(tool, beyond[shallow], beyond[deep], shallow) if layers == deep else ("", "", "")
            rows.append((shown(tool), str(layers), *_cells(made[tool, layers], beyond[layers]), *told))
    return rows


def _beyond(made: Made, idle: Made) -> int | None:
    return None if made.failed or idle.failed else made.private_bytes - idle.private_bytes


def _told(tool: str, shallow: int | None, deep: int | None, blocks: int) -> tuple[str, str, str]:
    goal = f"at most {DEEPER:g}x" if tool == "quantgate" else ""
    if shallow is None or deep is None or shallow <= 0:
        return "", goal, ""
    ratio = deep / shallow
    return f"{ratio:.2f}x of {blocks} blocks", goal, ("met" if ratio <= DEEPER else "missed") if goal else ""


def _cells(made: Made, beyond: int | None) -> tuple[str, str, str]:
    if made.failed:
        return f"none: {made.failed}", "", ""
    return _mib(made.private_bytes), "" if beyond is None else _mib(beyond), _mib(made.peak_bytes)


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
