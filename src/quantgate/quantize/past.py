"""What one walk takes over from earlier ones: a fine-tune of the same base is solved from its first changed block on.

A finished block follows from what the first block was given, the tensors of all blocks up to it, the configuration,
the recipes that were solved together, the program and the machine. The digest of all that is its key in a folder of
finished work (``kept``), whatever model it is met in again: the bytes are those that solving it once more would give.
A model whose last third was trained takes two thirds; one with new embeddings of tokens that the calibration set does
not hold, or with another output layer, takes every block.

Half of a sweep is running the blocks forward (decision 0042), so what some blocks gave is kept as well, as often as a
quarter of the folder's limit has room for it: the walk then begins at the last of these before the first new block.

Without a calibration set a block follows from its own tensors alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quantgate.errors import DiskFull
from quantgate.quantize.journal import Journal
from quantgate.quantize.kept import Kept
from quantgate.quantize.manifest import tool_version
from quantgate.quantize.outside import Outside
from quantgate.quantize.plan import Variant
from quantgate.quantize.reuse import Reuse
from quantgate.quantize.shards import write_tensors
from quantgate.records import digest_of

if TYPE_CHECKING:
    from quantgate.models.walker import Walker
    from quantgate.quantize.sweep import Sweep

STATES = "states.safetensors"
SHARE = 4  # of the limit, this part at most for what blocks gave
ROOMS = ("formats", "models", "quantize")  # the code that makes the bytes
NAMES = (  # of a configuration: what computes nothing inside the blocks, and differs between fine-tunes
    "_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "id2label", "label2id", "torch_dtype",
    "transformers_version", "use_cache", "vocab_size",
)  # fmt: skip


@dataclass
class Past:
    """Earlier work as one walk sees it."""

    reuse: Reuse
    run: Sweep
    variants: list[Variant]
    outside: Outside
    _keys: list[str] = field(default_factory=list)  # of block after block, then of what is behind them
    _states: list[str] = field(default_factory=list)  # of what stands in front of block after block, then behind them
    _stops: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.kept = Kept(self.reuse.folder.expanduser(), self.reuse.limit)
        self.kept.open()

    def bring(self, journal: Journal, open_steps: Sequence[int], hidden: list[Tensor]) -> list[int]:
        """Put finished steps into the journal; the steps that are still open. ``hidden``: what block 0 is given."""
        names = [variant.name for variant in self.variants]
        self._name(hidden)
        self._stops = self._worth_keeping(hidden)
        left = list[int]()
        for step in open_steps:
            journal.begin(step)
            if self.kept.take(self._keys[step], journal.place(step)):
                journal.finish(step, names)
                self.reuse.taken += step < self.run.model.depth
            else:
                left.append(step)
        self.reuse.blocks += sum(step < self.run.model.depth for step in open_steps)
        self.reuse.problem = self.kept.problem
        return left

    def begin(self, open_steps: Sequence[int], hidden: list[Tensor]) -> int:
        """Where the walk begins, at the first open block at the latest; ``hidden`` becomes what that block is given."""
        if not hidden:
            return 0
        if not self.outside.walked(open_steps):
            self.reuse.skipped += self.run.model.depth
            return 0
        for block in range(min(open_steps), 0, -1):
            if self.kept.has(self._states[block]) and (found := self._states_at(block)):
                hidden[:] = found
                self.reuse.skipped += block
                return block
        return 0

    def keep(self, journal: Journal, step: int, hidden: list[Tensor], *, solved: bool) -> None:
        """Keep what a step became, if it was made now, and what it gave, where that is worth its bytes."""
        if solved:
            self.kept.put(self._keys[step], journal.files(step, [variant.name for variant in self.variants]))
        state = self._states[step + 1] if step + 1 in self._stops else ""
        if state and not self.kept.has(state) and self.kept.room(sum(one.nbytes for one in hidden)):
            with contextlib.suppress(OSError, DiskFull), self.kept.aside() as folder:
                write_tensors(folder / STATES, {f"{at:06d}": one for at, one in enumerate(hidden)})
                self.kept.put(state, [folder / STATES])
        self.reuse.problem = self.kept.problem

    def _states_at(self, block: int) -> list[Tensor]:
        """What the block is given, batch by batch; [] when that cannot be read."""
        from safetensors.torch import load_file

        with contextlib.suppress(OSError), self.kept.aside() as folder:
            if self.kept.take(self._states[block], folder):
                held = load_file(folder / STATES)
                return [held[name] for name in sorted(held)]
        return []

    def _name(self, hidden: list[Tensor]) -> None:
        run, model = self.run, self.run.model
        walker, asked = model.walker, [_asked(variant) for variant in self.variants]
        base = [_program(), _machine(run.device), run.seed, _settings(model.config)]
        given = [[list(batch.ids.shape), batch.real.sum(dim=1).tolist()] for batch in run.batches]
        chain = digest_of([*base, given, _digest(hidden)])
        self._states, self._keys = [chain], []
        for block in range(model.depth):
            own = self._tensors(_names(walker, block))
            chain = digest_of([chain, own]) if hidden else digest_of([*base, own])
            self._states.append(chain)
            self._keys.append(digest_of([chain, block, asked]))
        self._keys.append(digest_of([chain, "outside", asked, self._tensors(sorted(model.files.entries))]))

    def _tensors(self, names: Iterable[str]) -> list[Any]:
        model = self.run.model
        entries = [(name, model.files.entry(name), model.tensor_digests[name]) for name in names]
        return [[name, entry.dtype, list(entry.shape), digest] for name, entry, digest in entries]

    def _worth_keeping(self, hidden: list[Tensor]) -> frozenset[int]:
        """Before which blocks (or behind the last) what they are given is kept: evenly spread, as many as have room."""
        depth, size = self.run.model.depth, sum(one.nbytes for one in hidden)
        last = depth if self.outside.measured else depth - 1
        room = self.reuse.limit // SHARE // size if size else 0
        if room >= last:
            return frozenset(range(1, last + 1))
        return frozenset(round(part * depth / (room + 1)) for part in range(1, room + 1))


def _names(walker: Walker, block: int) -> list[str]:
    """The tensors of a block, as the checkpoint calls them."""
    prefix = walker.prefix(block)
    return sorted({walker.anatomy.stored[prefix + name] for name in walker.layers[block].state_dict()})


def _asked(variant: Variant) -> list[Any]:
    """Everything about a variant that can reach the bytes of a block."""
    schemes = sorted((layer, repr(scheme)) for layer, scheme in variant.schemes.items())
    return [
        variant.name, variant.recipe.body(), variant.method_name, variant.options.body(), variant.experts.body(),
        sorted(variant.kept), schemes, repr(variant.ends),
    ]  # fmt: skip


def _settings(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in NAMES}


@cache
def _program() -> list[str]:
    """Versions, and a digest of the code that makes the bytes: a changed line is another program."""
    import transformers

    found, root = hashlib.sha256(), Path(__file__).parents[1]
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            found.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return [tool_version(), torch.__version__, transformers.__version__, found.hexdigest()]


def _machine(device: torch.device) -> list[Any]:
    """What the last bit of a sum depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return [device.type, name, torch.get_num_threads(), torch.get_float32_matmul_precision()]


@cache
def _processor() -> str:
    """The processor's name where Linux tells it, and its widest instructions."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{named or platform.processor()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _digest(tensors: Iterable[Tensor]) -> str:
    found = hashlib.sha256()
    for one in tensors:
        found.update(one.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()
