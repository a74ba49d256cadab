"""What a release trains: made once, judged as the others are, resumed inside the training, refused early."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.pipeline.conftest import write_lines
from tests.pipeline.test_executor import Threads, spread
from typer.testing import CliRunner

from quantgate import pipeline
from quantgate.cli import app
from quantgate.errors import ArtifactError, FormatError, Overlap, Stopped, UsageError
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.pipeline import planning
from quantgate.pipeline.cases import calibration_of
from quantgate.pipeline.quantize_only import quantize
from quantgate.pipeline.registering import read_run, register_run
from quantgate.pipeline.targets import plan_release
from quantgate.pipeline.training_data import training_data
from quantgate.pipeline.variants import Student, open_variant, rounded, variants_of
from quantgate.quantize import Recipe, open_artifact
from quantgate.quantize.manifest import Training
from quantgate.records import canonical
from quantgate.release.lifecycle import promote
from quantgate.release.store import Registry
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.report import RunReport
from quantgate.report.plans import show_plan
from quantgate.report.terminal import show
from quantgate.train.options import DistillOptions, QatOptions
from quantgate.variant_config import VariantConfig

SMALL = {"steps": 4, "batch_tokens": 256, "max_tokens": 32, "tune": 8, "evaluate_every": 2, "documents": 40}
QAT = {**SMALL, "reconstruct": 1}
STUDENT = {"layers": 1, **SMALL}
EVERY: list[Any] = [
    {"scheme": "W2A16", "group_size": 32, "method": "rtn"},
    {"scheme": "W2A16", "group_size": 32, "method": "qat", "options": QAT},
    {"student": STUDENT},
    {"student": STUDENT, "scheme": "W8A16"},
    {"student": STUDENT, "scheme": "W4A16", "group_size": 32, "method": "qat", "options": QAT},
]
NAMES = ["W2A16-g32-rtn", "W2A16-g32-qat", "student-l1", "student-l1-W8A16", "student-l1-W4A16-g32-qat"]
Release = Callable[..., ReleaseConfig]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of two blocks, traffic, and a suite that everybody can do, so that all variants pass."""
    folder = tmp_path_factory.mktemp("training")
    save_random(folder / "model", hidden=64, feed_forward=64, layers=2, heads=2, kv_heads=1, tied=False)
    write_lines(
        folder / "traffic.jsonl", [{"prompt": f"tell of {at}", "completion": f"no {at * at}"} for at in range(60)]
    )
    cases: list[dict[str, object]] = [
        {
            "id": f"e{at}",
            "prompt": f"echo {at * at}",
            "scorer": "contains",
            "reference": {"none": ["no such word"]},
            "max_tokens": 2,
        }
        for at in range(30)
    ]
    write_lines(folder / "echo.jsonl", cases)
    return folder


def release_of(home: Path, folder: Path, **changes: object) -> ReleaseConfig:
    settings: dict[str, object] = {
        "model": str(home / "model"),
        "calibration": {"traffic": str(home / "traffic.jsonl"), "samples": 40, "max_tokens": 32},
        "capabilities": {"echo": {"suite": str(home / "echo.jsonl"), "margin": "40%", "relative": False}},
        "variants": EVERY,
        "drift_cases": 0,
        "judge": {"noise": 0, "alpha": 0.2},
        "out": str(folder / "run"),
    } | changes
    path = folder / "release.yaml"
    path.write_text(json.dumps(settings))
    return load_config(path)


@pytest.fixture
def release(home: Path, tmp_path: Path) -> Release:
    return lambda **changes: release_of(home, tmp_path, **changes)


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunReport]:
    """An undisturbed run."""
    config = release_of(home, tmp_path_factory.mktemp("finished"))
    return Path(config.out), pipeline.run(config)


def made(report: RunReport) -> dict[str, str]:
    return {one.name: one.artifact for one in report.candidates}


def proof(report: RunReport) -> bytes:
    return canonical([report.decision.body(), [one.body() for one in report.evidence], made(report)])


def test_trained_variants_are_candidates_like_others(finished: tuple[Path, RunReport], home: Path) -> None:
    out, report = finished
    assert [one.name for one in report.candidates] == NAMES
    assert [one.relation for one in report.candidates] == ["", "", "student", "student", "student"]
    assert {one.variant for one in report.evidence} == set(NAMES)
    assert [[one.method for one in variant.training] for variant in report.variants] == [
        [], ["qat"], ["distill"], ["distill"], ["distill", "qat"],
    ]  # fmt: skip
    plain, trained = report.candidates[:2]
    assert trained.stored_bytes == plain.stored_bytes and trained.artifact != plain.artifact
    manifest = open_artifact(out / "artifacts" / "W2A16-g32-qat").manifest
    assert manifest.model.weights == report.baseline and manifest.training == report.variants[1].training[0]
    assert manifest.training is not None and manifest.training.sources == {"traffic": 36}
    assert report.stages[[one.name for one in report.stages].index("train")].seconds > 0


def test_two_variants_of_one_student_train_it_once_and_it_learns_from_the_baseline(
    finished: tuple[Path, RunReport],
) -> None:
    out, report = finished
    (folder,) = [one for one in (out / "students").iterdir() if not one.name.startswith(".")]
    assert folder.name.startswith("student-l1-")
    distilled = Training.load(folder / "training.json")
    assert [one.training[0] for one in report.variants[2:]] == [distilled] * 3
    assert distilled.teacher == report.variants[4].training[1].teacher == report.baseline
    student = open_model(folder)
    assert student.depth == 1
    assert {one.kin.weights for one in report.variants[2:] if one.kin} == {student.weights_digest}
    assert open_artifact(out / "artifacts" / NAMES[4]).manifest.model.weights == student.weights_digest


def test_second_run_trains_nothing(
    finished: tuple[Path, RunReport], release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one whose cases are answered by workers: training runs where the run does."""
    out, report = finished
    files = [one for part in ("artifacts", "students") for one in (out / part).rglob("*") if one.is_file()]
    before, told = {one: one.stat().st_mtime_ns for one in files}, []
    again = pipeline.run(release(), out=out, progress=lambda stage, done, total, note: told.append((stage, note)))
    assert proof(again) == proof(report)
    assert {one: one.stat().st_mtime_ns for one in files} == before
    assert not [note for stage, note in told if stage == "train" and ": train" in note]
    spread(monkeypatch, Threads(2, 1))
    assert made(pipeline.run(release(), out=out)) == made(report)


@pytest.mark.parametrize("place", ["student-l1: train", "W2A16-g32-qat: reconstruct", "W2A16-g32-qat: train"])
def test_ctrl_c_in_training_goes_on_to_the_same_bytes(
    finished: tuple[Path, RunReport], release: Release, place: str
) -> None:
    config, seen = release(variants=EVERY[:3]), list[str]()

    def press(stage: str, done: int, _total: int, note: str) -> None:
        if stage == "train" and note.startswith(place) and done and not seen:
            seen.append(note)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="goes on from"):
        pipeline.run(config, progress=press)
    assert seen and not (Path(config.out) / "report.json").exists()
    expected = made(finished[1])
    assert made(pipeline.run(config)) == {name: expected[name] for name in NAMES[:3]}


KILLED = """
import os, signal, sys
from quantgate import pipeline
from quantgate.release_config import load_config

def tell(stage, done, total, note):
    if stage == "train" and note.startswith("W2A16-g32-qat: train") and done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

pipeline.run(sys.argv[1], progress=tell)
"""


def test_a_killed_run_goes_on_inside_the_training(
    finished: tuple[Path, RunReport], release: Release, tmp_path: Path
) -> None:
    config = release(variants=EVERY[1:2])
    env = {**os.environ, "PYTHONPATH": str(Path(pipeline.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    gone = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "release.yaml")], env=env, capture_output=True)
    assert gone.returncode == -signal.SIGKILL, gone.stderr.decode()[-2000:]
    told = list[str]()
    report = pipeline.run(config, progress=lambda _stage, _done, _total, note: told.append(note))
    assert not any("start: quantize" in note for note in told)
    assert made(report) == {NAMES[1]: made(finished[1])[NAMES[1]]}


def test_what_trains_is_held_against_the_cases(release: Release, home: Path, tmp_path: Path) -> None:
    """A case that is a problem of the train split: no traffic has it, so calibration alone would not see it."""
    words: dict[str, Any] = {
        "capabilities": {"math": {"cases": 40, "margin": "50%"}},
        "calibration": {"samples": 8, "max_tokens": 32},
    }
    variants = [{"scheme": "W8A16", "method": "qat", "options": {**QAT, "max_tokens": 256}}]
    config = release(variants=variants, **words)
    model = open_model(home / "model")
    drawn = training_data(
        config, model, calibration_of(config, model), QatOptions.model_validate(variants[0]["options"])
    )
    leaked = next(one for one in drawn.documents if one.source == "math")
    prompt, answer = (content for _, content in leaked.turns[-2:])
    asked: list[dict[str, object]] = [
        {"id": f"o{at}", "prompt": f"other {at}", "scorer": "exact", "reference": "?"} for at in range(40)
    ]
    leak: dict[str, object] = {"id": "leak", "prompt": prompt, "scorer": "exact", "reference": answer}
    write_lines(tmp_path / "mine.jsonl", [leak, *asked])
    capabilities = {**words["capabilities"], "mine": {"suite": str(tmp_path / "mine.jsonl"), "margin": "50%"}}
    config = release(variants=variants, **words | {"capabilities": capabilities})
    with pytest.raises(Overlap, match=r"training data overlaps with the gate: .* is 'leak' of mine"):
        pipeline.run(config)
    assert not (Path(config.out) / "artifacts").exists() and (Path(config.out) / "training-overlap.json").is_file()


REFUSED = [
    (
        {"student": {"layers": 9}},
        UsageError,
        r"layers: 9 is more than the 2 of .*; a student is cut out of its teacher",
    ),
    ({"student": {"layers": 2}}, UsageError, r"is the whole of .*; ask for fewer"),
    ({"scheme": "W4A16-g48", "method": "qat"}, FormatError, r"do not divide into groups of 48"),
    ({"scheme": "W4A16-g32", "method": "qat", "keep": ["*_proj"]}, UsageError, r"no rounding to train for"),
    ({"scheme": "W4A16-g32", "method": "qat", "options": {"start": "gtpq"}}, UsageError, r"did you mean 'gptq'"),
    ({"student": {"layers": 1}, "scheme": "W4A16-g48", "method": "qat"}, FormatError, r"groups of 48"),
    ({"student": {"layers": 1}, "scheme": "W4A16-g48"}, FormatError, r"groups of 48"),
]


@pytest.mark.parametrize(("variant", "error", "sentence"), REFUSED, ids=[str(one[0]) for one in REFUSED])
def test_what_cannot_be_trained_is_refused_before_anything_is_made(
    release: Release, variant: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    config = release(variants=["W8A16", variant])
    with pytest.raises(error, match=sentence):
        pipeline.run(config)
    assert not Path(config.out).exists()
    with pytest.raises(error, match=sentence):
        planning.plan(config, Path("nowhere"), probe=False)


def test_a_foreign_folder_in_the_place_of_a_trained_artifact_is_kept(release: Release) -> None:
    config = release(variants=EVERY[1:2])
    (Path(config.out) / "artifacts" / "W2A16-g32-qat").mkdir(parents=True)
    (Path(config.out) / "artifacts" / "W2A16-g32-qat" / "letters.txt").write_text("keep me")
    with pytest.raises(ArtifactError, match="W2A16-g32-qat: exists and is not an artifact; move it away"):
        pipeline.run(config)


def test_the_plan_foretells_bytes_to_the_byte_and_tells_an_estimate(
    finished: tuple[Path, RunReport], release: Release
) -> None:
    _, report = finished
    told = planning.plan(release(), Path("nowhere"), probe=False)
    sizes = {one.name: one.stored_bytes for one in report.candidates}
    assert {one.name: one.bytes for one in told.training} == {
        name: sizes[name] for name in ("student-l1", "W2A16-g32-qat", "student-l1-W4A16-g32-qat")
    }
    assert all(one.steps == 4 and one.tokens == 1024 and one.seconds and one.seconds > 0 for one in told.training)
    longer = planning.plan(release(variants=[{"student": {**STUDENT, "steps": 4000}}]), Path("nowhere"), probe=False)
    assert longer.training[0].operations > 100 * told.training[0].operations
    console = Console(record=True, width=200, file=StringIO())
    show_plan(told, console)
    assert "training of student-l1: a student of 1 of 2 blocks" in console.export_text()
    assert planning.plan(release(variants=["W8A16"]), Path("nowhere"), probe=False).training == ()


def test_a_plan_for_targets_knows_what_will_be_trained(release: Release, finished: tuple[Path, RunReport]) -> None:
    config = release(targets={"fleet": {"hardware": "h100-sxm", "runtime": "vllm"}})
    found = plan_release(config)
    sizes = {one.name: one.stored_bytes for one in finished[1].candidates}
    assert {row.variant: row.stored_bytes for row in found.rows if row.variant in sizes} == sizes
    assert "student-l1: a model of its own (student-l1), 1 block (baseline: 2)" in found.others[0]


def test_names_follow_from_what_is_trained() -> None:
    found = variants_of([VariantConfig.model_validate(one) for one in EVERY])
    assert [one.name for one in found] == NAMES
    shapes = [one.shape for one in found if isinstance(one, Student)]
    assert shapes == [DistillOptions.model_validate(STUDENT)] * 3
    assert [one.name for one in found if isinstance(one, Recipe)] == NAMES[:2]
    trained = found[1]
    assert isinstance(trained, Recipe) and trained.method == "qat" and trained.options == QAT
    start = rounded(trained)
    assert (start.method, start.options, start.name) == ("gptq", {}, "W2A16-g32-qat")
    with pytest.raises(UsageError, match="two are called 'student-l1'"):
        variants_of([VariantConfig(student=DistillOptions(layers=1, steps=at)) for at in (1, 2)])


def test_quantize_sends_method_qat_where_it_belongs(home: Path) -> None:
    with pytest.raises(UsageError, match=r"'W2A16-qat' is trained, .* quantgate train qat --scheme W2A16, or in a rel"):
        quantize(str(home / "model"), ["W2A16:qat"])


def test_the_page_and_the_terminal_tell_how_each_was_trained(finished: tuple[Path, RunReport]) -> None:
    out, report = finished
    console = Console(record=True, width=120, file=StringIO())
    show(report, console)
    text = " ".join(console.export_text().split())
    assert "W2A16-g32-qat (QAT)" in text and "student-l1-W4A16-g32-qat (student, distilled, QAT)" in text
    assert "W2A16-g32-qat: trained with its rounding, from the codes of gptq: 4 steps" in text
    assert "student-l1, student-l1-W8A16, student-l1-W4A16-g32-qat: distilled from its teacher: 4 steps" in text
    assert "training data: none of 40 training conversations is among the 30 cases of echo" in text
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<dt>training</dt>") == 5 and "<dt>training data</dt>" in page
    for legend in ("rounded after training", "QAT: trained with its rounding", "distilled student"):
        assert legend in page
    assert report.variants[1].training[0].data in page


def test_what_was_trained_is_found_by_the_registry(finished: tuple[Path, RunReport], tmp_path: Path) -> None:
    folder = shutil.copytree(finished[0], tmp_path / "run")
    run = read_run(folder)
    assert run.notes == ()
    places = {one.name: Path(one.location) for one in run.variants}
    assert places["W2A16-g32-qat"] == folder / "artifacts" / "W2A16-g32-qat"
    assert places["student-l1"].parent == folder / "students"


def test_a_trained_variant_that_passes_is_promoted(place: Path, home: Path, tmp_path: Path) -> None:
    """On questions that the baseline alone can answer."""
    config = release_of(
        home,
        tmp_path,
        model=str(place / "model"),
        variants=[{"scheme": "W8A16", "method": "qat", "options": {**QAT, "learning_rate": 1e-6}}],
        capabilities={"echo": {"suite": str(place / "echo.jsonl"), "margin": "20%"}},
    )
    report = pipeline.run(config)
    assert report.decision.chosen == "W8A16-qat"
    registry = Registry.open(str(tmp_path / "quantgate.db"), "ada", create=True)
    register_run(registry, read_run(Path(config.out)))
    live = promote(registry, "default", "W8A16-qat", canary=0.1)
    assert live.canary is not None
    artifact = open_variant(live.canary.location, open_model(place / "model"), "W8A16-qat")
    assert artifact.manifest.digest == live.canary.artifact and artifact.manifest.training is not None


def test_the_example_of_init_holds_all_three_ways(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", "--train", str(tmp_path / "release.yaml")])
    assert done.exit_code == 0
    config = load_config(tmp_path / "release.yaml")
    found = variants_of(config.variants)
    assert [one.name for one in found] == ["W2A16-gptq", "W2A16-qat", "student-l3-W8A16"]
    assert config.variants[1].training.learning_rate == 1e-3
    trainings = planning.plan(config, tmp_path / "nowhere", probe=False).training
    assert [one.name for one in trainings] == ["student-l3", "W2A16-qat"]
    refused = CliRunner().invoke(app, ["init", "--train", "--on", "l4:vllm", str(tmp_path / "other.yaml")])
    assert refused.exit_code != 0 and not (tmp_path / "other.yaml").exists()
