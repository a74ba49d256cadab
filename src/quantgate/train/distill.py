"""Distillation: a smaller model cut out of its teacher by measured importance, and trained to say what it says.

importance (prune.py) -> the untrained student -> the whole of it against the teacher (loop.py), the best state on
the tune split -> a Hugging Face folder in the teacher's own type

out/                             config.json, tokenizer, template, model.safetensors: a model like any other;
                                 training.json, importance.json, student.json, curve.jsonl: how it was made
out/../.train-<digest>/          what a killed run goes on from; it goes when the student is there
out/../.teacher/                 what the teacher expects, shared by all runs of the same data beside ``out``
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch

from quantgate.errors import ComparabilityError, RecordError, Stopped, UsageError
from quantgate.models import OpenedModel, open_model
from quantgate.quantize.artifact import identity
from quantgate.quantize.manifest import StoredFile, Training, tool_version
from quantgate.records import Record, digest_file, digest_of, disk_errors
from quantgate.train import Document, Row, Tell, TrainingSet
from quantgate.train.devices import here
from quantgate.train.gradients import Worked
from quantgate.train.loop import train
from quantgate.train.network import PlainNetwork, open_network
from quantgate.train.options import DistillOptions
from quantgate.train.order import packed
from quantgate.train.prune import Importance, Kept, choose, configured, cut, save_model, wanted_shape
from quantgate.train.teacher import Asked, Teacher

LAYOUT = 2  # raised when the same inputs would give other bytes
TRAINING, IMPORTANCE, STUDENT, CURVE = "training.json", "importance.json", "student.json", "curve.jsonl"
TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float32"}  # of tensors, as they are written


class Student(Record):
    """What a student's folder was made from, and the files that were written there."""

    inputs: str  # digest of everything that decides the bytes
    model: str  # what the user called the model that it was cut out of
    teacher: str  # ... and the one that it learned from
    kept: Kept
    parameters: int
    files: dict[str, StoredFile]


def distill(
    model: OpenedModel,
    options: DistillOptions,
    data: TrainingSet,
    out: Path | str,
    *,
    samples: Sequence[Sequence[int]] | None = None,
    teacher: OpenedModel | None = None,
    tell: Tell | None = None,
    device: str = "auto",
) -> Path:
    """The folder ``out`` with a student cut out of ``model`` and trained on ``data``.

    ``samples``: conversations, in tokens, on which importance is measured; None: some of those that train. ``teacher``:
    a model of the same tokenizer to learn from instead of ``model``. What is there already with the same inputs is
    taken as it is, and a killed run goes on in the stage it was in. Raises, before anything slow, UsageError,
    ComparabilityError, DataError; later TrainingError, DiskFull and Stopped, with what is finished kept.
    """
    run = _Run(model, options, data, Path(out), samples, teacher or model, tell or _silent, device)
    if not run.finished():
        run.all()
    return run.out


def work_of(
    model: OpenedModel,
    options: DistillOptions,
    data: TrainingSet,
    out: Path | str,
    *,
    samples: Sequence[Sequence[int]] | None = None,
    teacher: OpenedModel | None = None,
    device: str = "auto",
) -> Path:
    """Where ``distill`` keeps what a killed run of the same inputs goes on from. Raises what it raises at once."""
    return _Run(model, options, data, Path(out), samples, teacher or model, _silent, device).work


class _Run:
    def __init__(
        self,
        model: OpenedModel,
        options: DistillOptions,
        data: TrainingSet,
        out: Path,
        samples: Sequence[Sequence[int]] | None,
        teacher: OpenedModel,
        tell: Tell,
        device: str,
    ) -> None:
        self.model, self.teacher, self.options, self.data = model, teacher, options, data
        self.out, self.tell = out, tell
        self.shape = wanted_shape(model, options)
        _same_tokens(model, teacher)
        _refuse_stranger(out)
        self.devices = here()
        self.device = str(self.devices.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.device = self.device if device == "auto" else device
        self.looked_at = data.documents if samples is None else [_whole(list(one)) for one in samples if len(one) > 1]
        self.own_samples = samples is not None
        self.work = out.parent / f".train-{self.inputs.removeprefix('sha256:')[:16]}"

    @cached_property
    def inputs(self) -> str:
        """Digest of all that decides the bytes."""
        return digest_of(
            [
                LAYOUT,
                [tool_version(), torch.__version__, torch.device(self.device).type],
                identity(self.model).model_copy(update={"ref": ""}).body(),
                self.teacher.weights_digest,
                self.data.summary.body(),
                [one.ids for one in self.looked_at] if self.own_samples else None,
                [self.shape.body(), self.options.model_copy(update={"config": None}).model_dump(mode="json")],
            ]
        )

    def finished(self) -> bool:
        """Whether the student is already there, made from the same inputs, and whole."""
        try:
            student = Student.load(self.out / STUDENT)
        except (RecordError, OSError):
            return False
        whole = all(
            (self.out / name).is_file() and digest_file(self.out / name) == file.sha256
            for name, file in student.files.items()
        )
        return whole and student.inputs == self.inputs

    def all(self) -> None:
        with disk_errors(self.work):
            self.work.mkdir(parents=True, exist_ok=True)
        with self.devices.main_first():  # the others find what it made
            importance = self._importance()
            for sentence in importance.told():
                self.tell(sentence, 1, 1)
            network = self._begin(importance)
        teacher = self._teacher()
        rows = train(network, self.data, teacher, self.options, self.work / "loop", tell=self.tell, recipe=self.inputs)
        self.tell("write", 0, 1)
        dtype = self._dtype()
        _round(network, dtype)
        tune = packed(self.data.tune, range(len(self.data.tune)), self.options.batch_tokens // 2)
        after = Worked(network, teacher, self.options, self.devices).look(tune)["kl"]
        if self.devices.rank == 0:
            self._write(network, importance, rows, after, dtype)
            shutil.rmtree(self.work, ignore_errors=True)
        self.devices.wait()
        self.tell("write", 1, 1)

    def _importance(self) -> Importance:
        """Measured once; a killed run reads it."""
        file = self.work / IMPORTANCE
        try:
            return Importance.load(file)
        except RecordError:
            pass
        try:
            found = choose(self.model, self.shape, self.looked_at, device=torch.device(self.device), tell=self.tell)
        except KeyboardInterrupt:
            raise Stopped(f"{self.out}: stopped before training; the same command begins again") from None
        found.save(file)
        return found

    def _begin(self, importance: Importance) -> PlainNetwork:
        """The untrained student: written as a folder, and opened as any model is."""
        folder = cut(self.model, self.shape, importance.kept, self.work / "cut")
        options = self.options
        return open_network(
            open_model(folder), device=self.device, precision=options.precision,
            checkpointing=options.gradient_checkpointing,
        )  # fmt: skip

    def _teacher(self) -> Teacher:
        return Teacher(
            Asked(self.teacher, self.device, self.options.precision), self.data, self.out.parent / ".teacher",
            self.teacher.weights_digest, self.options.top_k, self.options.batch_tokens, tell=self.tell,
        )  # fmt: skip

    def _dtype(self) -> str:
        """The type in which the teacher holds most of its numbers."""
        held: Counter[str] = Counter()
        for entry in self.model.files.entries.values():
            held[entry.dtype] += entry.weights
        return TYPES.get(held.most_common(1)[0][0], "float32")

    def _write(self, network: PlainNetwork, importance: Importance, rows: list[Row], after: float, dtype: str) -> None:
        state = {name: tensor.to(getattr(torch, dtype)).contiguous() for name, tensor in network.state().items()}
        curve = "".join(json.dumps(asdict(row), sort_keys=True) + "\n" for row in rows)
        config = configured(self.model.config, self.shape, importance.kept.blocks, dtype)
        with save_model(self.model, config, state, self.out) as aside:
            self._training(rows, after).save(aside / TRAINING)
            importance.save(aside / IMPORTANCE)
            files = {
                file.name: StoredFile(sha256=digest_file(file), bytes=file.stat().st_size)
                for file in sorted(aside.iterdir())
            }
            Student(
                inputs=self.inputs, model=self.model.ref, teacher=self.teacher.ref, kept=importance.kept,
                parameters=sum(tensor.numel() for tensor in state.values()), files=files,
            ).save(aside / STUDENT)  # fmt: skip
            (aside / CURVE).write_text(curve)  # not among the files: it tells seconds, which are others every time

    def _training(self, rows: list[Row], after: float) -> Training:
        looked = [row for row in rows if row.kl is not None]
        best = min(looked, key=lambda row: (row.kl or 0.0, row.step))
        return Training(
            method="distill",
            teacher=self.teacher.weights_digest,
            data=self.data.summary.digest,
            sources=self.data.summary.documents,
            options=self.options.model_dump(mode="json"),
            steps=rows[-1].step,
            best=best.step,
            tokens=rows[-1].tokens,
            before=looked[0].kl,
            after=after,
        )


@torch.no_grad()
def _round(network: PlainNetwork, dtype: str) -> None:
    """From now on the network has the numbers that will be stored, so that what is measured is what is written."""
    for group in network.groups():
        for parameter in group.parameters.values():
            parameter.copy_(parameter.to(getattr(torch, dtype)).float())


def _whole(ids: list[int]) -> Document:
    """A conversation of which every token counts."""
    return Document("samples", ids, [0.0] + [1.0] * (len(ids) - 1))


def _same_tokens(model: OpenedModel, teacher: OpenedModel) -> None:
    if teacher is model:
        return
    for what, mine, its in (
        ("tokenizer", model.tokenizer_digest, teacher.tokenizer_digest),
        ("chat template", model.template_digest, teacher.template_digest),
    ):
        if mine != its:
            raise ComparabilityError(
                f"the teacher {teacher.ref} has another {what} than {model.ref}; a student learns the probabilities of "
                "its own tokens, so take a teacher of the same family"
            )


def _refuse_stranger(out: Path) -> None:
    """Only a student of ours is replaced."""
    if out.exists() and not (out / STUDENT).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: there is something else, and a student would take its place; give another folder")


def _silent(stage: str, done: int, total: int, row: Row | None = None) -> None:
    pass
