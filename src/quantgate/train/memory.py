"""How much memory training takes, told before it starts; and what running out of it looks like.

    budget = Budget.of(network, options, longest=512, threads=2)
    budget.refuse(folder)                      # TrainingError: what a step takes, what is there, what to change

What a block keeps for the way back is counted tensor by tensor for a decoder block with a gated MLP in float32, as
Korthikanti et al. count it for a GPT block in 16 bits (arXiv 2205.05198, section 4.1). Held against the tensors that
autograd keeps of the reference model, it is right within a tenth.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantgate.errors import TrainingError
from quantgate.quantize import machine
from quantgate.train import Network
from quantgate.train.options import QatOptions, TrainOptions

FLOAT = 4  # bytes
LOGITS = 5  # sets of them: as they are, log softmax, without the k, and gradients of two
ADAPTERS = 16  # the rank that is proposed
SHORT = 64  # tokens: shorter documents are not proposed to be cut


@dataclass(frozen=True)
class Shape:
    """Of a decoder, as its configuration tells it."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int  # channels of one
    feed_forward: int  # channels that one token goes through; of mixtures: over the experts it is sent to
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Shape | None:
        """From a transformers configuration; None where it does not tell by the usual names."""
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
        if any(not isinstance(getattr(config, name, None), int) for name in names):
            return None
        hidden, heads = config.hidden_size, config.num_attention_heads
        wide = getattr(config, "intermediate_size", None) or 4 * hidden
        experts = getattr(config, "num_experts_per_tok", None)
        each = getattr(config, "moe_intermediate_size", None) or wide
        return cls(
            config.num_hidden_layers, hidden, heads, getattr(config, "num_key_value_heads", None) or heads,
            getattr(config, "head_dim", None) or hidden // heads, experts * each if experts else wide,
            config.vocab_size,
        )  # fmt: skip


@dataclass(frozen=True)
class Need:
    """Bytes, by what they are for."""

    weights: int  # as they are trained, as they are rounded, and their running average
    gradients: int  # one set a thread, and one of the parameters
    optimizer: int  # AdamW's two moments
    activations: int  # what the batches that are under way at once keep for the way back
    logits: int  # and what the losses keep of them

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in vars(self).items())
        return f"{gigabytes(self.total)} ({parts})"


def estimate(
    parameters: int,
    trained: int,
    shape: Shape | None,
    *,
    tokens: int,
    checkpointing: bool,
    threads: int = 1,
    averaged: bool = False,
) -> Need:
    """What a step takes at most, where ``tokens`` are under way at once, all of them counted.

    Without ``shape``, weights and optimizer alone are known.
    """
    activations = logits = 0
    if shape is not None:
        block, given = per_token(shape), FLOAT * shape.hidden
        activations = tokens * (shape.layers * given + block if checkpointing else shape.layers * block)
        logits = tokens * shape.vocabulary * FLOAT * LOGITS
    weights = parameters + trained * (2 if averaged else 1)
    return Need(FLOAT * weights, FLOAT * trained * (1 + threads), FLOAT * 2 * trained, activations, logits)


def per_token(shape: Shape) -> int:
    """Bytes that one block keeps of one token for the way back, in float32, its inputs rounded.

    Two norms keep their input, the same over its length, and their output; one rounded input stands beside what it was
    made of; attention keeps queries, keys and values (as many as queries), its output twice and one number a head; the
    MLP gate, its activation, up, and their product.
    """
    queries = shape.heads * shape.head
    return FLOAT * (7 * shape.hidden + 5 * queries + shape.heads + 4 * shape.feed_forward)


@dataclass(frozen=True)
class Cure:
    """A setting as one writes it, and what a step takes with it."""

    setting: str
    need: Need


@dataclass(frozen=True)
class Budget:
    """What a step takes, what is there, and what would make it smaller."""

    need: Need
    free: int | None  # bytes, with what the network holds already; None: nobody tells
    cures: tuple[Cure, ...]

    @classmethod
    def of(cls, network: Network, options: TrainOptions, *, longest: int, threads: int, batch: int) -> Budget:
        """``longest``: tokens of the longest document; ``batch``: most tokens of one batch, of ``threads`` at once."""
        held: dict[int, torch.Tensor] = {
            id(one): one for group in network.groups() for one in group.parameters.values()
        }
        trained = sum(one.numel() for one in held.values())
        low = sum(ADAPTERS * sum(one.shape) if one.dim() == 2 else one.numel() for one in held.values())
        model = getattr(network, "model", None)
        if isinstance(model, torch.nn.Module):
            held |= {id(one): one for one in model.parameters()}
        parameters = sum(one.numel() for one in held.values())
        shape = Shape.of(getattr(model, "config", None))

        def need(
            share: float = 1,
            checkpointing: bool = options.gradient_checkpointing,
            moved: int = trained,
            most: int = longest,
        ) -> Need:
            tokens = threads * max(most, int(batch * share))
            return estimate(
                parameters, moved, shape, tokens=tokens, checkpointing=checkpointing, threads=threads,
                averaged=options.average > 0,
            )  # fmt: skip

        cures = []
        if shape is not None and not options.gradient_checkpointing:
            cures.append(Cure("gradient_checkpointing: true", need(checkpointing=True)))
        if shape is not None and longest < batch:
            cures.append(Cure(f"batch_tokens: {options.batch_tokens // 2}", need(0.5)))
        if shape is not None and batch <= longest and longest >= SHORT:
            cures.append(Cure(f"max_tokens: {longest // 2}", need(0.5, most=longest // 2)))
        if isinstance(options, QatOptions) and options.adapters is None:
            cures.append(Cure(f"adapters: {ADAPTERS}", need(moved=min(low, trained))))
        free = room(torch.device(network.device))
        whole = need()
        return cls(
            whole,
            None if free is None else free + FLOAT * parameters,
            tuple(one for one in cures if one.need.total < whole.total),
        )

    def refuse(self, where: Path) -> None:
        """Raises TrainingError, before the start, when a step takes more than is there."""
        if self.free is not None and self.need.total > self.free:
            raise TrainingError(f"{where}: {self}")

    def __str__(self) -> str:
        """Needed, there, and what to change: the first setting that is enough alone, otherwise all of them."""
        there = "" if self.free is None else f", and {gigabytes(self.free)} are there"
        enough = [one for one in self.cures if self.free is not None and one.need.total <= self.free]
        ways = ", or ".join(f"{one.setting} (then {gigabytes(one.need.total)})" for one in enough[:1] or self.cures)
        fits = self.free is not None and self.need.total <= self.free
        others = "look for other programs or a limit that took the rest, or " if fits else ""
        return f"a step takes about {self.need} of memory{there}; {others}" + (
            f"set {ways}" if ways else "take a smaller model"
        )


def room(device: torch.device) -> int | None:
    """Bytes that this process can still take on ``device``; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = machine.free()
    if sys.platform == "linux":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            free = min(max(0, limit - mapped), limit if free is None else free)
    return free


def out_of_memory(problem: BaseException) -> bool:
    """Whether an error means that memory ran out: CUDA's own, the CPU allocator's, or Python's."""
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    told = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(
        words in told for words in ("can't allocate memory", "out of memory", "can't start new thread")
    )


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
