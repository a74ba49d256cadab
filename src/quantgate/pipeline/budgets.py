"""What a mixture may take: bits per weight, bytes of the artifact, milliseconds of a token. Known before the sweep.

Every budget becomes a table [groups, sources and the model itself] of what each choice adds, and a number that the sum
must not pass. Bits and bytes follow from shapes; bytes of a file's header and of config.json are counted as if every
layer came from the source with the longest names, a few kilobytes too many at most. Milliseconds are measured on the
kernels of the engine that runs the variant.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.errors import UsageError
from quantgate.models import OpenedModel
from quantgate.pipeline.variants import Mixture
from quantgate.quantize.manifest import Recipe
from quantgate.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantgate.quantize.allocate import Allocation, Limit
    from quantgate.quantize.plan import Variant

    Floats = NDArray[np.float64]

ALIGNMENT = 32  # bytes up to which a tensor of a GGUF file is padded
HEADER = 150  # bytes of a tensor's line in a safetensors header, its name aside, at most
MOVED = 1e-3  # share by which the foreseen drift falls without a budget, from which on that budget has bound


class Budget(Record):
    """One budget of one mixture, and what became of it."""

    what: str  # bits, bytes, latency
    most: float  # as asked: bits per weight, bytes of the artifact, milliseconds
    used: float
    bound: bool  # without it, another mixture would drift less


class Budgeted(Record):
    """One mixture."""

    name: str
    budgets: tuple[Budget, ...]


class Timing(Record):
    """What one layer takes for one token."""

    shape: tuple[int, int]  # out, in
    source: str
    microseconds: float


class Budgets(Record):
    """``budgets.json`` beside the artifacts of a run with scheme auto."""

    mixtures: tuple[Budgeted, ...]
    timings: tuple[Timing, ...]  # none where no mixture has a budget of latency


class Tables:
    """What each group of layers adds to each kind of budget, by source; the last column is the model itself."""

    def __init__(self, model: OpenedModel, lending: Sequence[Recipe], mixed: Sequence[Mixture]) -> None:
        """Raises UsageError for a budget that no mixture can keep, naming the least that one can."""
        from quantgate.quantize.mix import linears
        from quantgate.quantize.plan import plan

        self.groups = linears(model)
        self.weights = sum(model.files.entry(f"{layer}.weight").weights for group in self.groups for layer in group)
        variants = plan(model, lending, calibrated=True)
        self.sizes = _table(model, variants, self.groups, whole=False)
        self.disk = _table(model, variants, self.groups, whole=True)
        self.fixed = _fixed(model, variants, self.groups)
        self.timings: tuple[Timing, ...] = ()
        self.times: Floats | None = None
        if any(one.latency is not None for one in mixed):
            self._measure(model, variants)
        for one in mixed:
            self._check(one)

    def limits(self, one: Mixture) -> list[tuple[str, Limit]]:
        """(what was asked for, the limit) in the order bits, bytes, latency."""
        from quantgate.quantize.allocate import Limit

        found = list[tuple[str, Limit]]()
        if one.bits is not None:
            found.append(("bits", Limit("bytes of linear layers", self.sizes, one.bits * self.weights / 8)))
        if one.bytes is not None:
            found.append(("bytes", Limit("bytes of codes and kept layers", self.disk, one.bytes - self.fixed)))
        if one.latency is not None and self.times is not None:
            found.append(("latency", Limit("ms", self.times, one.latency)))
        return found

    def told(self, what: str, sum_: float) -> float:
        """A sum of a limit's table in the unit that its budget was given in."""
        return {"bits": 8 * sum_ / self.weights, "bytes": sum_ + self.fixed}.get(what, sum_)

    def budgeted(
        self, one: Mixture, made: Allocation, drift: Mapping[str, Floats], scales: Mapping[str, float]
    ) -> Budgeted:
        """What the mixture made of its budgets, and which of them bound: without it the drift would be less."""
        import numpy as np

        from quantgate.quantize.allocate import least_drift

        limits, rows = self.limits(one), list[Budget]()
        for at, (what, limit) in enumerate(limits):
            others = [other for place, (_, other) in enumerate(limits) if place != at]
            freed = least_drift(drift, self.sizes, np.inf, scales, others)
            used, most = self.told(what, limit.used(made.choice)), self.told(what, limit.most)
            rows.append(Budget(what=what, most=most, used=used, bound=freed.drift < made.drift * (1 - MOVED)))
        return Budgeted(name=one.name, budgets=tuple(rows))

    def _check(self, one: Mixture) -> None:
        from quantgate.quantize.allocate import least_of

        limits = self.limits(one)
        for what, limit in limits:
            if limit.most < limit.least:
                raise UsageError(_too_small(one.name, what, self.told(what, limit.most), self.told(what, limit.least)))
        if all(float(limit.table[:, -1].sum()) <= limit.most for _, limit in limits):
            raise UsageError(f"{one.name}: the model itself keeps the budget, so nothing would be quantized; lower it")
        for at, (what, limit) in enumerate(limits if len(limits) > 1 else ()):
            others = [other for place, (_, other) in enumerate(limits) if place != at]
            least = least_of(limit.table, others)
            if least is None or limit.most < least:
                rest = " and ".join(name for name, _ in limits if name != what)
                told = (
                    ""
                    if least is None
                    else f"; within {rest}, give {what} at least {_shown(what, self.told(what, least))}"
                )
                raise UsageError(f"{one.name}: no mixture keeps all its budgets together{told}, or raise {rest}")

    def _measure(self, model: OpenedModel, variants: Sequence[Variant]) -> None:
        """Layer shapes times formats, each once; ``times`` [groups, sources] in milliseconds."""
        import numpy as np

        from quantgate.engines._timing import token_seconds

        shapes = [[_shape(model, layer) for layer in group] for group in self.groups]
        counted = Counter(shape for group in shapes for shape in group)
        schemes = [*(variant.scheme for variant in variants), None]
        found = token_seconds(counted, schemes)
        names = [*(variant.name for variant in variants), "BF16"]
        self.timings = tuple(
            Timing(shape=shape, source=names[at], microseconds=1e6 * seconds) for (shape, at), seconds in found.items()
        )
        self.times = np.array([
            [
                sum(
                    1e3 * found[_shape(model, layer), len(variants) if _keeps(variants, at, layer) else at]
                    for layer in group
                )
                for at in range(len(schemes))
            ]
            for group in self.groups
        ])  # fmt: skip


def _too_small(name: str, what: str, most: float, least: float) -> str:
    if what == "bits":
        return f"{name}: {most:g} bits are fewer than the smallest mixture has; give at least {_shown(what, least)}"
    kind = "fastest" if what == "latency" else "smallest"
    return (
        f"{name}: {_shown(what, most, up=False)} are less than the {kind} mixture takes; give at least "
        f"{_shown(what, least)}"
    )


def _shown(what: str, value: float, *, up: bool = True) -> str:
    """With its unit, rounded so that what is shown is enough."""
    import math

    if what == "bytes":
        return f"{math.ceil(value) if up else math.floor(value):,} bytes"
    places = 1000 if what == "latency" else 100
    rounded = math.ceil(value * places - 1e-9) / places if up else value
    return f"{rounded:g} ms" if what == "latency" else f"{rounded:.2f}"


def _keeps(variants: Sequence[Variant], at: int, layer: str) -> bool:
    return at == len(variants) or layer in variants[at].kept


def _shape(model: OpenedModel, layer: str) -> tuple[int, int]:
    out, columns = model.files.entry(f"{layer}.weight").shape
    return out, columns


def _table(model: OpenedModel, variants: Sequence[Variant], groups: Sequence[Sequence[str]], *, whole: bool) -> Floats:
    """Bytes; ``whole`` counts the constant few that tell a layer's shape, and its lines in the file's header."""
    import numpy as np

    from quantgate.quantize.predict import stored_size

    def size(at: int, layer: str) -> int:
        entry = model.files.entry(f"{layer}.weight")
        if _keeps(variants, at, layer):
            return entry.size + (HEADER + len(layer) if whole else 0)
        found, packed = stored_size(variants[at].at(layer), _shape(model, layer), entry.dtype)
        if variants[at].file is not None:
            return found + ALIGNMENT if whole else packed
        tensors = 3 if variants[at].grid.symmetric else 4
        return found + tensors * (HEADER + len(layer)) if whole else packed

    return np.array(
        [[sum(size(at, layer) for layer in group) for at in range(len(variants) + 1)] for group in groups], float
    )


def _fixed(model: OpenedModel, variants: Sequence[Variant], groups: Sequence[Sequence[str]]) -> int:
    """Bytes of an artifact beside its linear layers: other tensors, config.json at its longest, tokenizer."""
    from quantgate.models.text import tokenizer_files
    from quantgate.quantize.gguf.plan import bytes_around

    if variants[0].file is not None:
        return max(bytes_around(model, one.file, groups) for one in variants if one.file is not None)
    from quantgate.quantize.checkpoints.compressed_tensors import CHECKPOINT
    from quantgate.quantize.shards import SHARD_BYTES

    layers = [layer for group in groups for layer in group]
    others = set(model.files.entries) - {f"{layer}.weight" for layer in layers}
    tensors = sum(model.files.entries[name].size + HEADER + len(name) for name in others)
    config = json.loads((model.path / "config.json").read_bytes())
    schemes = {layer: variants[at % len(variants)].scheme for at, layer in enumerate(layers)}
    told = CHECKPOINT.mixed_config(config, schemes, ["lm_head"])
    copied = [*tokenizer_files(model.path), model.path / "generation_config.json"]
    index = sum(4 * (HEADER + len(name)) for name in model.files.entries) if model.weights_bytes > SHARD_BYTES else 0
    files = sum(file.stat().st_size for file in copied if file.is_file())
    return tensors + HEADER + index + files + len(json.dumps(told, indent=2, ensure_ascii=False).encode()) + 1


def lines_of(name: str, out: Path) -> tuple[str, ...]:
    """What ``budgets.json`` says of a mixture, one sentence a budget; nothing for what is no mixture of the run."""
    file = out / "budgets.json"
    found = Budgets.load(file).mixtures if file.is_file() else ()
    return tuple(
        f"budget: {one.what} of {_shown(one.what, one.most, up=False)}, {_shown(one.what, one.used)} used, "
        f"{'which bound the choice' if one.bound else 'which did not bind'}"
        for mixture in found
        if mixture.name == name
        for one in mixture.budgets
    )
