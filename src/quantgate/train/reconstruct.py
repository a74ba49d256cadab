"""The cheap first stage: one block after the other is held to what the full-precision model gives there.

A block is given what the quantized blocks before it make, and is to give what the model's own block gives on the
model's own stream. Its weights, scales and zero points are trained together (Block-AP: EfficientQAT, arXiv 2407.11062,
section 3.2; BRECQ, arXiv 2102.05426, section 3.2, with the plain squared error). In memory are the two streams of some
of the documents; a gradient costs a forward and a backward pass of one block.

    folder/block-00003.safetensors     parameters of a finished block
    folder/block-00003.json            written last, with the digest of the above: a killed run goes on after it
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quantgate.errors import TrainingError
from quantgate.models import OpenedModel
from quantgate.models.walker import Block
from quantgate.records import digest_file, disk_errors, write_whole
from quantgate.train import Batch, Document, Tell, TrainingSet, tokens_of
from quantgate.train.loop import BETAS, schedule
from quantgate.train.network import FakeBlock, FakeNetwork
from quantgate.train.options import QatOptions
from quantgate.train.order import batches, packed

TOKENS = 65_536  # of the training documents: what a stream holds at most, float32 [tokens, hidden], two of them
HELD_TOKENS = 8_192  # of the tune documents: what decides when a block is done
LOOKS = 4  # at the held-out error of a block, evenly over its steps, besides the one before the first
Stream = list[Tensor]  # [length, hidden] of each document, on the CPU


@dataclass(frozen=True)
class Rebuilt:
    """What became of one block: mean squared error on held-out documents, over the mean square of what was wanted."""

    block: int
    before: float
    after: float
    steps: int  # of the state that was kept; 0: the one it came with


@dataclass
class _Side:
    """Documents, what stands before the current block in both streams, and what the model's block gives."""

    documents: list[Document]
    rounded: Stream
    exact: Stream
    wanted: Stream


def reconstruct(
    network: FakeNetwork, model: OpenedModel, data: TrainingSet, options: QatOptions, folder: Path, *, tell: Tell
) -> list[Rebuilt]:
    """Train every block of ``network`` in place for up to ``options.reconstruct`` steps; a block keeps its best state.

    Raises TrainingError for an error that is no finite number, DiskFull; finished blocks are kept.
    """
    train, held = (_begin(model, some) for some in (_some(data.documents, TOKENS), _some(data.tune, HELD_TOKENS)))
    found = []
    for index in range(network.depth):
        block = network.block(index)
        with model.block(index, network.device) as exact:
            for side in (train, held):
                side.wanted = _advance(exact, side.documents, side.exact, options.batch_tokens)
        one = _read(folder, index, block) or _rebuild(block, train, held, options, folder)
        found.append(one)
        tell("reconstruct", index + 1, network.depth)
        with block.still():
            for side in (train, held):
                side.rounded = _advance(block, side.documents, side.rounded, options.batch_tokens)
                side.exact = side.wanted
    return found


def _some(documents: Sequence[Document], tokens: int) -> list[Document]:
    """The first ones that hold about ``tokens``, all sources alike: the order of a training set goes through them."""
    if (whole := tokens_of(documents)) <= tokens:
        return list(documents)
    every = whole / tokens
    return [documents[int(at * every)] for at in range(int(len(documents) / every))]


def _begin(model: OpenedModel, documents: list[Document]) -> _Side:
    rows = range(len(documents))
    hidden: Stream = [torch.empty(0)] * len(documents)
    for batch in packed(documents, rows, 4096):
        (made,) = model.embed([batch.ids])
        _put(hidden, batch, made, documents)
    return _Side(documents, hidden, hidden, [])


@torch.no_grad()
def _advance(block: Block | FakeBlock, documents: list[Document], stream: Stream, room: int) -> Stream:
    made: Stream = [torch.empty(0)] * len(documents)
    for batch in packed(documents, range(len(documents)), room):
        _put(made, batch, block(_gather(stream, batch.rows)), documents)
    return made


def _put(stream: Stream, batch: Batch, hidden: Tensor, documents: list[Document]) -> None:
    for at, row in enumerate(batch.rows):
        stream[row] = hidden[at, : len(documents[row].ids)].float().cpu().clone()


def _gather(stream: Stream, rows: Sequence[int]) -> Tensor:
    """[rows, length, hidden], padded on the right with zeros."""
    return nn.utils.rnn.pad_sequence([stream[row] for row in rows], batch_first=True)


def _rebuild(block: FakeBlock, train: _Side, held: _Side, options: QatOptions, folder: Path) -> Rebuilt:
    parameters = {name: one for group in block.groups() for name, one in group.parameters.items()}
    optimizer = _optimizer(block, options)
    error = before = _error(block, held, options)
    best = {name: one.detach().clone() for name, one in parameters.items()}
    kept, steps = 0, options.reconstruct
    looks = {math.ceil(steps * at / LOOKS) for at in range(1, LOOKS + 1)}
    for step in range(steps):
        _step(block, optimizer, train, step, options, parameters)
        if step + 1 in looks:
            now = _error(block, held, options)
            if now < error:
                error, kept = now, step + 1
                best = {name: one.detach().clone() for name, one in parameters.items()}
            elif step + 1 - kept > 2 * steps / LOOKS:  # rose twice: what it learns is the documents
                break
    with torch.no_grad():
        for name, one in parameters.items():
            one.copy_(best[name])
    return _write(folder, Rebuilt(block.index, before, error, kept), best)


def _optimizer(block: FakeBlock, options: QatOptions) -> torch.optim.AdamW:
    groups = [{"params": list(one.parameters.values()), "times": one.rate} for one in block.groups()]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=BETAS, weight_decay=0.0)


def _step(
    block: FakeBlock, optimizer: torch.optim.AdamW, train: _Side, step: int, options: QatOptions,
    parameters: dict[str, nn.Parameter],
) -> None:  # fmt: skip
    chosen = batches(train.documents, options.batch_tokens, step, options.seed + block.index)
    size = sum(float(train.wanted[row].square().sum()) for batch in chosen for row in batch.rows)
    total = 0.0
    with block.step():
        for batch in chosen:
            off = _off(block, train, batch) / size
            off.backward()
            total += float(off.detach())
    norm = nn.utils.clip_grad_norm_(parameters.values(), options.clip_norm)
    if not math.isfinite(total) or not math.isfinite(float(norm)):
        raise TrainingError(
            f"reconstruct: block {block.index}, step {step + 1}: the error or its gradient is not finite; set "
            f"learning_rate to {options.learning_rate / 3:.2g} (a third), or reconstruct to 0. Finished blocks are kept"
        )
    share = schedule(step, options.reconstruct, options.warmup, options.final_rate)
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * group["times"] * share
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _error(block: FakeBlock, held: _Side, options: QatOptions) -> float:
    off = size = 0.0
    with block.still():
        for batch in packed(held.documents, range(len(held.documents)), options.batch_tokens):
            off += float(_off(block, held, batch))
            size += sum(float(held.wanted[row].square().sum()) for row in batch.rows)
    return off / size


def _off(block: FakeBlock, side: _Side, batch: Batch) -> Tensor:
    """Squared distance to what is wanted, summed over real positions."""
    wanted, lengths = _gather(side.wanted, batch.rows), [len(side.documents[row].ids) for row in batch.rows]
    real = torch.arange(wanted.shape[1]) < torch.tensor(lengths)[:, None]
    made = block(_gather(side.rounded, batch.rows)).float()
    off = (made - wanted.to(made.device)).square().sum(-1)
    return (off * real.to(made.device)).sum()


def _write(folder: Path, found: Rebuilt, state: dict[str, Tensor]) -> Rebuilt:
    file = folder / f"block-{found.block:05d}.safetensors"
    aside = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: one.cpu().contiguous() for name, one in state.items()}, aside)
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
    marker = {"sha256": digest_file(file), **asdict(found)}
    write_whole(file.with_suffix(".json"), json.dumps(marker, indent=1).encode())
    return found


@torch.no_grad()
def _read(folder: Path, index: int, block: FakeBlock) -> Rebuilt | None:
    """Fill ``block`` with what an earlier run finished; None: nothing, or not the bytes that were written."""
    file = folder / f"block-{index:05d}.safetensors"
    try:
        told = json.loads(file.with_suffix(".json").read_bytes())
        if digest_file(file) != told.pop("sha256"):
            return None
        state, found = load_file(file), Rebuilt(**told)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    for name, one in _parameters(block):
        one.copy_(state[name])
    return found


def _parameters(block: FakeBlock) -> Iterator[tuple[str, nn.Parameter]]:
    for group in block.groups():
        yield from group.parameters.items()
