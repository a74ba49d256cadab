"""Quantization-aware training: an artifact of real codes whose weights learned to live with the rounding.

start (post-training, start.py) -> block after block (reconstruct.py) -> the whole model against its teacher
(loop.py), the best state on the tune split -> codes (quantize/given.py)

out/<recipe's name>/             the artifact
out/.train-<digest>/             what a killed run goes on from; its curve and summary stay, the rest goes
out/.teacher/                    what the baseline expects, shared by all runs of the same data in ``out``
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from quantgate.models import OpenedModel
from quantgate.quantize.artifact import Artifact, identity, open_artifact
from quantgate.quantize.assemble import ready
from quantgate.quantize.given import write_given
from quantgate.quantize.journal import refuse_strangers
from quantgate.quantize.manifest import Calibration, Recipe, Training, tool_version
from quantgate.quantize.reuse import Reuse
from quantgate.records import digest_of, write_whole
from quantgate.train import Row, Tell, TrainingSet
from quantgate.train.devices import here
from quantgate.train.gradients import Worked
from quantgate.train.loop import train
from quantgate.train.network import FakeNetwork, open_fake_network
from quantgate.train.options import QatOptions
from quantgate.train.order import packed
from quantgate.train.reconstruct import Rebuilt, reconstruct
from quantgate.train.start import make_start, start_recipe
from quantgate.train.teacher import Asked, Teacher

LAYOUT = 2  # raised when the same inputs would give other bytes
SETTLED = 0.5  # of the way to what a weight is rounded to, before the first step
SUMMARY, CURVE = "summary.json", "curve.jsonl"


@dataclass(frozen=True)
class Chosen:
    """Tune KL, in nats a counted token, of the states that training of the whole model could begin with."""

    start: float
    rebuilt: float | None  # None: blocks were not reconstructed

    @property
    def keeps_blocks(self) -> bool:
        return self.rebuilt is not None and self.rebuilt < self.start


def qat(
    model: OpenedModel,
    recipe: Recipe,
    options: QatOptions,
    data: TrainingSet,
    out: Path | str,
    *,
    samples: Sequence[Sequence[int]] | None,
    teacher: OpenedModel | None = None,
    reuse: Reuse | None = None,
    tell: Tell | None = None,
    device: str = "auto",
) -> Artifact:
    """The artifact ``out/<recipe.name>``, trained on ``data`` from a post-training artifact that ``samples`` calibrate.

    ``teacher``: a model of the same tokenizer to learn from instead of ``model`` at full precision; ``reuse`` is for
    the sweep that makes the start. What is there already with the same inputs is taken as it is, and a killed run goes
    on in the stage it was in. Raises, before anything slow, UsageError, FormatError, DataError, ArtifactError; later
    TrainingError, DiskFull and Stopped, with what is finished kept.
    """
    run = _Run(model, recipe, options, data, Path(out), samples, tell or _silent, device, teacher)
    return run.finished() or run.all(reuse)


def work_of(
    model: OpenedModel,
    recipe: Recipe,
    options: QatOptions,
    data: TrainingSet,
    out: Path,
    *,
    samples: Sequence[Sequence[int]] | None,
    teacher: OpenedModel | None = None,
    device: str = "auto",
) -> Path:
    """Where ``qat`` with the same arguments keeps what it has done."""
    return _Run(model, recipe, options, data, out, samples, _silent, device, teacher).work


def work_folder(out: Path, inputs: str) -> Path:
    """Where a run of these inputs keeps what it has done; its curve.jsonl and summary.json outlive it."""
    return out / f".train-{inputs.removeprefix('sha256:')[:16]}"


class _Run:
    def __init__(
        self,
        model: OpenedModel,
        recipe: Recipe,
        options: QatOptions,
        data: TrainingSet,
        out: Path,
        samples: Sequence[Sequence[int]] | None,
        tell: Tell,
        device: str,
        teacher: OpenedModel | None = None,
    ) -> None:
        self.model, self.recipe, self.options, self.data = model, recipe, options, data
        self.teacher = teacher or model
        self.out, self.samples, self.tell = out, samples, tell
        self.begun = start_recipe(model, recipe, options, calibrated=samples is not None)
        refuse_strangers(out, [recipe.name])
        self.devices = here()
        self.device = str(self.devices.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.device = self.device if device == "auto" else device
        self.calibration = None if samples is None else Calibration.of([list(one) for one in samples])
        self.work = work_folder(out, self.inputs)

    @cached_property
    def inputs(self) -> str:
        """Digest of all that decides the bytes."""
        decides: list[Any] = [
            LAYOUT,
            [tool_version(), torch.__version__, torch.device(self.device).type],
            identity(self.model).model_copy(update={"ref": ""}).body(),
            self.calibration and self.calibration.body(),
            self.data.summary.body(),
            [self.recipe.body(), self.options.body()],
        ]
        own = self.teacher.weights_digest == self.model.weights_digest
        return digest_of(decides if own else [*decides, self.teacher.weights_digest])

    def finished(self) -> Artifact | None:
        """The artifact that is already there, if it was made from the same inputs and is whole."""
        return ready(self.out / self.recipe.name, self.inputs)

    def all(self, reuse: Reuse | None) -> Artifact:
        options = self.options
        with self.devices.main_first():  # the others find what it made
            start = make_start(
                self.model, self.begun, self.samples, self.out / ".starts", seed=options.seed, device=self.device,
                tell=self.tell, reuse=reuse,
            )  # fmt: skip
        teacher = self._expecting()
        network = open_fake_network(
            self.model, start, device=self.device, precision=options.precision,
            checkpointing=options.gradient_checkpointing, adapters=options.adapters, norms=options.norms,
            scale_rate=options.scale_rate, seed=options.seed,
        )  # fmt: skip
        settle(network)
        chosen, blocks = self._begin(network, teacher)
        rows = train(network, self.data, teacher, options, self.work / "loop", tell=self.tell, recipe=self.inputs)
        looked = [row for row in rows if row.kl is not None]
        best = min(looked, key=lambda row: (row.kl or 0.0, row.step))
        if self.devices.rank == 0:
            self._export(network, start, chosen, rows[-1], best)
            self._leave_behind(rows, chosen, blocks)
        self.devices.wait()
        return open_artifact(self.out / self.recipe.name, verify=False)

    def _expecting(self) -> Teacher:
        asked = Asked(self.teacher, self.device, self.options.precision)
        teacher = Teacher(
            asked, self.data, self.out / ".teacher", self.teacher.weights_digest, self.options.top_k,
            self.options.batch_tokens, tell=self.tell,
        )  # fmt: skip
        if teacher.reused:
            said = f"re-used: the teacher's answers at {teacher.reused:,} of {teacher.positions:,} positions"
            self.tell(said, teacher.reused, teacher.positions)
        return teacher

    def _begin(self, network: FakeNetwork, teacher: Teacher) -> tuple[Chosen, list[Rebuilt]]:
        """Reconstruct the blocks, and leave in ``network`` whichever is nearer to the teacher, that or the start."""
        first = self._tune_kl(network, teacher)
        if not self.options.reconstruct:
            return Chosen(first, None), []
        before = {name: one.detach().clone() for name, one in _parameters(network)}
        with self.devices.main_first():
            folder = self.work / "reconstruct"
            blocks = reconstruct(network, self.model, self.data, self.options, folder, tell=self.tell)
        chosen = Chosen(first, self._tune_kl(network, teacher))
        if not chosen.keeps_blocks:
            with torch.no_grad():
                for name, one in _parameters(network):
                    one.copy_(before[name])
        return chosen, blocks

    def _tune_kl(self, network: FakeNetwork, teacher: Teacher) -> float:
        work = Worked(network, teacher, self.options, self.devices)
        return work.look(packed(self.data.tune, range(len(self.data.tune)), work.room))["kl"]

    def _export(self, network: FakeNetwork, start: Artifact, chosen: Chosen, last: Row, best: Row) -> None:
        self.tell("write", 0, 1)
        told = self.data.summary
        training = Training(
            method="qat", teacher=self.teacher.weights_digest, data=told.digest, sources=told.documents,
            options=self.options.model_dump(mode="json"), steps=last.step, best=best.step, tokens=last.tokens,
            before=chosen.start, after=best.kl,
        )  # fmt: skip
        write_given(
            self.model, self.recipe, network.trained(), network.others(), self.out, training=training,
            inputs=self.inputs, start=start, calibration=self.calibration, device=torch.device(self.device).type,
            seed=self.options.seed,
        )  # fmt: skip
        self.tell("write", 1, 1)

    def _leave_behind(self, rows: list[Row], chosen: Chosen, blocks: list[Rebuilt]) -> None:
        """The curve and what was chosen; tensors of the run go."""
        lines = [json.dumps(asdict(row), sort_keys=True) for row in rows]
        write_whole(self.work / CURVE, ("\n".join(lines) + "\n").encode())
        found: dict[str, Any] = {**asdict(chosen), "kept_blocks": chosen.keeps_blocks}
        found["blocks"] = [asdict(one) for one in blocks]
        write_whole(self.work / SUMMARY, json.dumps(found, indent=1).encode())
        for name in ("loop", "reconstruct"):
            shutil.rmtree(self.work / name, ignore_errors=True)


@torch.no_grad()
def settle(network: FakeNetwork) -> None:
    """Move weights before rounding towards what they are rounded to; what they are rounded to stays.

    A solver like GPTQ leaves a third of them at the edge of their step, where the first updates of AdamW, which are as
    large for noise as for a slope, push them over: in ten steps the codes are those of plain rounding.
    """
    for layer in network.layers.values():
        layer.latent.lerp_(layer.rounded() - (layer.folded() - layer.latent), SETTLED)


def _parameters(network: FakeNetwork) -> list[tuple[str, torch.nn.Parameter]]:
    return [pair for group in network.groups() for pair in group.parameters.items()]


def _silent(stage: str, done: int, total: int, row: Row | None = None) -> None:
    pass
