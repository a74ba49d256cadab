"""Variants with hidden streams of their own: each block is solved for what the quantized blocks before it give.

In the one walk of a sweep all variants are solved on the activations of the full-precision model, which is what makes
the statistics shareable. A variant with ``propagate`` pays for statistics of its own. Beside the model's hidden states
the walk keeps the variant's; of each block it

1. measures H' = sum x' x'^T of a layer's input x' on that stream, and for "corrected" also D = sum (x - x') x'^T
   against the model's input x of the same token;
2. solves the layers that read it, as any method would, and goes on to the next input with these layers quantized
   ("true sequential" in the original GPTQ code);
3. runs the stream through the block as the artifact holds it: decoded weights, activations rounded where the scheme
   rounds them. The tensors are read back from the journal, so that a killed sweep goes on with the same stream.

With ``steps: block`` a block is measured once, still unquantized, for all of its layers. What a KV cache rounds is not
in a stream.

A stream costs one forward pass of the calibration set for every measurement and one to go on, and one set of hidden
states on the host; all corrected streams together one more pass for every measurement. In a block of a Llama model
there are four measurements, with ``steps: block`` one. Variants that would be solved alike share a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from quantgate.models import OpenedModel
from quantgate.models.tensors import TensorFiles, torch_dtype
from quantgate.models.walker import Block
from quantgate.quantize.drift import Drift, Inputs
from quantgate.quantize.experts import Crowd
from quantgate.quantize.journal import Journal
from quantgate.quantize.load import round_input
from quantgate.quantize.manifest import Fate
from quantgate.quantize.methods import LayerStats
from quantgate.quantize.pieces import Pieces
from quantgate.quantize.plan import Variant
from quantgate.quantize.statistics import Statistics

if TYPE_CHECKING:
    from quantgate.quantize.sweep import Sweep

Solve = Callable[[Pieces, Block, list[str], LayerStats | None], None]


def propagated(variant: Variant) -> str:
    """What the variant wants of a stream of its own: "inputs", "corrected", or "" for none."""
    return str(getattr(variant.options, "propagate", False) or "")


@dataclass
class Stream:
    """Variants that are solved alike, and what the next block is given in them: [batch, tokens, hidden] each."""

    variants: list[Variant]
    hidden: list[Tensor]

    @property
    def first(self) -> Variant:
        return self.variants[0]

    @property
    def corrected(self) -> bool:
        return propagated(self.first) == "corrected"

    @property
    def stepwise(self) -> bool:
        return bool(self.first.options.steps == "layer")


class Streams:
    """The streams of a sweep, one for each group of variants that ask for the same."""

    def __init__(self, run: Sweep, variants: Sequence[Variant], hidden: Sequence[Tensor]) -> None:
        """``hidden``: what block 0 is given, the same for all."""
        self.run = run
        self.streams = [Stream(mine, list(hidden)) for mine in alike(run.model, variants)]

    def solve(
        self,
        block: Block,
        groups: Sequence[list[str]],
        hidden: Sequence[Tensor],
        held: Mapping[str, LayerStats],
        solve: Solve,
    ) -> list[Pieces]:
        """What one block becomes in every stream, by ``solve``, which does the layers of one input.

        ``hidden`` is what the model gives the block, and ``held`` are its statistics by the first layer of a group.
        """
        at_once = [one for one in self.streams if not one.stepwise]
        stepwise = [one for one in self.streams if one.stepwise]
        found: list[Pieces] = []
        for streams, stages in ((at_once, [list(groups)]), (stepwise, _stages(block, groups))):
            copies, parts = [block.copy() for _ in streams], [list[Pieces]() for _ in streams]
            for stage in stages if streams else []:
                measured = self._measure(streams, copies, block, stage, hidden, held)
                for stream, own, mine, stats in zip(streams, copies, parts, measured, strict=True):
                    pieces = Pieces(self.run, stream.variants, Crowd.of(block, stage, stats))
                    for group in stage:
                        solve(pieces, block, group, stats.pop(group[0]))
                    name = stream.first.name
                    if stage is not stages[-1]:
                        _install(own, stream.first, pieces.fates[name], pieces.tensors[name].__getitem__)
                    mine.append(pieces)
            found += [_joined(mine) for mine in parts]
        return found

    def _measure(
        self,
        streams: Sequence[Stream],
        copies: Sequence[Block],
        block: Block,
        groups: Sequence[list[str]],
        hidden: Sequence[Tensor],
        held: Mapping[str, LayerStats],
    ) -> list[dict[str, LayerStats]]:
        """Statistics of each stream by the first layer of a group, with the drift where it is to be corrected."""
        batches = self.run.batches
        tokens = sum(int(batch.real.sum()) for batch in batches)
        measured = [Statistics(own, groups, tokens) for own in copies]
        drifts = {at: Drift(own, groups) for at, own in enumerate(copies) if streams[at].corrected}
        inputs = Inputs(block, groups) if drifts else None
        for batch, *given in zip(batches, hidden, *(stream.hidden for stream in streams), strict=True):
            wanted = inputs.of(given[0], batch) if inputs else {}
            for at, statistics in enumerate(measured):
                if at in drifts:
                    drifts[at].expect(batch)
                statistics.forward(given[1 + at], batch)
                if at in drifts:
                    drifts[at].add(wanted)
        for statistics in measured:
            statistics.close()
        for drift in drifts.values():
            drift.close()
        if inputs:
            inputs.close()
        found = [{group[0]: statistics.take(group[0]) for group in groups} for statistics in measured]
        for at, stats in enumerate(found):
            for first, one in stats.items():
                one.model = held[first]
                if at in drifts:
                    one.drift = drifts[at].sums.pop(first).div_(max(one.tokens, 1))
                    one.wanted = None if block.experts(first) else held[first].hessian
        return found

    def advance(self, block: Block, journal: Journal) -> None:
        """Every stream goes through the block as the journal holds it."""
        for stream in self.streams:
            name, own = stream.first.name, block.copy()
            files = TensorFiles(journal.folder, journal.tensors(block.index, name))
            _install(own, stream.first, journal.piece(block.index, name).fates, files.read)
            stream.hidden = [own(one).cpu() for one in stream.hidden]


def alike(model: OpenedModel, variants: Sequence[Variant]) -> list[list[Variant]]:
    """The variants that want a stream, those together that are solved alike."""
    found: dict[str, list[Variant]] = {}
    for variant in variants:
        if propagated(variant):
            found.setdefault(_what_decides(model, variant), []).append(variant)
    return list(found.values())


def _what_decides(model: OpenedModel, variant: Variant) -> str:
    """All that a stream depends on: variants with the same can differ in how they are stored, and in nothing else."""
    types = {torch_dtype(entry.dtype) for entry in model.files.entries.values()}
    scales = sorted(str(variant.container.scale_dtype(one)) for one in types if one.is_floating_point)
    numbers = (variant.grid, variant.scheme.activations, scales, sorted(variant.schemes.items()))
    return repr((*numbers, variant.method_name, variant.options, variant.experts, sorted(variant.kept)))


def _stages(block: Block, groups: Sequence[list[str]]) -> list[list[list[str]]]:
    """Groups in the order in which they run; those of the same layer of all experts of a mixture together."""
    stages: dict[object, list[list[str]]] = {}
    for group in groups:
        home = block.experts(group[0])
        key = group[0] if home is None else (id(home[1]), group[0].rpartition(".")[2])
        stages.setdefault(key, []).append(group)
    return list(stages.values())


def _install(own: Block, variant: Variant, fates: Iterable[Fate], read: Callable[[str], Tensor]) -> None:
    """Put the quantized layers that ``fates`` tell of into the copy; ``read`` gives a stored tensor by name."""
    for fate in fates:
        if fate.asked != fate.got:
            continue
        stored = variant.container.unpack(fate.name, read, variant.at(fate.name).scheme, None)
        layer = own.linear(fate.name)
        layer.weight = nn.Parameter(stored.dequantized().float().to(own.device), requires_grad=False)
        if stored.activations is not None:
            round_input(layer, stored.activations, stored.input_scale)


def _joined(parts: Sequence[Pieces]) -> Pieces:
    """The pieces of all stages of one stream as one."""
    whole = parts[0]
    for part in parts[1:]:
        for variant in whole.variants:
            name = variant.name
            whole.tensors[name] |= part.tensors[name]
            whole.fates[name] += part.fates[name]
            whole.ledger[name] += [note for note in part.ledger[name] if note not in whole.ledger[name]]
    return whole
