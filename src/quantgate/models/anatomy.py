"""What a decoder model is made of: its blocks, what stands around them, and what a checkpoint calls each tensor.

Nothing is looked up by architecture. The blocks are the one list of modules that is as long as the configuration says;
the module that owns it runs embeddings, blocks and final norm; the head is what transformers calls the output
embeddings. What cannot be walked block by block is refused here, in one sentence, before anything slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quantgate.errors import ModelError
from quantgate.models.experts import expand
from quantgate.models.families import SUPPORTED

EXPECT = f"; {SUPPORTED}"


@dataclass(frozen=True)
class Anatomy:
    """A model on the meta device, taken apart. Paths are those of its modules in memory."""

    model: Any
    blocks: str  # the list of decoder blocks: model.layers, gpt_neox.layers, model.decoder.layers
    head: str  # the linear layer that makes logits: lm_head
    stored: dict[str, str]  # every tensor by its path -> its name in a checkpoint
    matrices: tuple[str, ...]  # modules with a weight [out, in] that are no embedding: linear layers and routers

    @property
    def trunk(self) -> Any:
        """The module that runs embeddings, blocks and final norm."""
        return self.model.get_submodule(self.blocks.rpartition(".")[0])

    @property
    def around(self) -> list[str]:
        """The tensors of the trunk that belong to no block: embeddings, positions, projections, final norm."""
        trunk, blocks = self.blocks.rpartition(".")[0] + ".", self.blocks + "."
        return [name for name in self.stored if name.startswith(trunk) and not name.startswith(blocks)]

    def module_name(self, path: str) -> str:
        """What a checkpoint calls the module ``path`` that owns a weight."""
        return self.stored[f"{path}.weight"].removesuffix(".weight")


def take_apart(config: Any, where: str) -> Anatomy:
    """Build the architecture of ``config`` without memory and find its parts. Raises ModelError for what has others."""
    named = ", ".join(getattr(config, "architectures", None) or ["(none named)"])
    refuse = f"{where}: the architecture {named} cannot be walked block by block: "
    model = _build(config, refuse)
    blocks = _blocks(model, config, refuse)
    stored = expand(model, where)
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ModelError(f"{refuse}it has no linear layer that makes logits{EXPECT}")
    _check_parameters(model, refuse)
    _fill_buffers(model, refuse)
    for index, block in enumerate(model.get_submodule(blocks)):
        if any(True for _ in block.buffers()):
            raise ModelError(
                f"{refuse}its block {index} holds buffers, which change as it runs or are not stored{EXPECT}"
            )
    paths = {id(module): path for path, module in model.named_modules()}
    return Anatomy(model.eval().requires_grad_(False), blocks, paths[id(head)], stored, _matrices(model))


def _build(config: Any, refuse: str) -> Any:
    """The architecture on the meta device. Raises ModelError for what is no decoder of text alone."""
    from transformers import AutoModelForCausalLM

    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{refuse}it is an encoder-decoder{EXPECT}")
    if config.get_text_config() is not config:
        raise ModelError(f"{refuse}its text model is a part of a larger one; save that part by itself{EXPECT}")
    for needed in ("num_attention_heads", "max_position_embeddings"):
        if not isinstance(getattr(config, needed, None), int):
            raise ModelError(f"{refuse}its config.json names no {needed}{EXPECT}")
    try:
        with torch.device("meta"):
            make: Any = AutoModelForCausalLM.from_config
            return make(config, dtype=torch.float32, trust_remote_code=False)
    except ValueError as unknown:  # transformers' word for "no such causal model"
        first = str(unknown).strip().splitlines()[0]
        raise ModelError(f"{refuse}transformers has no causal language model for it ({first[:120]}){EXPECT}") from None


def _blocks(model: nn.Module, config: Any, refuse: str) -> str:
    """The path of the outermost list of modules that has as many entries as the configuration has layers."""
    lists: list[str] = [path for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    layers = int(config.num_hidden_layers)
    outer = [path for path in lists if not any(path.startswith(other + ".") for other in lists)]
    found = [path for path in outer if len(list(model.get_submodule(path).children())) == layers]
    if len(found) != 1:
        many = f"{len(found)} lists of" if found else "no list of its"
        raise ModelError(f"{refuse}it has {many} {layers} decoder blocks{EXPECT}")
    return found[0]


def _matrices(model: Any) -> tuple[str, ...]:
    weights = ((path, module, module._parameters.get("weight")) for path, module in model.named_modules())
    return tuple(
        path
        for path, module, weight in weights
        if weight is not None and weight.dim() == 2 and not isinstance(module, nn.Embedding)
    )


def _check_parameters(model: Any, refuse: str) -> None:
    for path, module in model.named_modules():
        if type(module).__name__ == "Conv1D":
            raise ModelError(f"{refuse}'{path}' is a Conv1D, which stores its weight transposed{EXPECT}")
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 2:
                kind = "mixtures of experts of another make, convolutions and state spaces are not walked"
                raise ModelError(f"{refuse}'{path}.{leaf}' has {parameter.dim()} dimensions; {kind}{EXPECT}")


def _fill_buffers(model: Any, refuse: str) -> None:
    """Numbers that are computed, not stored (rotary frequencies), are computed."""
    for module in model.modules():
        if any(True for _ in module.buffers(recurse=False)):
            for name, buffer in list(module.named_buffers(recurse=False)):
                module._buffers[name] = torch.empty_like(buffer, device="cpu")
            try:
                model._init_weights(module)
            except AttributeError as problem:
                raise ModelError(
                    f"{refuse}the numbers it computes for itself cannot be set ({problem}){EXPECT}"
                ) from None
