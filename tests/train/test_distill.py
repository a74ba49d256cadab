from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from quantgate.errors import ComparabilityError, DiskFull, Stopped, UsageError
from quantgate.models import OpenedModel, open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, baseline, load_dequantized
from quantgate.quantize.manifest import Training
from quantgate.quantize.sweep import sweep
from quantgate.records import digest_of
from quantgate.train import DataSummary, Document, Row, TrainingSet
from quantgate.train.distill import Student, distill, work_of
from quantgate.train.options import DistillOptions
from quantgate.train.prune import Importance

OPTIONS = DistillOptions(
    layers=1, steps=6, batch_tokens=128, evaluate_every=2, top_k=300, tune=8, learning_rate=3e-3, warmup=0.0
)
TEACHER = {"hidden": 32, "layers": 2, "feed_forward": 32}
CHILD = """
import sys
from pathlib import Path
from quantgate.models import open_model
from tests.train.test_distill import OPTIONS, made_data
from quantgate.train.distill import distill
def tell(stage, done, total, row=None):
    print(stage, done, flush=True)
    if stage != "resumed":
        sys.stdin.readline()
distill(open_model(sys.argv[1]), OPTIONS, made_data(), Path(sys.argv[2]), tell=tell, device="cpu")
"""


def made_data(seed: int = 3) -> TrainingSet:
    draw = torch.Generator().manual_seed(seed)

    def one(source: str) -> Document:
        length = int(torch.randint(8, 24, (1,), generator=draw))
        ids = torch.randint(0, 256, (length,), generator=draw).tolist()
        return Document(source, ids, [0.0] + [0.1] * (length // 2 - 1) + [1.0] * (length - length // 2))

    many, few = [one("math") for _ in range(20)], [one("math") for _ in range(8)]
    content = digest_of([[document.ids for document in part] for part in (many, few)])
    tokens = sum(len(document.ids) for document in many)
    return TrainingSet(many, few, DataSummary(content=content, documents={"math": 20}, tokens=tokens, tune=8))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> OpenedModel:
    return open_model(save_random(tmp_path_factory.mktemp("teacher"), **TEACHER))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def student(teacher: OpenedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distill(teacher, OPTIONS, made_data(), tmp_path_factory.mktemp("made") / "student", device="cpu")


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_student_is_a_model_that_transformers_loads_whole(student: Path, teacher: OpenedModel) -> None:
    make: Any = AutoModelForCausalLM
    loaded, told = make.from_pretrained(student, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert loaded.dtype is torch.bfloat16  # as its teacher's
    assert loaded.config.num_hidden_layers == 1
    opened = open_model(student)
    assert (opened.depth, opened.tokenizer_digest) == (1, teacher.tokenizer_digest)


def test_it_says_how_it_was_made(student: Path, teacher: OpenedModel) -> None:
    learned, data = Training.load(student / "training.json"), made_data()
    assert learned.method == "distill"
    assert learned.teacher == teacher.weights_digest
    assert (learned.data, learned.sources) == (data.summary.digest, {"math": 20})
    assert learned.options == OPTIONS.model_dump(mode="json")
    assert learned.steps == 6
    assert learned.before is not None and learned.after is not None and learned.after < learned.before
    found, told = Importance.load(student / "importance.json"), Student.load(student / "student.json")
    assert len(found.removed) == 1 and set(found.removed[0].kl) == {"0", "1"}
    assert told.kept == found.kept
    assert told.parameters == open_model(student).parameters
    rows = [json.loads(line) for line in (student / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(7)]
    assert rows[0]["kl"] == learned.before


def test_the_kl_it_tells_is_that_of_what_was_written(student: Path, teacher: OpenedModel) -> None:
    """Of the rounded weights on the tune split, over the whole vocabulary, each token as much as it counts."""
    mine, its = (load_dequantized(baseline(one), torch.float32) for one in (open_model(student), teacher))
    lost = total = 0.0
    for one in made_data().tune:
        ids, wanted = torch.tensor([one.ids]), torch.tensor(one.wanted[1:])
        with torch.no_grad():
            logs, now = (F.log_softmax(model(input_ids=ids).logits[0, :-1], -1) for model in (its, mine))
        lost += float((wanted * (logs.exp() * (logs - now)).sum(-1)).sum())
        total += float(wanted.sum())
    assert Training.load(student / "training.json").after == pytest.approx(lost / total, rel=2e-3)


def test_a_finished_student_is_taken_as_it_is(student: Path, teacher: OpenedModel) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in student.iterdir()}
    told: list[str] = []
    again = distill(
        teacher,
        OPTIONS,
        made_data(),
        student,
        tell=lambda stage, done, total, row=None: told.append(stage),
        device="cpu",
    )
    assert again == student and told == []
    assert {file.name: file.stat().st_mtime_ns for file in student.iterdir()} == before


def test_the_same_inputs_give_the_same_bytes(student: Path, teacher: OpenedModel, tmp_path: Path) -> None:
    again = distill(teacher, OPTIONS, made_data(), tmp_path / "other-name", device="cpu")
    assert weights(again) == weights(student)
    assert (again / "student.json").read_bytes() == (student / "student.json").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [".teacher", "other-name"]  # nothing half-done stays


def test_an_edited_student_is_made_again(teacher: OpenedModel, student: Path, tmp_path: Path) -> None:
    mine = distill(teacher, OPTIONS, made_data(), tmp_path / "student", device="cpu")
    raw = bytearray(weights(mine))
    raw[-1] ^= 1
    (mine / "model.safetensors").write_bytes(raw)
    assert weights(distill(teacher, OPTIONS, made_data(), mine, device="cpu")) == weights(student)


def test_other_options_replace_the_student(teacher: OpenedModel, student: Path, tmp_path: Path) -> None:
    mine = distill(teacher, OPTIONS, made_data(), tmp_path / "student", device="cpu")
    other = OPTIONS.model_copy(update={"steps": 2})
    distill(teacher, other, made_data(), mine, device="cpu")
    assert Training.load(mine / "training.json").steps == 2
    assert weights(mine) != weights(student)


def test_a_folder_of_something_else_is_left_alone(teacher: OpenedModel, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="there is something else, and a student would take its place"):
        distill(teacher, OPTIONS, made_data(), tmp_path / "mine", device="cpu")
    assert [file.name for file in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_without_steps_it_is_the_cut_model_in_the_teachers_type(teacher: OpenedModel, tmp_path: Path) -> None:
    untrained = distill(teacher, OPTIONS.model_copy(update={"steps": 0}), made_data(), tmp_path / "s", device="cpu")
    (kept,) = Importance.load(untrained / "importance.json").kept.blocks
    mine, its = open_model(untrained), teacher
    assert torch.equal(
        mine.files.read("model.layers.0.mlp.up_proj.weight"), its.files.read(f"model.layers.{kept}.mlp.up_proj.weight")
    )
    learned = Training.load(untrained / "training.json")
    assert (learned.steps, learned.best, learned.tokens) == (0, 0, 0)
    assert learned.before == pytest.approx(learned.after)


def test_a_student_of_every_width_trains(teacher: OpenedModel, tmp_path: Path) -> None:
    shape = {"layers": None, "heads": 2, "feed_forward": 16, "hidden": 24, "steps": 12, "learning_rate": 1e-3}
    options = DistillOptions(**{**OPTIONS.model_dump(), **shape})
    data = made_data()
    seen = TrainingSet(data.documents, data.documents, data.summary)  # random text teaches nothing about other text
    made = open_model(distill(teacher, options, seen, tmp_path / "narrow", device="cpu"))
    config = made.config
    assert (config.num_attention_heads, config.intermediate_size, config.hidden_size) == (2, 16, 24)
    learned = Training.load(made.path / "training.json")
    assert learned.after is not None and learned.before is not None and learned.after < learned.before


def test_importance_is_measured_on_the_samples_that_are_given(teacher: OpenedModel, tmp_path: Path) -> None:
    samples = [list(range(30)), list(range(100, 140)), [7]]  # one token asks for nothing
    made = distill(teacher, OPTIONS, made_data(), tmp_path / "s", samples=samples, device="cpu")
    assert Importance.load(made / "importance.json").tokens == 29 + 39


def test_it_learns_from_another_teacher_of_the_same_tokens(teacher: OpenedModel, tmp_path: Path) -> None:
    larger = open_model(save_random(tmp_path / "larger", hidden=64, layers=3, feed_forward=32, seed=4))
    made = distill(teacher, OPTIONS, made_data(), tmp_path / "s", teacher=larger, device="cpu")
    assert Training.load(made / "training.json").teacher == larger.weights_digest
    assert Student.load(made / "student.json").teacher == str(tmp_path / "larger")


def test_a_teacher_with_another_tokenizer_is_refused(teacher: OpenedModel, tmp_path: Path) -> None:
    save_random(tmp_path / "foreign", **TEACHER)  # type: ignore[arg-type]
    settings = json.loads((tmp_path / "foreign" / "tokenizer_config.json").read_bytes())
    (tmp_path / "foreign" / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|user|>"}))
    with pytest.raises(
        ComparabilityError, match=r"has another tokenizer than .*, so take a teacher of the same family"
    ):
        distill(teacher, OPTIONS, made_data(), tmp_path / "s", teacher=open_model(tmp_path / "foreign"), device="cpu")


def test_a_student_goes_straight_into_a_sweep(student: Path, tmp_path: Path) -> None:
    recipe = Recipe(scheme="W8A16", method="rtn", group_size="channel")
    (artifact,) = sweep(open_model(student), None, [recipe], tmp_path)
    assert artifact.manifest.model.ref == str(student)
    assert torch.isfinite(load_dequantized(artifact)(input_ids=torch.arange(9)[None]).logits).all()


def test_a_run_that_is_killed_stage_after_stage_gives_the_same_bytes(
    teacher: OpenedModel, student: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    for stage in ("importance of blocks 1", "train 3", "write 0"):
        assert _until(stage, teacher, out) == -signal.SIGKILL
        assert not out.exists()
        assert work_of(teacher, OPTIONS, made_data(), out, device="cpu").is_dir()
    assert _until(None, teacher, out) == 0
    assert weights(out) == weights(student)
    assert (out / "training.json").read_bytes() == (student / "training.json").read_bytes()
    assert not work_of(teacher, OPTIONS, made_data(), out, device="cpu").exists()


def _until(stage: str | None, teacher: OpenedModel, out: Path) -> int:
    """Run in a child, which waits for a word after each stage; killed at ``stage``, or never."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    command = [sys.executable, "-c", CHILD, str(teacher.path), str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as child:
        assert child.stdin and child.stdout
        for line in child.stdout:
            if stage is not None and line.strip() == stage:
                child.kill()
                break
            child.stdin.write("on\n")
            child.stdin.flush()
    return child.returncode


def test_ctrl_c_while_importance_is_measured(teacher: OpenedModel, tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int, row: Row | None = None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Stopped, match="stopped before training; the same command begins again"):
        distill(teacher, OPTIONS, made_data(), tmp_path / "s", tell=interrupt, device="cpu")


def test_a_full_disk_leaves_no_half_student(teacher: OpenedModel, student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")

    def fill(stage: str, done: int, total: int, row: Row | None = None) -> None:
        if (stage, done) == ("write", 0):
            free = os.statvfs(folder)
            (folder / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 8192))

    try:
        with pytest.raises(DiskFull, match="the disk is full"):
            distill(teacher, OPTIONS, made_data(), folder / "student", tell=fill, device="cpu")
        assert not (folder / "student").exists()
        (folder / "filler").unlink()
        assert weights(distill(teacher, OPTIONS, made_data(), folder / "student", device="cpu")) == weights(student)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
