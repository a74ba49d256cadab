"""Mixtures of experts: what transformers fuses into one tensor per block, taken apart into linear layers.

In memory transformers 5 holds the experts of a block as ``gate_up_proj`` [experts, 2 * inner, hidden] and ``down_proj``
[experts, hidden, inner]; a checkpoint holds one matrix per expert and projection, and so do quantized ones. ``expand``
puts ``Experts`` in the place of the fused module: the same numbers, seen as linear layers under the checkpoint's leaf
names (``w1``, ``w3``, ``w2`` or ``gate_proj``, ``up_proj``, ``down_proj``). How checkpoints name them is asked of
transformers' own conversion, not written down here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quantgate.errors import ModelError

MEMBER = re.compile(r".+\.\d+\.(?P<leaf>[^.]+)\.weight")
UNUSUAL = {  # how transformers marks fused experts that are built otherwise, and what that means
    "has_bias": "have biases",
    "is_transposed": "are stored transposed",
    "has_post_expert_norm": "have a norm of their own",
}


class Experts(nn.Module):
    """The experts of one block; ``experts[3].w1`` is a linear layer. Computes what the fused module computes.

    ``routed`` are the tokens that the running expert is given, as rows of the flattened batch; ``share`` is the
    fraction of all tokens that an expert is given on average.
    """

    def __init__(self, fused: nn.Module, leaves: tuple[str, str, str]) -> None:
        """``leaves``: what the checkpoint calls gate, up and down. The weights stay views of the fused ones."""
        super().__init__()
        both, down = fused.get_parameter("gate_up_proj"), fused.get_parameter("down_proj")
        inner = both.shape[1] // 2
        self.leaves, self.count, self.share = leaves, len(both), 1.0
        self.routed: Tensor | None = None
        for at in range(self.count):
            weights = (both[at, :inner], both[at, inner:], down[at])
            parts = {leaf: _linear(weight) for leaf, weight in zip(leaves, weights, strict=True)}
            self.add_module(str(at), nn.ModuleDict(parts))
        lender: Any = copy.copy(fused)  # of the activation function; its weights are taken off, and in a list it is no
        lender._parameters = {}  # submodule whose name would be stored
        self._fused = [lender]

    def forward(self, hidden: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        """``hidden`` [tokens, hidden], ``chosen`` and ``shares`` [tokens, experts per token] from the router."""
        out = torch.zeros_like(hidden)
        self.share = chosen.shape[1] / self.count
        for at in range(self.count):
            if hidden.is_meta:  # shapes alone: no token is routed anywhere, every expert is shown some of its own
                out = out + self._expert(at, hidden.clone())
                continue
            self.routed, place = torch.where(chosen == at)
            if len(self.routed):
                made = self._expert(at, hidden[self.routed]) * shares[self.routed, place, None]
                out.index_add_(0, self.routed, made.to(out.dtype))
        self.routed = None
        return out

    def _expert(self, at: int, x: Tensor) -> Tensor:
        expert: Any = self.get_submodule(str(at))
        gate, up, down = self.leaves
        made: Tensor = expert[down](self._fused[0]._apply_gate(torch.cat([expert[gate](x), expert[up](x)], dim=-1)))
        return made


def stored_names(model: Any) -> dict[str, list[str]]:
    """Every tensor of a transformers model by its name in memory, with the names that a checkpoint stores it under.

    Mostly there is one name and it is the same; fused experts have one per expert and projection.
    """
    from transformers.core_model_loading import revert_weight_conversion

    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
    fused = {name for name in state if _is_fused(model, name)}
    plain: dict[str, Any] = revert_weight_conversion(model, {k: v for k, v in state.items() if k not in fused})
    names = {id(tensor): name for name, tensor in plain.items()}
    found = {name: [names[id(tensor)]] for name, tensor in state.items() if id(tensor) in names}
    return found | {name: list(revert_weight_conversion(model, {name: state[name]})) for name in fused}


def expand(model: Any, where: str) -> dict[str, str]:
    """Put linear layers in the place of fused experts; tells what a checkpoint calls every tensor, by its new name.

    Raises ModelError for experts that are built in another way.
    """
    stored = stored_names(model)
    for path, module in list(model.named_modules()):
        if _fuses(module):
            both, down = stored.pop(f"{path}.gate_up_proj"), stored.pop(f"{path}.down_proj")
            leaves = [*_leaves(both, path, where), *_leaves(down, path, where)]
            _check(module, leaves, path, where)
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, Experts(module, (leaves[0], leaves[1], leaves[2])))
            for name in (*both, *down):
                number, last = name.removesuffix(".weight").split(".")[-2:]
                stored[f"{path}.{number}.{last}.weight"] = [name]
    return {name: one for name, (one,) in stored.items()}


def module_paths(names: Mapping[str, str]) -> dict[str, str]:
    """From ``expand``'s names: the checkpoint's name of every module that owns a tensor -> its path in the model."""
    return {stored.rpartition(".")[0]: name.rpartition(".")[0] for name, stored in names.items()}


def _linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(1, 1, bias=False, device="meta")
    linear.out_features, linear.in_features = weight.shape
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return linear


def _fuses(module: nn.Module) -> bool:
    weights = [getattr(module, leaf, None) for leaf in ("gate_up_proj", "down_proj")]
    return all(isinstance(weight, nn.Parameter) and weight.dim() == 3 for weight in weights)


def _is_fused(model: Any, name: str) -> bool:
    path, _, leaf = name.rpartition(".")
    return leaf in ("gate_up_proj", "down_proj") and _fuses(model.get_submodule(path))


def _leaves(names: list[str], path: str, where: str) -> list[str]:
    """What a checkpoint calls the parts of each expert, in the order in which they lie in the fused tensor."""
    found = [MEMBER.fullmatch(name) for name in names]
    if None in found:
        raise ModelError(
            f"{where}: the checkpoint holds the experts of '{path}' as one tensor ('{names[0]}'); quantgate quantizes "
            "mixtures of experts that are stored one tensor per expert, like Mixtral and Qwen3-MoE"
        )
    return list(dict.fromkeys(one["leaf"] for one in found if one))


def _check(module: Any, leaves: list[str], path: str, where: str) -> None:
    """Raises ModelError unless an expert is ``down(act(gate(x)) * up(x))`` without further parts."""
    said = [what for mark, what in UNUSUAL.items() if getattr(module, mark, False)]
    if not getattr(module, "is_concatenated", False) or not getattr(module, "has_gate", False) or len(leaves) != 3:
        said.append("do not hold gate and up one after the other")
    if said:
        raise ModelError(
            f"{where}: the experts of '{path}' {' and '.join(said)}; supported are experts of three plain projections, "
            "like those of Mixtral and Qwen3-MoE"
        )
