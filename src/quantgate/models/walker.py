"""Walk a decoder model block by block, without ever holding it whole.

The architecture is built on torch's meta device, where weights have shapes but no memory, and taken apart
(``anatomy``). To learn what each decoder block must be given (rotary embeddings, masks, sliding windows, positions),
the model's own forward runs once per shape with every block replaced by a recorder. So no architecture is copied here:
whatever a model passes to its blocks is what they get. One block at a time is then filled with its weights in float32.

Layers and tensors are named as the checkpoint names them, which is not always what they are called in memory.

Batches are padded on the right. Attention is causal, so a real token never sees the padding behind it, and no padding
mask is needed; what the padded positions compute is simply not counted.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from quantgate.errors import ModelError
from quantgate.models.anatomy import take_apart
from quantgate.models.experts import Experts, module_paths
from quantgate.models.tensors import TensorFiles, finite

CACHES = ("past_key_values", "layer_past")  # the arguments in which transformers' blocks take their cache
CONTEXTS_KEPT = 32  # recorded block arguments, one per batch shape


class Recorder(nn.Module):
    """Stands where a block stood: passes the hidden state on and remembers what came with it.

    With ``instead`` that is passed on. ``wrapped``: the model expects a tuple, as older architectures do.
    """

    wrapped = False

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.seen: tuple[Tensor, tuple[Any, ...], dict[str, Any]] | None = None
        self.instead: Tensor | None = None
        for name in ("attention_type", "layer_type", "is_sliding"):  # some models read these off the block
            if hasattr(block, name):
                setattr(self, name, getattr(block, name))

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.seen = (hidden_states, args, kwargs)
        given = hidden_states if self.instead is None else self.instead
        return (given,) if self.wrapped else given


class Block:
    """A decoder block with its weights in float32. ``block(hidden)`` maps [batch, tokens, hidden] to the same."""

    def __init__(self, walker: Walker, index: int, module: nn.Module, device: torch.device) -> None:
        self.index, self.module, self.device, self._walker = index, module, device, walker
        self.cache: Any = None  # what the attention hands its keys and values to, if anything

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        args, kwargs = self._walker.context(self.index, hidden.shape[0], hidden.shape[1], self.device)
        if self.cache is not None:
            kwargs = kwargs | {name: self.cache for name in CACHES if name in kwargs}
        out = self.module(hidden.to(self.device), *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]

    def linear(self, name: str) -> nn.Linear:
        """A linear layer by its full name, e.g. ``model.layers.0.mlp.up_proj``."""
        found = self.module_named(name)
        assert isinstance(found, nn.Linear)  # our own grouping only names linear layers
        return found

    def module_named(self, name: str) -> nn.Module:
        """Any module of the block that owns a tensor, by its full name."""
        return self.module.get_submodule(self._walker.paths[name].removeprefix(self._walker.prefix(self.index)))

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module inside the block that owns a weight, with its full name."""
        prefix, anatomy = self._walker.prefix(self.index), self._walker.anatomy
        weighty = (path for path, module in self.module.named_modules() if "weight" in module._parameters)
        return ((anatomy.module_name(prefix + path), self.module.get_submodule(path)) for path in weighty)

    def experts(self, layer: str) -> tuple[str, Experts] | None:
        """The expert that ``layer`` belongs to, by its full name, and all experts beside it; None outside of any."""
        path = self._walker.paths[layer].removeprefix(self._walker.prefix(self.index)).rpartition(".")[0]
        parent = self.module.get_submodule(path.rpartition(".")[0])
        return (layer.rpartition(".")[0], parent) if isinstance(parent, Experts) else None

    def copy(self) -> Block:
        """The same block with the same weights in memory; a weight that is put into the copy is not in the block.

        Hooks would be copied too: take copies before putting any on.
        """
        shared = [*self.module.parameters(), *self.module.buffers()]
        module = copy.deepcopy(self.module, {id(one): one for one in shared})
        return Block(self._walker, self.index, module, self.device)

    @property
    def config(self) -> Any:
        return self._walker.config


class Walker:
    """The meta model of one checkpoint, and how to step through it."""

    def __init__(self, config: Any, files: TensorFiles, where: str) -> None:
        self.config, self.files, self.where = config, files, where
        self.anatomy = take_apart(config, where)
        self.paths = module_paths(self.anatomy.stored)  # the checkpoint's name of a module -> its path in memory
        self.skeleton: Any = self.anatomy.model
        self.layers: list[nn.Module] = list(self.skeleton.get_submodule(self.anatomy.blocks))
        self.depth = len(self.layers)
        self._recorders = [Recorder(layer) for layer in self.layers]
        self._contexts: dict[tuple[Any, ...], list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self._check_names()
        setattr(self.anatomy.trunk, self.anatomy.blocks.rpartition(".")[2], nn.ModuleList(self._recorders))
        self._empty()
        self._learn_shape()
        self._groups: dict[int, list[list[str]]] = {}

    def prefix(self, index: int) -> str:
        """How the paths of block ``index`` begin in memory."""
        return f"{self.anatomy.blocks}.{index}."

    @property
    def wrapped(self) -> bool:
        """Whether the model's blocks give a tuple with the hidden state, as older architectures do."""
        return self._recorders[0].wrapped

    @property
    def head(self) -> str:
        """The checkpoint's name of the layer that makes logits; not stored where it is tied to the embeddings."""
        return self.anatomy.module_name(self.anatomy.head)

    @property
    def table(self) -> str:
        """The checkpoint's name of the embedding table."""
        owner = self.skeleton.get_input_embeddings()
        return self.anatomy.module_name(next(path for path, one in self.skeleton.named_modules() if one is owner))

    @property
    def has_experts(self) -> bool:
        return any(isinstance(module, Experts) for layer in self.layers for module in layer.modules())

    @cached_property
    def unquantized(self) -> dict[str, str]:
        """Linear layers and routers that are never quantized, by their checkpoint names -> why."""
        walked = {layer for index in range(self.depth) for group in self.groups(index) for layer in group}
        names = {self.anatomy.module_name(path): path for path in self.anatomy.matrices}
        return {
            name: "chooses or weighs experts"
            if path.startswith(f"{self.anatomy.blocks}.")
            else "is in no decoder block"
            for name, path in names.items()
            if name not in walked
        }

    @torch.no_grad()
    def embed(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states in front of block 0: each [batch, tokens] of ids becomes float32 [batch, tokens, hidden]."""
        with self._surroundings(torch.cat([ids.flatten() for ids in batches]).unique() if batches else None):
            hidden = []
            for ids in batches:
                self.anatomy.trunk(input_ids=ids, use_cache=False)
                seen = self._recorders[0].seen
                assert seen is not None  # the forward above has just filled it
                hidden.append(seen[0].clone())
            return hidden

    def finish(self, hidden: Tensor) -> Tensor:
        """What the last block gives [batch, tokens, hidden] -> what the head is given: the final norm, a projection."""
        (out,) = self.finished([hidden])
        return out

    @torch.no_grad()
    def finished(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """``finish`` for batch after batch, with what stands around the blocks read once."""
        with self._surroundings():
            for hidden in batches:
                self._recorders[-1].instead = hidden.cpu()
                try:
                    ids = torch.zeros(hidden.shape[:2], dtype=torch.long)
                    out = self.anatomy.trunk(input_ids=ids, use_cache=False).last_hidden_state
                finally:
                    self._recorders[-1].instead = None
                yield out

    def _learn_shape(self) -> None:
        """Whether the model's blocks give a tensor or a tuple with it; raises ModelError when neither goes through."""
        want, reason = [2, 3, self.config.hidden_size], "its blocks are not run one after the other"
        for wrapped in (False, True):
            for recorder in self._recorders:
                recorder.wrapped = wrapped
            try:
                seen, out = self._pass(2, 3)
            except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as problem:
                reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:120]
                continue
            shapes = [list(one[0].shape) for one in seen]
            if len(seen) == self.depth and all(shape == want for shape in shapes) and list(out.shape[:2]) == want[:2]:
                return
        raise ModelError(
            f"{self.where}: {type(self.skeleton).__name__} cannot be walked block by block: {reason}; expected blocks "
            "that hand on one tensor [batch, tokens, hidden]"
        )

    @contextlib.contextmanager
    def _surroundings(self, ids: Tensor | None = None) -> Iterator[None]:
        """The trunk with the weights of everything around the blocks; of the token embeddings only those of ``ids``."""
        table = self.skeleton.get_input_embeddings()
        try:
            for name in self.anatomy.around:
                if ids is not None and self._owner(name)[0] is table and name.endswith(".weight"):
                    self._put(name, self.files.rows(self.anatomy.stored[name], ids))
                else:
                    self._put(name, self._read(name))
            yield
        finally:
            self._empty()

    def _empty(self) -> None:
        """Zeros that take no memory for every tensor around the blocks: enough to learn shapes and masks."""
        for name in self.anatomy.around:
            module, leaf = self._owner(name)
            self._put(name, torch.zeros(()).expand(module._parameters[leaf].shape))  # type: ignore[union-attr]

    def _put(self, name: str, tensor: Tensor) -> None:
        module, leaf = self._owner(name)
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        path, _, leaf = name.rpartition(".")
        return self.skeleton.get_submodule(path), leaf

    def _read(self, name: str, device: torch.device | str = "cpu") -> Tensor:
        """A tensor by its name in memory, in float32. Raises BadTensor on NaN or Inf."""
        stored = self.anatomy.stored[name]
        tensor = self.files.read(stored)
        finite(tensor, stored, self.files.entry(stored).file)
        return tensor.to(device=device, dtype=torch.float32)

    @contextlib.contextmanager
    def block(self, index: int, device: torch.device) -> Iterator[Block]:
        """Block ``index`` with its weights, released when the ``with`` ends. Raises BadTensor on NaN or Inf."""
        module = copy.deepcopy(self.layers[index])
        state = {name: self._read(self.prefix(index) + name, device) for name in module.state_dict()}
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
        seen, _ = self._pass(batch, tokens)
        return [(_move(one[1], device), _move(one[2], device)) for one in seen]

    @torch.no_grad()
    def _pass(self, batch: int, tokens: int) -> tuple[list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]], Tensor]:
        """Run the model without its blocks: what each of them is given, and what the final norm gives."""
        out = self.anatomy.trunk(input_ids=torch.zeros(batch, tokens, dtype=torch.long), use_cache=False)
        seen = [recorder.seen for recorder in self._recorders]
        for recorder in self._recorders:
            recorder.seen = None
        return [one for one in seen if one is not None], out.last_hidden_state

    @torch.no_grad()
    def _trace(self, index: int) -> list[list[str]]:
        layer, handed, order = self.layers[index], dict[int, list[str]](), list[Tensor]()

        def remember(name: str, _module: nn.Module, args: tuple[Tensor]) -> None:
            handed.setdefault(id(args[0]), []).append(name)
            order.append(args[0])  # kept alive, so that no id is used twice

        hooks = [
            module.register_forward_pre_hook(partial(remember, self._name(index, path)))
            for path, module in layer.named_modules()
            if isinstance(module, nn.Linear) and module.out_features > 1  # one output is a gate, not worth a code
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

    def _name(self, index: int, path: str) -> str:
        return self.anatomy.module_name(self.prefix(index) + path)

    def _check_names(self) -> None:
        """Every tensor that the architecture needs is in the files with the right shape. Raises ModelError."""
        tied = {f"{self.head}.weight"} if self.config.tie_word_embeddings else set()
        for path, want in self.skeleton.state_dict().items():
            name = self.anatomy.stored[path]
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


def _move(value: Any, device: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_move(one, device) for one in value)
    if isinstance(value, dict):
        return {key: _move(one, device) for key, one in value.items()}
    return value
