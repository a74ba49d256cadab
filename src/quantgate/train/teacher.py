"""What the teacher expects at every counted position: asked once, kept on disk, shared by all runs of the same data.

    teacher = Teacher(logits_of, data, folder, key, k=64, batch_tokens=4096)
    tops = teacher.of(batch)                   # Tops of its N positions

One shard holds some hundred documents, in their order, under a name that follows from the teacher's key, k and those
documents alone: a killed run goes on at the next shard, and another run with some of the same documents takes them as
they are. A shard whose bytes are not those it was written with is asked again.

A position takes 4 k + 2 bytes (2 of a token, 2 of its log; tokens of vocabularies over 65,536 take 4): 258 bytes at
k = 64, so 600,000 positions are 155 MB.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantgate.models import OpenedModel
from quantgate.records import digest_of, disk_errors
from quantgate.train import Batch, Document, Tell, Tops, TrainingSet
from quantgate.train.devices import Devices, here
from quantgate.train.network import PlainNetwork, open_network
from quantgate.train.order import packed

SHARD_POSITIONS = 65_536
LogitsOf = Callable[[Tensor, Tensor], Tensor]  # ids, counted -> [N, vocabulary]


class Asked:
    """A model's logits; it is opened when they are asked for first, and not where all are on disk."""

    def __init__(self, model: OpenedModel, device: str, precision: str) -> None:
        self.model, self.device, self.precision = model, device, precision

    @cached_property
    def network(self) -> PlainNetwork:
        return open_network(self.model, device=self.device, precision=self.precision)

    def __call__(self, ids: Tensor, counted: Tensor) -> Tensor:
        with self.network.still():
            return self.network.logits(ids, counted)


class Teacher:
    """Its k likeliest tokens at the counted positions of ``data``.

    ``logits_of`` gives the teacher's logits and is called without gradients, only for what ``folder`` does not hold;
    ``key`` names the teacher (the digest of its weights). Raises DiskFull; what is finished stays.
    """

    def __init__(
        self,
        logits_of: LogitsOf,
        data: TrainingSet,
        folder: Path,
        key: str,
        k: int,
        batch_tokens: int,
        *,
        tell: Tell | None = None,
        devices: Devices | None = None,
    ) -> None:
        self.key, self.k = key, k
        self.reused = self.positions = 0  # of how many positions the answers lay there already
        self._logits_of, self._batch_tokens, self._folder = logits_of, batch_tokens, folder
        self._tell: Tell = tell or (lambda stage, done, total, row=None: None)
        devices = devices or here()
        with devices.main_first():
            self._held = {
                tune: _Held(self._all(documents)) for tune, documents in ((0, data.documents), (1, data.tune))
            }

    def of(self, batch: Batch, tune: bool = False) -> Tops:
        """Its answers at the N counted positions of ``batch``, in their order; ``tune``: rows are tune documents."""
        return self._held[tune].of(batch.rows)

    def _all(self, documents: Sequence[Document]) -> list[tuple[list[int], dict[str, Tensor]]]:
        """(positions of each document, tensors) of every shard."""
        found, done = [], 0
        for shard in _shards(documents):
            counts = [len(one.counted) for one in shard]
            path = self._folder / f"{self._name(shard)}.safetensors"
            tensors = _read(path, sum(counts))
            if tensors is None:
                _write(path, _narrow(self._ask(shard), self.k))
                tensors = _read(path, sum(counts))
                assert tensors is not None
            else:
                self.reused += sum(counts)
            self.positions += sum(counts)
            found.append((counts, tensors))
            done += len(shard)
            self._tell("teacher", done, len(documents))
        return found

    def _name(self, shard: Sequence[Document]) -> str:
        return digest_of([self.key, self.k, [[one.ids, one.counted] for one in shard]])[7:39]

    @torch.no_grad()
    def _ask(self, shard: Sequence[Document]) -> dict[str, Tensor]:
        """tokens [n, k], logs [n, k] and the log of all that is left, rest [n]."""
        parts: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for batch in packed(shard, range(len(shard)), self._batch_tokens):
            logs = torch.log_softmax(self._logits_of(batch.ids, batch.counted).float(), 1)
            top, tokens = logs.topk(min(self.k, logs.shape[1]), dim=1)
            rest = logs.scatter(1, tokens, -torch.inf).logsumexp(1)
            counts = batch.counted.sum(1).tolist()
            rows = zip(tokens.cpu().split(counts), top.cpu().split(counts), rest.cpu().split(counts), strict=True)
            parts |= dict(zip(batch.rows, rows, strict=True))
        ordered = [parts[at] for at in range(len(shard))]
        return {name: torch.cat([one[at] for one in ordered]) for at, name in enumerate(("tokens", "logs", "rest"))}


class _Held:
    """All shards of one set of documents, by document."""

    def __init__(self, shards: list[tuple[list[int], dict[str, Tensor]]]) -> None:
        self._places: list[tuple[int, int, int]] = []  # shard, first position, last
        self._shards = [tensors for _, tensors in shards]
        for index, (counts, _) in enumerate(shards):
            start = 0
            for count in counts:
                self._places.append((index, start, start + count))
                start += count

    def of(self, rows: Sequence[int]) -> Tops:
        parts = [(self._shards[shard], slice(start, end)) for shard, start, end in (self._places[row] for row in rows)]
        tokens, logs, rest = (torch.cat([held[name][at] for held, at in parts]) for name in ("tokens", "logs", "rest"))
        wide = tokens.long() & 0xFFFF if tokens.dtype == torch.int16 else tokens.long()
        return Tops(wide, _whole(logs.float(), rest.float()))


def _whole(logs: Tensor, rest: Tensor) -> Tensor:
    """Logs whose probabilities and ``rest`` add up to 1 again, which float16 alone does not keep.

    Where two tokens share a position evenly, float16 is off by 2e-4; taken for the rest's, that would be read as a KL
    of a thousandth of a nat between equals.
    """
    share = torch.log1p(-rest.exp().clamp(max=1 - 1e-6))
    return logs + (share - logs.logsumexp(1))[:, None]


def _narrow(answers: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    tokens = answers["tokens"]
    small = tokens.to(torch.int32).to(torch.int16) if int(tokens.max()) < 2**16 else tokens.to(torch.int32)
    logs = answers["logs"].clamp(min=-6e4)
    return {"tokens": small, "logs": logs.half(), "rest": answers["rest"].clamp(min=-6e4).half()}


def _shards(documents: Sequence[Document]) -> list[list[Document]]:
    shards, positions = list[list[Document]](), SHARD_POSITIONS
    for one in documents:
        if positions >= SHARD_POSITIONS:
            shards.append([])
            positions = 0
        shards[-1].append(one)
        positions += len(one.counted)
    return shards


def _digest(tensors: dict[str, Tensor]) -> str:
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        hashed.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}\n".encode())
        hashed.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Aside, flushed, renamed. Raises DiskFull with nothing left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk_errors(path):
            save_file(tensors, aside, metadata={"content": _digest(tensors)})
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path, positions: int) -> dict[str, Tensor] | None:
    """None where there is no such shard, or not the one that was written."""
    try:
        with safe_open(path, "pt") as file:
            content = (file.metadata() or {}).get("content")
        tensors = load_file(path)
    except (OSError, SafetensorError, json.JSONDecodeError):
        return None
    whole = set(tensors) == {"tokens", "logs", "rest"} and _digest(tensors) == content
    return tensors if whole and len(tensors["rest"]) == positions else None
