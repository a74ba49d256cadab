"""What one block has become so far, for every variant of a sweep: stored tensors, fates, and lines of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quantgate.formats.codec import calibrated_scale, global_scale
from quantgate.models.folding import find_folds
from quantgate.models.tensors import torch_dtype
from quantgate.models.walker import Block
from quantgate.quantize.artifact import kept
from quantgate.quantize.balance import Balanced, balance
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.experts import Crowd
from quantgate.quantize.hadamard import Rotation
from quantgate.quantize.journal import Piece
from quantgate.quantize.kv_cache import Ranges
from quantgate.quantize.manifest import Fate, Note
from quantgate.quantize.methods import LayerStats, Solved
from quantgate.quantize.methods._scaling import ScalingMethod
from quantgate.quantize.plan import Variant
from quantgate.quantize.rotate import Turned

if TYPE_CHECKING:
    from quantgate.quantize.sweep import Sweep

CLIPPED = 0.01  # share of weights beyond the reach of their scales that the ledger tells of


class Pieces:
    """What one block has become so far, for every variant."""

    def __init__(self, run: Sweep, variants: list[Variant], crowd: Crowd) -> None:
        self.run, self.variants, self.crowd = run, variants, crowd
        self.tensors: dict[str, dict[str, Tensor]] = {variant.name: {} for variant in variants}
        self.fates: dict[str, list[Fate]] = {variant.name: [] for variant in variants}
        total = sum(int(batch.real.sum()) for batch in run.batches)
        self.ledger = {variant.name: list(crowd.notes(variant.experts, total)) for variant in variants}
        self.balanced: dict[str, Balanced] = {}
        self.turned: Turned | None = None

    def balance(
        self, block: Block, groups: list[list[str]], statistics: dict[str, LayerStats], probe: Tensor | None
    ) -> None:
        """Channel scales for the variants whose method has some, and the norms that change with them.

        ``probe`` [1, tokens, hidden] is some of what the block is given.
        """
        asking = [variant for variant in self.variants if isinstance(variant.method, ScalingMethod)]
        model = self.run.model
        folds = find_folds(block, groups, probe) if asking and probe is not None else []
        for variant in asking:
            starved = partial(self.crowd.starved, options=variant.experts)
            found = balance(variant, block, groups, statistics, folds, self._stored_type, starved)
            self.balanced[variant.name] = found
            self.tensors[variant.name] |= {name: tensor.cpu() for name, tensor in found.stored.items()}
            self.fates[variant.name] += [kept(model, name, "keep", found.because[name]) for name in found.stored]
            self.ledger[variant.name] += found.notes

    def turn(self, block: Block, rotation: Rotation | None) -> None:
        """The block in rotated channels, for the variants that ask for it."""
        self.turned = None if rotation is None else Turned(self.run.model, block, rotation)

    def turn_rest(self, variant: Variant) -> None:
        """What rotation changes beside the layers that became codes."""
        if self.turned is not None and variant.recipe.rotation:
            coded = {fate.name for fate in self.fates[variant.name] if fate.asked == fate.got}
            self.tensors[variant.name] |= self.turned.rest(coded)

    def cache(self, variant: Variant, attention: str, ranges: Ranges) -> None:
        """The scales of the layer's KV cache, where its format stores some."""
        word = next(iter(self.run.model.files.entries.values())).dtype
        for name, tensor in ranges.scales(attention, variant.recipe.kv_cache, torch_dtype(word)).items():
            self.tensors[variant.name][name] = tensor
            fate = Fate(name=name, asked="keep", got=word.lower(), because="a scale of the KV cache", tensors=(name,))
            self.fates[variant.name].append(fate.model_copy(update={"bytes": tensor.nbytes}))

    def _stored_type(self, tensor: str) -> str:
        return self.run.model.files.entries[tensor].dtype

    def keep(self, variant: Variant, layer: str, because: str) -> None:
        """Leave a layer that was to be quantized as the model has it."""
        tensor, model = f"{layer}.weight", self.run.model
        self.tensors[variant.name][tensor] = model.files.read(tensor)
        self.fates[variant.name].append(kept(model, tensor, variant.at(layer).format, because))

    def add(
        self, variant: Variant, layer: str, weight: Tensor, solved: Solved, reach: float, largest: float | None
    ) -> None:
        """``reach`` and ``largest``: the largest magnitude of the weights that share an input, and of that input."""
        variant = variant.at(layer)
        zeros = None if solved.zeros is None else solved.zeros.cpu()
        given, activations = None, variant.scheme.activations
        if activations is not None and largest is not None:
            given = calibrated_scale(activations, largest)
        stored = StoredLinear(
            layer,
            solved.codes.cpu(),
            solved.scales.cpu(),
            zeros,
            solved.grid,
            activations,
            global_scale=global_scale(reach),
            input_scale=None if given is None else torch.tensor([given], dtype=solved.scales.dtype),
        )
        tensors = variant.container.pack(stored)
        lost = float((solved.weight() - weight).square().sum() / weight.square().sum().clamp(min=1e-30))
        fate = Fate(
            name=layer,
            asked=variant.format,
            got=variant.format,
            scheme=variant.scheme.label,
            because=solved.facts.because,
            error=solved.facts.error,
            weight_error=lost,
            weights=weight.numel(),
            bytes=sum(one.numel() * one.element_size() for one in tensors.values() if one.dtype != torch.int64),
            tensors=tuple(sorted(tensors)),
            facts={key: value for key, value in solved.facts.body().items() if key not in ("error", "because")},
        )
        self.tensors[variant.name] |= tensors
        self.fates[variant.name].append(fate)
        self.ledger[variant.name] += _notes(layer, solved)

    def piece(self, variant: Variant) -> Piece:
        return Piece(fates=tuple(self.fates[variant.name]), ledger=tuple(self.ledger[variant.name]))


def _notes(layer: str, solved: Solved) -> Iterator[Note]:
    facts = solved.facts
    if facts.clipped > CLIPPED:
        detail = f"{facts.clipped:.1%} of its weights are beyond the reach of their scales"
        yield Note(tensor=layer, event="clipped", detail=detail, value=facts.clipped)
    if facts.method != facts.asked:
        yield Note(tensor=layer, event="fallback", detail=f"{facts.asked} became {facts.method}: {facts.because}")
    if facts.retries:
        tried = ", ".join(f"{one:g}" for one in facts.retries)
        yield Note(tensor=layer, event="damping", detail=f"damping {tried} was too small", value=facts.damping)
    if facts.dead:
        detail = f"{facts.dead} input features were 0 on every calibration token"
        yield Note(tensor=layer, event="dead_columns", detail=detail, value=facts.dead)
