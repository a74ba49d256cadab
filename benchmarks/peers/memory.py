"""Memory: what a sweep holds beyond an opened model, at two depths, against one block and its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.peers.children import Bench, Made
from benchmarks.peers.entries import shown
from benchmarks.peers.inputs import Shape
from benchmarks.peers.tools.contract import Job
from benchmarks.tables import Table

GPTQ = Job("W4-g128", 4, 128, method="gptq")
OPEN = Job("open", 16, None, method="open")  # imports, and a model that is opened and left alone
COLUMNS = (
    "what",
    "blocks",
    "private memory",
    "beyond an opened model",
    "resident, files included",
    "ratio",
    "goal",
    "",
)
DEEPER = 1.1  # what the deep model takes beyond being opened, over the shallow one, at most


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
    Shape(hidden=768, layers=8, feed_forward=2048, heads=12, kv_heads=4, vocabulary=2048), (8, 32), rows=8, length=512
)
QUICK = MemorySizes(
    Shape(hidden=128, layers=2, feed_forward=256, heads=4, kv_heads=2, vocabulary=300), (2, 4), rows=4, length=64
)


def compare(bench: Bench, sizes: MemorySizes, peers: Sequence[str] = ("llmcompressor",)) -> Table:
    found = dict[tuple[str, int], Made]()
    for layers in sizes.depths:
        shape = replace(sizes.shape, layers=layers)
        model, ids = shape.saved(bench.cache).path, shape.ids(bench.cache, sizes.rows, sizes.length)
        place = f"{shape.name}-memory"
        found["open", layers] = bench.run("quantgate", model, ids, [OPEN], f"{place}-open")[OPEN.name]
        for tool in ("quantgate", *peers):
            found[tool, layers] = bench.run(tool, model, ids, [GPTQ], place)[GPTQ.name]
    about = (
        f"One GPTQ variant (W4 g128), hidden {sizes.shape.hidden}, {sizes.rows} rows of {sizes.length} tokens. One "
        f"block in float32, the Hessians of its inputs and all hidden states are {_mib(sizes.needed)}."
    )
    return Table(COLUMNS, tuple(rows_of(found, sizes, peers)), "Memory, random weights", (about,))


def rows_of(found: dict[tuple[str, int], Made], sizes: MemorySizes, peers: Sequence[str]) -> list[tuple[str, ...]]:
    """``found`` by tool and blocks; ``open`` is a process that opened the model and left it alone."""
    shallow, deep = sizes.depths
    rows = []
    for tool in ("quantgate", *peers):
        beyond = {layers: _beyond(found[tool, layers], found["open", layers]) for layers in sizes.depths}
        for layers in sizes.depths:
            told = _told(tool, beyond[shallow], beyond[deep], shallow) if layers == deep else ("", "", "")
            rows.append((shown(tool), str(layers), *_cells(found[tool, layers], beyond[layers]), *told))
    return rows


def _beyond(made: Made, opened: Made) -> int | None:
    """Private bytes over those of a process that only opened the model."""
    return None if made.failed or opened.failed else made.private_bytes - opened.private_bytes


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
