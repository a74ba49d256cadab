"""How much a teacher needs each of its parts, measured on conversations.

Blocks: the KL of the model that passes over one, taken away greedily and measured again after each; in deep models
Block Influence (ShortGPT, arXiv 2403.03853, equation 1) first leaves only the half that changes its input least.

Heads, feed-forward channels and channels of the stream: Minitron (arXiv 2407.14679, section 2.2) ranks them by the size
of their activations. Here the size of what they add to the output of the layers that read them: for input x with
H = E[x x^T] and a layer W, leaving out the columns C costs tr(W_C H_CC W_C^T) of its output's energy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantgate.models import OpenedModel
from quantgate.train import Document
from quantgate.train._shapes import Shape

LOOK_TOKENS = 8192  # of conversations that are looked at
LOOK_VALUES = 2**26  # log probabilities of the teacher that are held; a large vocabulary means fewer positions
ROWS_TOKENS = 2048  # of one forward pass
DEEP = 12  # blocks from which on Block Influence halves what is measured

Told = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True, eq=False)
class Look:
    """A teacher in memory, what it is looked at with, and what it says there itself."""

    network: Any  # a transformers model, float32, eval
    blocks: nn.ModuleList
    batches: list[tuple[Tensor, Tensor, Tensor]]  # ids [rows, length], counted bool [rows, length], weights [N]
    logs: list[Tensor] = field(default_factory=list)  # [N, vocabulary], the teacher's

    @torch.no_grad()
    def run(self) -> Iterator[Tensor]:
        """Log probabilities [N, vocabulary] at the counted positions of batch after batch."""
        for ids, counted, _ in self.batches:
            logits = self.network(input_ids=ids, use_cache=False).logits
            yield F.log_softmax(logits[counted].float(), dim=-1)

    def divergence(self) -> float:
        """Mean KL(teacher || what the network is now) in nats a token, each as much as it counts."""
        lost = total = 0.0
        for logs, now, (_, _, weights) in zip(self.logs, self.run(), self.batches, strict=True):
            each = (logs.exp() * (logs - now)).sum(-1)
            lost, total = lost + float((each.double() * weights).sum()), total + float(weights.sum())
        return lost / total


def look_at(model: OpenedModel, documents: Sequence[Document], device: torch.device) -> Look:
    """The teacher whole, in float32, and what it says of ``documents``. Raises ModelError for what cannot be loaded."""
    from quantgate.quantize.artifact import baseline
    from quantgate.quantize.load import load_dequantized

    network = load_dequantized(baseline(model), torch.float32).to(device).requires_grad_(False)
    blocks = network.get_submodule(model.walker.anatomy.blocks)
    look = Look(network, blocks, _batches(spread(documents, model.config.vocab_size), device))
    look.logs.extend(look.run())
    return look


def spread(documents: Sequence[Document], vocabulary: int) -> list[Document]:
    """Some of the documents, from each source in turn, until their tokens or their counted positions are enough."""
    by: dict[str, list[Document]] = {}
    for one in documents:
        by.setdefault(one.source, []).append(one)
    chosen, tokens, positions = list[Document](), 0, 0
    most = max(1, LOOK_VALUES // vocabulary)
    for at in range(max(map(len, by.values()), default=0)):
        for one in (rest[at] for rest in by.values() if at < len(rest)):
            tokens, positions = tokens + len(one.ids), positions + len(one.counted)
            if chosen and (tokens > LOOK_TOKENS or positions > most):
                return chosen
            chosen.append(one)
    return chosen


def _batches(documents: Sequence[Document], device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
    parts: list[list[Document]] = [[]]
    for one in sorted(documents, key=lambda one: len(one.ids)):
        if parts[-1] and (len(parts[-1]) + 1) * len(one.ids) > ROWS_TOKENS:
            parts.append([])
        parts[-1].append(one)
    return [_batch(part, device) for part in parts if part]


def _batch(part: list[Document], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    length = max(len(one.ids) for one in part)
    ids = torch.tensor([one.ids + [0] * (length - len(one.ids)) for one in part], device=device)
    weights = torch.tensor([one.wanted[1:] + [0.0] * (length - len(one.ids) + 1) for one in part], device=device)
    return ids, weights > 0, weights[weights > 0].double()


@contextmanager
def without(look: Look, gone: Sequence[int]) -> Iterator[None]:
    """The network passes over some of its blocks: each gives what it is given, in the form that the model expects."""
    forms = _forms(look, gone)
    for at in gone:
        setattr(look.blocks[at], "forward", _passing(tuple_form=forms[at]))  # noqa: B010 - on this one alone
    try:
        yield
    finally:
        for at in gone:
            delattr(look.blocks[at], "forward")


def _passing(*, tuple_form: bool) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, *_args: Any, **_named: Any) -> Any:
        return (hidden_states,) if tuple_form else hidden_states

    return forward


@torch.no_grad()
def _forms(look: Look, gone: Sequence[int]) -> dict[int, bool]:
    """Which of the blocks give their output as a tuple, as older architectures do."""
    found: dict[int, bool] = {}

    def remember(at: int, _module: nn.Module, _args: Any, out: Any) -> None:
        found[at] = isinstance(out, tuple)

    with ExitStack() as hooks:
        for at in gone:
            hook = look.blocks[at].register_forward_hook(partial(remember, at))
            hooks.callback(hook.remove)
        if gone:
            look.network(input_ids=look.batches[0][0][:1, :2], use_cache=False)
    return found


@torch.no_grad()
def influence(look: Look) -> list[float]:
    """Block Influence of every block: 1 - E[cos(what it is given, what it gives)], over the counted positions.

    ShortGPT, arXiv 2403.03853, equation 1. 0: the block changes no direction.
    """
    lost, counts = [0.0] * len(look.blocks), 0
    counted = torch.empty(0)

    def remember(at: int, _module: nn.Module, args: Any, named: dict[str, Any], out: Any) -> None:
        before = args[0] if args else named["hidden_states"]
        after = out[0] if isinstance(out, tuple) else out
        lost[at] += float((1 - F.cosine_similarity(before[counted], after[counted], dim=-1)).sum())

    with ExitStack() as hooks:
        for at, block in enumerate(look.blocks):
            hooks.callback(block.register_forward_hook(partial(remember, at), with_kwargs=True).remove)
        for ids, counted, _ in look.batches:
            look.network(input_ids=ids, use_cache=False)
            counts += int(counted.sum())
    return [max(0.0, one / counts) for one in lost]


@dataclass(frozen=True)
class Round:
    """One step of greedy removal."""

    measured: dict[int, float]  # block -> KL of the model without it and without those that went before
    removed: int


def remove_blocks(look: Look, count: int, influences: Sequence[float], tell: Told) -> list[Round]:
    """Which ``count`` blocks go, one after the other, the cheapest each time."""
    rounds, gone = list[Round](), list[int]()
    total = sum(len(_candidates(len(look.blocks) - at)) for at in range(count))
    done = 0
    for _ in range(count):
        left = sorted((at for at in range(len(look.blocks)) if at not in gone), key=lambda at: influences[at])
        measured: dict[int, float] = {}
        for at in sorted(left[place] for place in _candidates(len(left))):
            with without(look, [*gone, at]):
                measured[at] = look.divergence()
            done += 1
            tell("importance of blocks", done, total)
        removed = min(measured, key=lambda at: (measured[at], influences[at], at))
        gone.append(removed)
        rounds.append(Round(measured, removed))
    return rounds


def _candidates(left: int) -> range:
    """How many of the least influential are measured.

    >>> len(_candidates(6)), len(_candidates(32))
    (6, 16)
    """
    return range(left if left < DEEP else (left + 1) // 2)


@dataclass(frozen=True, eq=False)
class Widths:
    """What leaving out each part costs, as a share of the energy of what reads it; sums over all parts are about 1."""

    groups: list[Tensor]  # of every block [kv_heads]: a key-value group with its heads
    feed_forward: list[Tensor]  # of every block [channels]
    hidden: Tensor  # [channels], over all layers that read the stream
    moments: dict[str, Tensor]  # norm (path in memory) -> [hidden] E[x_i^2] of what it is given


@torch.no_grad()
def measure_widths(look: Look, shape: Shape, gone: Sequence[int], final: str) -> Widths:
    """Look at what is inside the network without the blocks ``gone``; ``final``: the path of the last norm."""
    paths = {id(module): path for path, module in look.network.named_modules()}
    left = [block for at, block in enumerate(look.blocks) if at not in gone]
    outs = [block.get_submodule("self_attn.o_proj") for block in left]
    downs = [block.get_submodule("mlp.down_proj") for block in left]
    norms = [m for block in left for m in block.modules() if _norms(m, shape.hidden)] + [
        look.network.get_submodule(final)
    ]
    readers = [
        m for block in left for m in block.modules() if isinstance(m, nn.Linear) and m.in_features == shape.hidden
    ]
    readers = [m for m in readers if m not in outs and m not in downs] + [look.network.get_output_embeddings()]
    seen = _Moments(shape.kv_heads)
    with ExitStack() as hooks, without(look, gone):
        for kind, modules in (("square", [*downs, *norms, *readers]), ("groups", outs)):
            for module in modules:
                hooks.callback(module.register_forward_pre_hook(getattr(seen, kind)).remove)
        for ids, counted, _ in look.batches:
            seen.counted = counted
            look.network(input_ids=ids, use_cache=False)
    hidden = sum(_shares(seen.squares[id(m)] * _weight(m).square().sum(0)) for m in readers)
    return Widths(
        [_shares(_group_costs(_weight(m), seen.products[id(m)])) for m in outs],
        [_shares(seen.squares[id(m)] * _weight(m).square().sum(0)) for m in downs],
        torch.as_tensor(hidden).cpu() / len(readers),
        {paths[id(m)]: (seen.squares[id(m)] / seen.counts[id(m)]).cpu() for m in norms},
    )


class _Moments:
    """Second moments of what modules are given, at the counted positions."""

    def __init__(self, groups: int) -> None:
        self.groups_count, self.counted = groups, torch.empty(0)
        self.squares: dict[int, Tensor] = {}
        self.products: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}

    def square(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = self._rows(args[0])
        key = id(module)
        self.squares[key] = self.squares.get(key, 0) + x.square().sum(0)
        self.counts[key] = self.counts.get(key, 0) + len(x)

    def groups(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = self._rows(args[0]).unflatten(-1, (self.groups_count, -1)).transpose(0, 1)  # [groups, rows, columns]
        self.products[id(module)] = self.products.get(id(module), 0) + x.transpose(1, 2) @ x

    def _rows(self, x: Tensor) -> Tensor:
        """[N, columns]; a head may be given only some positions, or all of them."""
        return x[self.counted].float() if x.shape[:2] == self.counted.shape else x.flatten(0, -2).float()


def _norms(module: nn.Module, hidden: int) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and tuple(weight.shape) == (hidden,)


def _weight(module: nn.Module) -> Tensor:
    """float32 [out, in] of a linear layer."""
    return module.get_parameter("weight").float()


def _group_costs(weight: Tensor, products: Tensor) -> Tensor:
    """tr(W_g H_g W_g^T) of every group's columns, [groups].

    ``weight`` [out, groups * width], ``products`` [groups, width, width].
    """
    parts = weight.unflatten(1, (len(products), -1)).transpose(0, 1)  # [groups, out, width]
    costs: Tensor = (parts @ products * parts).sum((1, 2))
    return costs


def _shares(costs: Tensor) -> Tensor:
    total = costs.sum()
    return (costs / total if total > 0 else costs).cpu()
