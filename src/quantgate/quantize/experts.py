"""Mixtures of experts in a sweep: how many calibration tokens each expert was given, and what becomes of one with few.

Statistics of an expert come from the tokens that its router sent there, and from no others. With fewer than
``min_expert_tokens`` they say more about those tokens than about the expert, so they are not used: the expert is
rounded to nearest, clipped for the least squared error (``starved: rtn``, the default, which leaves all experts of a
block in one format, as fused kernels need), or stays as it is (``starved: keep``). A method that needs no statistics
goes on as it would without a calibration set. Either way the ledger has a line ``starved_expert``, and a line
``expert_tokens`` for every expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from quantgate.models.walker import Block
from quantgate.quantize import methods
from quantgate.quantize.manifest import Note
from quantgate.quantize.methods import LayerStats, Solved
from quantgate.quantize.methods.rtn import RtnOptions
from quantgate.quantize.plan import ExpertOptions, Variant


@dataclass(frozen=True)
class Crowd:
    """The experts of one block and what calibration says of them; empty for a block without experts."""

    tokens: dict[str, int]  # full name of an expert -> tokens that it was given
    expert: dict[str, str]  # first layer of a group -> the expert that it belongs to
    largest: dict[str, float]  # first layer of a group -> the largest magnitude of its input, over all experts

    @classmethod
    def of(cls, block: Block, groups: Sequence[Sequence[str]], statistics: Mapping[str, LayerStats]) -> Crowd:
        homes = {group[0]: home for group in groups if (home := block.experts(group[0])) and group[0] in statistics}
        expert = {first: name for first, (name, _) in homes.items()}
        tokens = {name: statistics[first].tokens for first, name in expert.items()}
        most: dict[tuple[int, str], float] = {}  # by mixture and kind of layer
        kinds = {first: (id(beside), first.rpartition(".")[2]) for first, (_, beside) in homes.items()}
        for first, kind in kinds.items():
            absmax = statistics[first].absmax
            most[kind] = max(most.get(kind, 0.0), 0.0 if absmax is None else float(absmax.max()))
        return cls(tokens, expert, {first: most[kind] for first, kind in kinds.items()})

    def starved(self, first: str, options: ExpertOptions) -> str:
        """Why the layers that read the input of ``first`` go without statistics, or ""."""
        if first not in self.expert or self.tokens[self.expert[first]] >= options.min_expert_tokens:
            return ""
        count = self.tokens[self.expert[first]]
        return f"its expert was given {count} calibration tokens, fewer than {options.min_expert_tokens}"

    def notes(self, options: ExpertOptions, total: int) -> Iterator[Note]:
        for name, count in self.tokens.items():
            told = f"was given {count} of {total} calibration tokens"
            yield Note(tensor=name, event="expert_tokens", detail=told, value=count)
            if count < options.min_expert_tokens:
                told = f"{count} calibration tokens, fewer than {options.min_expert_tokens}: {options.consequence}"
                yield Note(tensor=name, event="starved_expert", detail=told, value=count)


def without_statistics(variant: Variant) -> Variant:
    """The variant as it treats a starved expert: its own method if that needs no statistics, else rounding."""
    if variant.method.needs_stats:
        return replace(variant, method=methods.get("rtn"), method_name="rtn", options=RtnOptions(clip="mse"))
    if getattr(variant.options, "clip", "") == "hessian":
        return replace(variant, options=variant.options.model_copy(update={"clip": "mse"}))
    return variant


@dataclass(frozen=True)
class Starved:
    """Puts on record which method was asked for, and why another was taken."""

    variant: Variant
    because: str

    def told(self, layer: str, first: str, weight: Tensor, solved: Solved, stats: LayerStats | None) -> Solved:
        if not self.variant.method.needs_stats:
            return solved
        update = {"asked": self.variant.method_name, "because": self.because}
        return replace(solved, facts=solved.facts.model_copy(update=update))
