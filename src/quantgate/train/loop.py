"""The training loop: AdamW, cosine with warm-up, the best state on the tune split, and the same curve after kill -9.

    rows = train(network, data, teacher, options, folder, tell=tell, recipe=digest)

leaves the parameters that were best on the tune split in ``network``; those it came with are among the candidates.
Which documents a step sees follows from seed and step alone, so all that a run must remember is in its parameters and
the optimizer's moments.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantgate.errors import Stopped, TrainingError
from quantgate.records import digest_of, write_whole
from quantgate.train import Batch, Group, Network, Row, Tell, TrainingSet
from quantgate.train.average import Average
from quantgate.train.checkpoint import Checkpoints, Held, Stand
from quantgate.train.devices import Devices, here
from quantgate.train.gradients import Worked
from quantgate.train.memory import Budget, out_of_memory
from quantgate.train.options import TrainOptions
from quantgate.train.order import batches, packed
from quantgate.train.teacher import Teacher

__all__ = ["batches", "train"]

CURVE = "curve.jsonl"
BETAS = (0.9, 0.95)
SMOOTH = 0.95  # of the smoothed loss, a step
DIVERGED = 4.0  # times the start's KL or loss ...
FLOOR = 0.1  # ... which counts as at least this much, nats
WANDERS = 0.5  # of the steps: so long the rate is high, and a look that is no better than the best tells little


def train(
    network: Network,
    data: TrainingSet,
    teacher: Teacher,
    options: TrainOptions,
    folder: Path,
    *,
    tell: Tell,
    recipe: str,
    devices: Devices | None = None,
) -> list[Row]:
    """Train, and return the curve: the start (step 0), then one row a step; every ``evaluate_every`` with its tune KL.

    ``folder`` keeps checkpoints and curve.jsonl; the same call goes on from there. ``recipe`` is a digest of what the
    network is made of. Raises UsageError when ``folder`` holds a run with other settings (says the first that
    differs), TrainingError when it cannot go on (the sentence says which step is kept, where, and what to change),
    DiskFull, and Stopped at Ctrl-C.
    """
    run = _Run(network, data, teacher, options, folder, tell, recipe, devices or here())
    with run.kept():
        return run.all()


class _Run:
    """One call of ``train``. ``stand`` is what state.json keeps; tensors are the network's own."""

    def __init__(
        self,
        network: Network,
        data: TrainingSet,
        teacher: Teacher,
        options: TrainOptions,
        folder: Path,
        tell: Tell,
        recipe: str,
        devices: Devices,
    ) -> None:
        self.network, self.data, self.teacher, self.options = network, data, teacher, options
        self.folder, self.tell, self.devices = folder, tell, devices
        self.groups = network.groups()
        self.parameters = {name: one for group in self.groups for name, one in group.parameters.items()}
        self.optimizer = _adamw(self.groups, options)
        self.checkpoints = Checkpoints(folder, _settings(self.parameters, data, teacher, options, recipe))
        self.average = Average(self.parameters, options.average)
        self.stand, self.saved = Stand(), -1
        self.moving = False  # parameters, moments and the curve are not those of one and the same step
        self.worked = Worked(network, teacher, options, devices)
        longest = max((len(one.ids) for one in [*data.documents, *data.tune]), default=0)
        threads, batch = self.worked.threads, self.worked.room
        self.budget = Budget.of(network, options, longest=longest, threads=threads, batch=batch)
        self.tune = packed(data.tune, range(len(data.tune)), self.worked.room)

    def all(self) -> list[Row]:
        held = self.checkpoints.newest()
        if not (held and held.stand.ended):
            self.budget.refuse(self.folder)
        if held:
            self._restore(held)
        else:
            self._look(loss=None)
        while not self.stand.ended:
            self._step()
        self._restore_best()
        return [Row(**row) for row in self.stand.rows]

    def _step(self) -> None:
        step, began = self.stand.step, time.monotonic()
        rate = self.options.learning_rate * schedule(
            step, self.options.steps, self.options.warmup, self.options.final_rate
        )
        batch = batches(self.data.documents, self.options.batch_tokens, step, self.options.seed, room=self.worked.room)
        loss = self.worked.backward(batch)
        if not math.isfinite(loss):
            raise TrainingError(f"step {step + 1}: the loss is {loss}; {self._slower()}")
        norm = self._norm(step + 1)
        for group, held in zip(self.groups, self.optimizer.param_groups, strict=True):
            held["lr"] = rate * group.rate
        self.moving = True
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.step(step + 1)
        self._count(batch, loss)
        if self.stand.step % self.options.evaluate_every == 0 or self.stand.step == self.options.steps:
            self._look(loss, rate=rate, norm=norm, began=began)
        else:
            self._row(Row(step + 1, self.options.steps, loss, None, rate, self.stand.tokens), began, norm)

    def _count(self, batch: list[Batch], loss: float) -> None:
        stand, documents = self.stand, self.data.documents
        stand.step += 1
        stand.tokens += sum(len(documents[row].ids) for one in batch for row in one.rows)
        stand.smooth = loss if stand.smooth is None else SMOOTH * stand.smooth + (1 - SMOOTH) * loss
        stand.first.setdefault("train", max(loss, stand.first["loss"]))
        self._refuse_divergence("the smoothed loss", stand.smooth, stand.first["train"])

    def _norm(self, step: int) -> float:
        """Length of the gradient before it is cut to ``clip_norm``."""
        if self.devices.count > 1:  # a device may have had no batch
            for one in self.parameters.values():
                one.grad = torch.zeros_like(one) if one.grad is None else one.grad
        with_gradient = {name: one for name, one in self.parameters.items() if one.grad is not None}
        gradients = [one.grad for one in with_gradient.values() if one.grad is not None]
        self.devices.sums(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        if not math.isfinite(float(norm)):
            names = [name for name, one in with_gradient.items() if not bool(torch.isfinite(one.grad).all())]  # type: ignore[arg-type]
            where = f"of '{names[0]}'" + (f" and {len(names) - 1} more" if names[1:] else "") if names else "'s length"
            raise TrainingError(f"step {step}: the gradient {where} is not finite; {self._slower()}")
        torch.nn.utils.clip_grads_with_norm_(with_gradient.values(), self.options.clip_norm, norm)
        return float(norm)

    def _look(self, loss: float | None, rate: float = 0.0, norm: float = 0.0, began: float | None = None) -> None:
        """Measure on the tune split, decide whether this is the best so far, and save."""
        began = time.monotonic() if began is None else began
        self.moving = True
        with self.average.shown():
            found = self.worked.look(self.tune)
        stand, value = self.stand, found.pop("kl")
        if not math.isfinite(value):
            raise TrainingError(f"step {stand.step}: the tune KL is {value}; {self._slower()}")
        better = stand.best is None or value < stand.best
        if better:
            stand.best, stand.best_step, stand.stale = value, stand.step, 0
        elif value >= stand.first["kl"] or stand.step > self.options.steps * WANDERS:
            stand.stale += 1
        if loss is None:
            stand.first = {"kl": value, "loss": found["loss"]}
        else:
            self._refuse_divergence("the tune KL", value, stand.first["kl"])
        shown = found.pop("loss") if loss is None else loss
        if stand.step >= self.options.steps:
            stand.ended = "all steps"
        elif stand.stale >= self.options.patience:
            stand.ended = "patience"
        row = Row(stand.step, self.options.steps, shown, value, rate, stand.tokens)
        self._row(row, began, norm, found)
        self._save(better)

    def _row(self, row: Row, began: float, norm: float, more: dict[str, float] | None = None) -> None:
        self.stand.seconds += time.monotonic() - began
        extra = {"norm": norm, **(more or {})}
        full = Row(**{**asdict(row), "seconds": round(self.stand.seconds, 3), "more": extra})
        self.stand.rows.append(asdict(full))
        self.moving = row.kl is not None  # a look is finished when it is saved
        self.tell("train", full.step, full.steps, full)

    def _refuse_divergence(self, what: str, value: float, start: float) -> None:
        limit = DIVERGED * max(start, FLOOR)
        if value > limit:
            raise TrainingError(
                f"step {self.stand.step}: training diverged, {what} is {value:.4g} and was {start:.4g} at the start "
                f"(limit {limit:.4g}); {self._slower()}"
            )

    def _slower(self) -> str:
        return f"set learning_rate to {self.options.learning_rate / 3:.2g} (a third), or clip_norm lower"

    def _save(self, better: bool) -> None:
        if self.devices.rank == 0:
            lines = [json.dumps(row, sort_keys=True, allow_nan=False) for row in self.stand.rows]
            write_whole(self.folder / CURVE, ("\n".join(lines) + "\n").encode())
            parameters = {f"parameter/{name}": one for name, one in self.parameters.items()}
            best = dict(self.average.tensors or self.parameters) if better else None
            averages = {f"average/{name}": one for name, one in self.average.tensors.items()}
            self.checkpoints.save(self.stand, parameters | self._moments() | averages, best)
        self.devices.wait()
        self.saved, self.moving = self.stand.step, False

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"adamw/{name}/{key}": torch.as_tensor(value)
            for name, one in self.parameters.items()
            for key, value in self.optimizer.state.get(one, {}).items()
        }

    @torch.no_grad()
    def _restore(self, held: Held) -> None:
        self.stand, self.saved = held.stand, held.stand.step
        for name, one in self.parameters.items():
            one.copy_(held.tensors[f"parameter/{name}"])
            if self.average.tensors:
                self.average.tensors[name].copy_(held.tensors[f"average/{name}"])
            moments = {
                key.rsplit("/", 1)[1]: value for key, value in held.tensors.items() if key.startswith(f"adamw/{name}/")
            }
            if moments:
                self.optimizer.state[one] = {key: value.to(one.device) for key, value in moments.items()}
        told = Row(**self.stand.rows[-1])
        self.tell("resumed" if not held.skipped else f"resumed; {held.skipped} was broken", told.step, told.steps, told)

    @torch.no_grad()
    def _restore_best(self) -> None:
        self.checkpoints.reread()
        held = self.checkpoints.newest()
        assert held is not None
        for name, one in self.parameters.items():
            one.copy_(held.best[name])

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Say what is kept with every error."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.moving and 0 <= self.saved < self.stand.step:
                self._save(better=False)
            raise Stopped(f"{self.folder}: stopped; {self._where()}, and the same command goes on from it") from None
        except TrainingError as problem:
            raise TrainingError(f"{self.folder}: {problem}. Kept: {self._where()}") from None
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
            raise TrainingError(
                f"{self.folder}: out of memory at step {self.stand.step + 1}; {self.budget}. Kept: {self._where()}"
            ) from None

    def _where(self) -> str:
        if self.saved < 0:
            return "nothing yet, no step was finished"
        best = f", the best of step {self.stand.best_step}" if self.stand.best_step != self.saved else ""
        return f"the state of step {self.saved}{best}"


def schedule(step: int, steps: int, warmup: float, final: float) -> float:
    """Share of the learning rate at ``step``: linear warm-up, then a cosine to ``final`` (arXiv 1608.03983, eq. 5)."""
    rising = max(1, round(warmup * steps)) if warmup else 0
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


def _adamw(groups: Sequence[Group], options: TrainOptions) -> torch.optim.AdamW:
    rates: list[dict[str, Any]] = [
        {
            "params": list(group.parameters.values()),
            "lr": options.learning_rate * group.rate,
            "weight_decay": options.weight_decay if group.decay else 0.0,
        }
        for group in groups
    ]
    return torch.optim.AdamW(rates, lr=options.learning_rate, betas=BETAS, eps=1e-8, fused=True)


def _settings(
    parameters: dict[str, torch.nn.Parameter], data: TrainingSet, teacher: Teacher, options: TrainOptions, recipe: str
) -> dict[str, Any]:
    """All that decides the curve, in the order in which a difference is told."""
    shapes = {name: list(one.shape) for name, one in parameters.items()}
    return {
        **options.body(),
        "data": data.summary.content,
        "teacher": teacher.key,
        "recipe": recipe,
        "parameters": digest_of(shapes),
    }
