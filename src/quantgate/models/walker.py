"""Walk a decoder model block by block, without ever holding it whole.

The architecture is built on torch's meta device, where weights have shapes but no memory. To learn what each decoder
block must be given (rotary embeddings, masks, sliding windows, embedding scales), the model's own forward runs once
per shape with every block replaced by a recorder. So no architecture is copied here: whatever a model passes to its
blocks is what they get. One block at a time is then filled with its weights in float32.

Batches are padded on the right. Attention is causal, so a real token never sees the padding behind it, and no padding
mask is needed; what the padded positions compute is simply not counted.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantgate.errors import ModelError
from quantgate.models.tensors import TensorFiles, finite

CONTEXTS_KEPT = 32  # recorded block arguments, one per batch shape


class Recorder(nn.Module):
    """Stands where a block stood: passes the hidden state on and remembers what came with it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.seen: tuple[Tensor, tuple[Any, ...], dict[str, Any]] | None = None
        for name in ("attention_type", "layer_type", "is_sliding"):  # some models read these off the block
            if hasattr(block, name):
                setattr(self, name, getattr(block, name))

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.seen = (hidden_states, args, kwargs)
        return hidden_states


class Block:
    """A decoder block with its weights in float32. ``block(hidden)`` maps [batch, tokens, hidden] to the same."""

    def __init__(self, walker: Walker, index: int, module: nn.Module, device: torch.device) -> None:
        self.index, self.module, self.device, self._walker = index, module, device, walker

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        args, kwargs = self._walker.context(self.index, hidden.shape[0], hidden.shape[1], self.device)
        out = self.module(hidden.to(self.device), *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]

    def linear(self, name: str) -> nn.Linear:
        """A linear layer by its full name, e.g. ``model.layers.0.mlp.up_proj``."""
        found = self.module_named(name)
        assert isinstance(found, nn.Linear)  # our own grouping only names linear layers
        return found

    def module_named(self, name: str) -> nn.Module:
        """Any module of the block by its full name."""
        return self.module.get_submodule(name.removeprefix(self._walker.prefix(self.index)))

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module inside the block with its full name."""
        prefix = self._walker.prefix(self.index)
        return ((prefix + name, module) for name, module in self.module.named_modules() if name)

    @property
    def config(self) -> Any:
        return self._walker.config


class Walker:
    """The meta model of one checkpoint, and how to step through it."""

    def __init__(self, config: Any, files: TensorFiles, where: str) -> None:
        self.config, self.files, self.where = config, files, where
        self.skeleton = _skeleton(config, where)
        self.inner: Any = self.skeleton.model
        self.layers: list[nn.Module] = list(self.inner.layers)
        self.depth = len(self.layers)
        self._recorders = [Recorder(layer) for layer in self.layers]
        self._contexts: dict[tuple[Any, ...], list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self._check_names()
        self.inner.layers = nn.ModuleList(self._recorders)
        self.inner.norm = nn.Identity()
        self._groups: dict[int, list[list[str]]] = {}

    def prefix(self, index: int) -> str:
        return f"model.layers.{index}."

    @torch.no_grad()
    def embed(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states in front of block 0: each [batch, tokens] of ids becomes float32 [batch, tokens, hidden]."""
        table = self.inner.embed_tokens
        weight = self.files.read("model.embed_tokens.weight").float()
        finite(weight, "model.embed_tokens.weight", self.files.entry("model.embed_tokens.weight").file)
        table.load_state_dict({"weight": weight}, assign=True, strict=False)
        try:
            hidden = []
            for ids in batches:
                self.inner(input_ids=ids, use_cache=False)
                seen = self._recorders[0].seen
                assert seen is not None  # the forward above has just filled it
                hidden.append(seen[0].clone())
            return hidden
        finally:
            table.load_state_dict({"weight": weight.to("meta")}, assign=True, strict=False)

    @contextlib.contextmanager
    def block(self, index: int, device: torch.device) -> Iterator[Block]:
        """Block ``index`` with its weights, released when the ``with`` ends. Raises BadTensor on NaN or Inf."""
        prefix, state = self.prefix(index), {}
        module = copy.deepcopy(self.layers[index])
        for name in module.state_dict():
            tensor = self.files.read(prefix + name)
            finite(tensor, prefix + name, self.files.entry(prefix + name).file)
            state[name] = tensor.to(device=device, dtype=torch.float32)
        module.load_state_dict(state, assign=True)
        del state
        yield Block(self, index, module.eval().requires_grad_(False), device)

    def groups(self, index: int) -> list[list[str]]:
        """The linear layers of a block, those that read the very same input together: q/k/v, then gate/up, ...

        Found by running the block on meta tensors and asking which layers were handed the same tensor.
        """
        if index not in self._groups:
            self._groups[index] = self._trace(index)
        return self._groups[index]

    def context(
        self, index: int, batch: int, tokens: int, device: torch.device
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the model passes to block ``index`` beside the hidden state, for one batch shape."""
        key = (batch, tokens, str(device))
        if key not in self._contexts:
            if len(self._contexts) >= CONTEXTS_KEPT:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[key] = self._record(batch, tokens, device)
        return self._contexts[key][index]

    @torch.no_grad()
    def _record(self, batch: int, tokens: int, device: torch.device) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        hidden = torch.zeros(1, 1, self.config.hidden_size, device="cpu").expand(batch, tokens, -1)
        self.inner(inputs_embeds=hidden, use_cache=False)
        seen = [recorder.seen for recorder in self._recorders]
        for recorder in self._recorders:
            recorder.seen = None
        return [(_move(one[1], device), _move(one[2], device)) for one in seen if one is not None]

    @torch.no_grad()
    def _trace(self, index: int) -> list[list[str]]:
        layer, handed, order = self.layers[index], dict[int, list[str]](), list[Tensor]()
        prefix = self.prefix(index)

        def remember(name: str, given: Tensor) -> None:
            handed.setdefault(id(given), []).append(name)
            order.append(given)  # kept alive, so that no id is used twice

        hooks = [
            module.register_forward_pre_hook(lambda _m, args, name=prefix + name: remember(name, args[0]))
            for name, module in layer.named_modules()
            if isinstance(module, nn.Linear)
        ]
        args, kwargs = self.context(index, 1, 4, torch.device("cpu"))
        try:
            layer(
                torch.zeros(1, 4, self.config.hidden_size, device="meta"), *_move(args, "meta"), **_move(kwargs, "meta")
            )
        finally:
            for hook in hooks:
                hook.remove()
        return list(handed.values())

    def _check_names(self) -> None:
        """Every tensor that the architecture needs is in the files with the right shape. Raises ModelError."""
        tied = {"lm_head.weight"} if self.config.tie_word_embeddings else set()
        for name, want in self.skeleton.state_dict().items():
            if name in tied and name not in self.files.entries:
                continue
            if name not in self.files.entries:
                raise ModelError(
                    f"{self.where}: {type(self.skeleton).__name__} needs the tensor '{name}', which the checkpoint "
                    "does not have under that name; quantgate walks models whose blocks are stored one tensor per layer"
                )
            shape = self.files.entries[name].shape
            if shape != tuple(want.shape):
                raise ModelError(
                    f"{self.where}: tensor '{name}' has shape {list(shape)}, config.json asks for {list(want.shape)}; "
                    "the two files do not belong together"
                )


def _skeleton(config: Any, where: str) -> Any:
    """The architecture on the meta device, buffers that hold computed numbers (rotary frequencies) filled in."""
    from transformers import AutoModelForCausalLM

    named = ", ".join(getattr(config, "architectures", None) or ["(none named)"])
    refuse = f"{where}: the architecture {named} cannot be walked block by block: "
    expect = "; supported are decoder models like Llama, Mistral, Qwen2 and Qwen3"
    try:
        with torch.device("meta"):
            make: Any = AutoModelForCausalLM.from_config
            model = make(config, dtype=torch.float32, trust_remote_code=False)
    except ValueError as unknown:  # transformers' word for "no such causal model"
        first = str(unknown).strip().splitlines()[0]
        raise ModelError(f"{refuse}transformers has no causal language model for it ({first[:120]}){expect}") from None
    inner: Any = getattr(model, "model", None)
    for part in ("layers", "embed_tokens", "norm"):
        if not isinstance(getattr(inner, part, None), nn.Module):
            raise ModelError(f"{refuse}it has no 'model.{part}'{expect}")
    if not isinstance(getattr(model, "lm_head", None), nn.Linear):
        raise ModelError(f"{refuse}it has no linear 'lm_head'{expect}")
    for name, parameter in model.named_parameters():
        if parameter.dim() > 2:
            raise ModelError(f"{refuse}'{name}' has {parameter.dim()} dimensions (a mixture of experts){expect}")
    for module in model.modules():
        if any(True for _ in module.buffers(recurse=False)):
            for name, buffer in list(module.named_buffers(recurse=False)):
                module._buffers[name] = torch.empty_like(buffer, device="cpu")
            model._init_weights(module)
    for index, layer in enumerate(inner.layers):
        if any(True for _ in layer.buffers()):
            raise ModelError(f"{refuse}its block {index} holds buffers that are not in the checkpoint{expect}")
    return model.eval().requires_grad_(False)


def _move(value: Any, device: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_move(one, device) for one in value)
    if isinstance(value, dict):
        return {key: _move(one, device) for key, one in value.items()}
    return value
