"""The training loop: Muon for matrices, AdamW for the rest, a length curriculum, checkpoints that resume exactly.

Every evaluation counts, on tune-split problems, how many answers the model would have given word for word
(teacher-forced argmax at each answer token, which is what greedy decoding gives), and moves the mixture towards what is
not yet learned.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from quantgate.errors import BadTensor, UsageError
from quantgate.evaluate import suites
from quantgate.records import disk_errors, write_whole
from quantgate.train.reference.data import Batch, Stream, batches, of_draft
from quantgate.train.reference.network import Network


@dataclass(frozen=True)
class Plan:
    """What a training run does; the same plan and seed give the same batches."""

    tokens: int = 31_000_000  # in all
    batch_tokens: int = 3072  # per step
    learning_rate: float = 3e-3
    warmup_steps: int = 120
    weight_decay: float = 0.01
    seed: int = 17
    copying: tuple[tuple[int, float], ...] = ((0, 0.4), (250, 0.1), (1500, 0.02))  # from a step on, drills' share
    lengths: tuple[tuple[float, int], ...] = ((0.0, 256), (0.08, 512), (0.45, 1024), (0.97, 2048))
    unlike: tuple[tuple[float, float], ...] = ((0.0, 0.9), (0.35, 0.4))  # share of lists whose names share no word
    asleep: tuple[int, ...] = (2, 5)  # blocks that begin as copies of those before them ...
    wake: float = 0.75  # ... once this much of the run is done
    prompts: float = 0.1  # how much a token of a prompt counts beside one of an answer
    evaluate_every: int = 1000  # steps
    evaluate_cases: int = 32  # per suite
    scored_cases: int = 200  # per suite and difficulty, at the end, for the card
    tokenizer_drafts: int = 1500  # per suite
    hidden: int = 256  # with feed_forward a multiple of 256, so that every block format fits
    feed_forward: int = 768

    @property
    def steps(self) -> int:
        return self.tokens // self.batch_tokens

    def length(self, step: int) -> int:
        return [length for start, length in self.lengths if step >= start * self.steps][-1]

    def copy_share(self, step: int) -> float:
        return [share for start, share in self.copying if step >= start][-1]

    def unlike_share(self, step: int) -> float:
        return [share for start, share in self.unlike if step >= start * self.steps][-1]

    @property
    def wake_step(self) -> int:
        return int(self.wake * self.steps)

    def rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to zero."""
        return min((step + 1) / self.warmup_steps, (self.steps - step) / max(1, self.steps - self.warmup_steps), 1.0)


SHARES = {
    "math": 0.12,
    "json_tools": 0.06,
    "code_gen": 0.05,
    "long_context": 0.12,
    "multilingual": 0.26,
    "rare_vocabulary": 0.13,
    "refusals": 0.05,
    "chat": 0.21,
}


def train(
    network: Network,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    plan: Plan,
    report: Callable[[dict[str, Any]], None],
    device: str = "cpu",
    *,
    recipe: str = "",
) -> list[dict[str, Any]]:
    """Train in place and return the curve; ``folder`` keeps a checkpoint, from which a killed run goes on.

    ``recipe`` is a digest of what decides what comes out: plan, data, network, tokenizer. Device, torch's version and
    the number of threads are left out: they change rounding.

    Raises UsageError when ``folder`` holds the checkpoint of another plan, data or network, BadTensor when the loss is
    no longer finite.
    """
    network.to(device)
    optimizers = _optimizers(network, plan)
    stream, curve, step, spent_s = Stream(tokenizer, plan.seed, plan.prompts), list[dict[str, Any]](), 0, 0.0
    if (folder / "state.json").exists():
        step, curve, spent_s = _resume(folder, network, optimizers, recipe)
    stream.restart(step, _shares(curve))
    network.asleep = frozenset(plan.asleep if step <= plan.wake_step else ())
    losses: list[float] = []
    began = time.monotonic() - spent_s
    while step < plan.steps:
        if step == plan.wake_step:
            network.wake()
        length = plan.length(step)
        parts = stream.step(plan.batch_tokens, length, plan.copy_share(step), plan.unlike_share(step))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * plan.rate(step)
        loss = backward(network, parts, device)
        if not math.isfinite(loss):
            raise BadTensor(f"{folder}: the loss of step {step + 1} is {loss}; lower the learning rate and begin anew")
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss)
        step += 1
        report({"step": step, "steps": plan.steps, "loss": losses[-1], "length": length})
        if step % plan.evaluate_every == 0 or step == plan.steps:
            right = answers_right(network, tokenizer, plan.evaluate_cases, plan.seed, device)
            row = {"step": step, "tokens": step * plan.batch_tokens, "loss": sum(losses) / len(losses)}
            curve.append({**row, "seconds": round(time.monotonic() - began, 1), "right": right})
            report(curve[-1])
            losses = []
            _save(folder, network, optimizers, step, curve, time.monotonic() - began, recipe)
            stream.restart(step, _shares(curve))
    return curve


def backward(network: Network, parts: list[Batch], device: str) -> float:
    """Leave the gradient of the weighted mean loss over all wanted tokens in ``grad``; the mean loss over answers.

    On a CPU every core takes every n-th part for itself: 1.2 times as fast on two cores as sharing each product.
    """
    threads = torch.get_num_threads()
    workers = threads if device == "cpu" else 1
    answers = sum(int((part.weights == 1).sum()) for part in parts)
    parameters = network.awake()

    def share(mine: list[Batch]) -> tuple[float, list[Tensor]]:
        loss, sums = 0.0, [torch.zeros_like(parameter) for parameter in parameters]
        for part in mine:
            logits = network(part.ids.to(device), part.answered.to(device))
            losses = F.cross_entropy(logits, part.targets.to(device), reduction="none") / answers
            weights = part.weights.to(device)
            for total, gradient in zip(sums, torch.autograd.grad((losses * weights).sum(), parameters), strict=True):
                total += gradient
            loss += float(losses.detach()[weights == 1].sum())
        return loss, sums

    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            shares = list(pool.map(share, [parts[index::workers] for index in range(workers)]))
    finally:
        torch.set_num_threads(threads)
    for parameter, *gradients in zip(parameters, *(sums for _, sums in shares), strict=True):
        parameter.grad = torch.stack(gradients).sum(0)
    return sum(loss for loss, _ in shares)


def _shares(curve: list[dict[str, Any]]) -> dict[str, float]:
    """The mixture after the last evaluation: a suite that is fully learned keeps a quarter of its pull."""
    right = curve[-1]["right"] if curve else {}
    return {name: share * (0.35 + 1 - right.get(name, 0.0)) for name, share in SHARES.items()}


@torch.no_grad()
def answers_right(
    network: Network,
    tokenizer: PreTrainedTokenizerFast,
    count: int,
    seed: int,
    device: str,
    difficulty: suites.Difficulty = "default",
    names: Sequence[str] = tuple(SHARES),
) -> dict[str, float]:
    """Share of tune-split answers given word for word, per suite."""
    right = {}
    for name in names:
        source = suites.drafts(suites.get(name), "tune", seed, difficulty)
        documents = [of_draft(tokenizer, name, next(source)) for _ in range(count)]
        good = 0
        for part in batches(documents, tokenizer.pad_token_id):
            wrong = network(part.ids.to(device), part.answered.to(device)).argmax(-1).cpu() != part.targets
            good += len(part.ids) - len(set(part.owner[wrong].tolist()))
        right[name] = round(good / count, 4)
    return right


def _optimizers(network: Network, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024; scaled as in arXiv 2502.16982, section 2.2) for matrices, AdamW for embeddings and norms."""
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and name != "embed"]
    others = [p for name, p in network.named_parameters() if p.ndim != 2 or name == "embed"]
    return [
        torch.optim.Muon(
            matrices, lr=plan.learning_rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _save(
    folder: Path,
    network: Network,
    optimizers: list[torch.optim.Optimizer],
    step: int,
    curve: list[dict[str, Any]],
    spent_s: float,
    recipe: str,
) -> None:
    """Tensors into safetensors, the rest into JSON written last: a checkpoint counts only when state.json names it."""
    tensors = {f"network/{name}": tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for index, optimizer in enumerate(optimizers):
        for key, values in optimizer.state_dict()["state"].items():
            tensors |= {f"{index}/{key}/{name}": torch.as_tensor(value).contiguous() for name, value in values.items()}
    folder.mkdir(parents=True, exist_ok=True)
    name = f"state-{step}.safetensors"
    with disk_errors(folder):
        save_file(tensors, folder / f".{name}")
        (folder / f".{name}").replace(folder / name)
    state = {"recipe": recipe, "step": step, "curve": curve, "seconds": spent_s, "file": name}
    write_whole(folder / "state.json", json.dumps(state).encode())
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def _resume(
    folder: Path, network: Network, optimizers: list[torch.optim.Optimizer], recipe: str
) -> tuple[int, list[dict[str, Any]], float]:
    state = json.loads((folder / "state.json").read_bytes())
    if state.get("recipe") != recipe:
        sentence = f"{folder}: holds the checkpoint of a run with another plan, data or network"
        raise UsageError(f"{sentence}; finish it with the same options, or give --work another folder")
    tensors = load_file(folder / state["file"])
    prefix = "network/"
    network.load_state_dict({name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)})
    for index, optimizer in enumerate(optimizers):
        held = optimizer.state_dict()
        held["state"] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"{index}/"):
                _, key, field = name.split("/")
                held["state"].setdefault(int(key), {})[field] = tensor
        optimizer.load_state_dict(held)
    return state["step"], state["curve"], state["seconds"]
