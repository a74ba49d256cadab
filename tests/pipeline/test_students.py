"""Variants that are models of their own: judged as the others are, refused early where they must be."""

from __future__ import annotations

import json
import os
import shutil
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.models.cutting import cut, derive, renumbered, tuned, with_idle_block
from tests.pipeline.test_executor import Threads, said, spread

from quantgate import pipeline
from quantgate.engines._scripted_server import ScriptedServer, last
from quantgate.errors import ArtifactError, ComparabilityError, ModelError, Stopped, UsageError
from quantgate.models import REFERENCE_FOLDER, open_model
from quantgate.pipeline import planning
from quantgate.pipeline.cases import calibration_of
from quantgate.pipeline.endpoints import Served
from quantgate.pipeline.quantize_only import quantize
from quantgate.pipeline.repair import repair
from quantgate.pipeline.students import Given, open_students, samples_of
from quantgate.pipeline.targets import plan_release
from quantgate.pipeline.variants import Student, engines_of, variants_of
from quantgate.quantize import Recipe, open_artifact
from quantgate.quantize.sweep import sweep
from quantgate.records import canonical
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.report import RunReport
from quantgate.report.terminal import show
from quantgate.variant_config import VariantConfig

STORIES = Path(__file__).resolve().parents[3] / "shared" / "models" / "stories260K"


@pytest.fixture(scope="module")
def family(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``baseline``: the small model and a block that does nothing. ``student``: without it, so nothing is lost.
    ``empty``: that block alone. ``tuned``: the baseline's shape, hardly moved; ``spoiled``: moved far."""
    folder = tmp_path_factory.mktemp("family")
    base = with_idle_block(place / "model", folder / "baseline")
    cut(base, folder / "student", [0])
    cut(base, folder / "empty", [1])
    tuned(base, folder / "tuned", 0.001)
    tuned(base, folder / "spoiled", 1.0)
    return folder


@pytest.fixture
def family_release(release: Any, family: Path) -> Any:
    def write(*variants: Any, **more: Any) -> ReleaseConfig:
        return load_config(release(model=str(family / "baseline"), variants=list(variants), **more))

    return write


EVERY = (
    "W8A16",
    {"model": "student"},
    {"model": "student", "scheme": "W8A16"},
    {"model": "student", "scheme": "W4A16", "group_size": 32, "name": "small"},
    {"model": "empty"},
    {"model": "tuned", "scheme": "BF16"},
    {"model": "spoiled", "scheme": "W8A16"},
)


def every(family: Path) -> list[Any]:
    return [one if isinstance(one, str) else one | {"model": f"{family}/{one['model']}"} for one in EVERY]


def proof(report: RunReport) -> bytes:
    return canonical([report.decision.body(), [one.body() for one in (*report.evidence, *report.variants)]])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("students")


@pytest.fixture
def finished(family_release: Any, family: Path, shared: Path) -> Any:
    """An undisturbed run; made once, since a second one only reads its caches."""
    return shared / "run", pipeline.run(family_release(*every(family), drift_cases=0), out=shared / "run")


def test_a_student_that_loses_nothing_passes_and_the_smallest_that_passes_is_chosen(finished: Any) -> None:
    _, report = finished
    verdicts = {one.variant: one.verdict for one in report.decision.verdicts}
    assert verdicts["student"] == verdicts["student-W8A16"] == verdicts["W8A16"] == verdicts["tuned"] == "pass"
    assert verdicts["empty"] == verdicts["spoiled-W8A16"] == "fail"
    sizes = {one.name: one.stored_bytes for one in report.candidates}
    safe = [name for name, verdict in verdicts.items() if verdict == "pass"]
    assert report.decision.chosen == min(safe, key=lambda name: sizes[name]) in ("student-W8A16", "small")
    assert sizes["student-W8A16"] < sizes["W8A16"]


def test_each_says_what_it_is_beside_the_baseline(finished: Any, family: Path) -> None:
    _, report = finished
    candidates = {one.name: one for one in report.candidates}
    assert {name: one.relation for name, one in candidates.items()} == {
        "W8A16": "", "student": "student", "student-W8A16": "student", "small": "student", "empty": "student",
        "tuned": "fine-tune", "spoiled-W8A16": "fine-tune",
    }  # fmt: skip
    student, summary = open_model(family / "student"), next(one for one in report.variants if one.name == "student")
    found = candidates["student"]
    assert (found.parameters, found.stored_bytes, found.bits_per_weight) == (
        student.parameters, student.weights_bytes, 16.0,
    )  # fmt: skip
    assert (summary.scheme, summary.method, summary.quantized) == ("BF16", "", 0)
    assert (summary.path, summary.repairable) == (str(family / "student"), False)
    assert summary.kin.weights == student.weights_digest
    assert summary.kin.own_parameters == 0 < report.variants[5].kin.own_parameters
    assert [one.kin is None for one in report.variants] == [True, *[False] * 6]
    sentences = {one.variant: one.sentence for one in report.decision.verdicts}
    assert sentences["student"].endswith("; a model of its own (student), no artifact of the baseline")
    assert "model of its own" not in sentences["W8A16"]


def test_records_of_variants_of_the_baseline_stay_as_they_were(finished: Any) -> None:
    _, report = finished
    assert not {"relation", "parameters"} & report.candidates[0].body().keys()
    assert "kin" not in report.variants[0].body()
    assert "model" not in VariantConfig(scheme="W4A16").body()
    assert RunReport.model_validate_json(report.model_dump_json()) == report


def test_what_is_made_of_a_student_has_statistics_of_its_own(
    finished: Any, family: Path, family_release: Any, tmp_path: Path
) -> None:
    """The same bytes as a sweep over the student alone, on the same conversations in its tokens."""
    out, report = finished
    made, student = open_artifact(out / "artifacts" / "small"), open_model(family / "student")
    assert made.manifest.model.weights == student.weights_digest != report.baseline
    samples = calibration_of(family_release("W8A16"), student)
    assert samples.record == report.calibration
    (alone,) = sweep(student, samples.ids, [made.manifest.recipe], tmp_path / "alone", seed=0)
    assert alone.manifest.inputs == made.manifest.inputs
    assert {name: one for name, one in alone.manifest.files.items() if name.endswith("safetensors")} == {
        name: one for name, one in made.manifest.files.items() if name.endswith("safetensors")
    }


def test_a_shorter_context_cuts_the_samples_and_another_template_renders_them_anew(
    family: Path, family_release: Any, tmp_path: Path
) -> None:
    config, base = family_release("W8A16"), open_model(family / "baseline")
    chosen = calibration_of(config, base)
    given = Given(config, chosen, [], base)
    short = open_model(derive(family / "student", tmp_path / "short", max_position_embeddings=20))
    assert samples_of(given, short, tmp_path) == [one[:20] for one in chosen.ids]
    assert any(len(one) > 20 for one in chosen.ids)
    spoken = open_model(spoken_otherwise(family / "student", tmp_path / "spoken"))
    ids = samples_of(given, spoken, tmp_path)
    assert ids == calibration_of(config, spoken).ids != chosen.ids


def test_second_run_asks_and_makes_nothing(finished: Any, family: Path, family_release: Any) -> None:
    out, report = finished
    files = [file for part in ("answers", "artifacts", "drift") for file in (out / part).rglob("*") if file.is_file()]
    before = {file: file.stat().st_mtime_ns for file in files}
    again = pipeline.run(family_release(*every(family), drift_cases=0), out=out)
    assert proof(again) == proof(report)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_moved_folder_is_the_same_evidence(family: Path, family_release: Any, tmp_path: Path) -> None:
    moved = shutil.copytree(family / "student", tmp_path / "elsewhere" / "student")
    first = pipeline.run(family_release({"model": str(family / "student")}))
    again = pipeline.run(family_release({"model": str(moved)}))
    assert [one.body() for one in again.evidence] == [one.body() for one in first.evidence]
    assert again.decision == first.decision


@pytest.mark.parametrize(("note", "event"), [("student: quantize", 2), ("student: write", 1)])
def test_ctrl_c_in_a_students_sweep_goes_on_to_the_same_proof(
    finished: Any, family: Path, family_release: Any, note: str, event: int
) -> None:
    seen = []

    def press(stage: str, _done: int, _total: int, now: str) -> None:
        if (stage, now) == ("quantize", note):
            seen.append(now)
            if len(seen) == event:
                os.kill(os.getpid(), signal.SIGINT)

    config = family_release(*every(family), drift_cases=0)
    with pytest.raises(Stopped, match=r"stopped; .* goes on from there"):
        pipeline.run(config, progress=press)
    assert not (Path(config.out) / "report.json").exists()
    assert (Path(config.out) / "artifacts" / "W8A16" / "manifest.json").exists()
    assert proof(pipeline.run(config)) == proof(finished[1])


def test_workers_judge_students_as_this_process_does(
    finished: Any, family: Path, family_release: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Threads(2, 1)
    spread(monkeypatch, pool)
    report = pipeline.run(family_release(*every(family), drift_cases=0), out=tmp_path / "spread")
    there, here = (json.loads(said(one)) for one in (report, finished[1]))
    for one, other in zip(there["variants"], here["variants"], strict=True):
        assert one.pop("path").rpartition("/")[2] == other.pop("path").rpartition("/")[2]
    assert there == here


def test_the_plan_tells_sizes_to_the_byte_and_what_each_is(finished: Any, family: Path, family_release: Any) -> None:
    _, report = finished
    told = planning.plan(family_release(*every(family), drift_cases=0), Path("nowhere"), probe=False).others
    sizes = {one.name: one.stored_bytes for one in report.candidates if one.relation}
    assert [line.partition(":")[0] for line in told] == list(sizes)
    for line, (name, size) in zip(told, sizes.items(), strict=True):
        assert line.startswith(f"{name}: {size / 1e6:.1f} MB, ")
    assert "a student: a smaller model of the same vocabulary; 1 block (baseline: 2)" in told[0]
    assert planning.plan(family_release("W8A16"), Path("nowhere"), probe=False).others == ()


def test_drift_is_measured_where_the_vocabularies_agree(family: Path, family_release: Any, tmp_path: Path) -> None:
    """Exactly none from a block that does nothing; files of a tokenizer that differ in a byte are no other tokens."""
    reworded = derive(family / "student", tmp_path / "reworded")
    file = reworded / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"model_max_length": 256}))
    other = renumbered(family / "student", tmp_path / "other", {"a": "b", "o": "q"})
    spoken = spoken_otherwise(family / "student", tmp_path / "spoken")
    capabilities = {"rare_vocabulary": {"margin": "50%", "cases": 20}}
    variants = [{"model": str(one)} for one in (family / "student", reworded, other, spoken)]
    config = family_release(
        *variants, capabilities=capabilities, drift_cases=4, allow=["tokenizer", "template"], judge={"alpha": 0.2}
    )
    report = pipeline.run(config)
    same, again, swapped, turned = report.evidence
    assert same.drift and again.drift and again.lock
    assert same.drift.kl_max == again.drift.kl_max == 0.0 and same.drift.same_top == 1.0
    assert [one.field for one in again.lock.accepted] == ["tokenizer"]
    assert swapped.drift is None and swapped.no_drift.startswith("its tokens are not the baseline's")
    assert turned.drift is None and turned.no_drift.startswith("its chat template is another")
    assert [one.relation for one in report.candidates] == ["student", "student", "other model", "student"]


def test_a_run_refuses_before_anything_is_made_what_cannot_be_compared(
    family: Path, family_release: Any, tmp_path: Path
) -> None:
    other = renumbered(family / "student", tmp_path / "other", {"a": "b"})
    spoken = spoken_otherwise(family / "student", tmp_path / "spoken")
    endless = derive(family / "student", tmp_path / "endless", eos_token_id=255)
    for folder, field in ((other, "tokenizer"), (spoken, "template: .*tokenizer"), (endless, "stop_tokens")):
        config = family_release({"model": str(folder), "scheme": "W8A16"})
        with pytest.raises(ComparabilityError, match=rf"variants: '{folder.name}-W8A16': .*: {field}: .*allow: \["):
            pipeline.run(config)
        assert not Path(config.out).exists()
        with pytest.raises(ComparabilityError):
            planning.plan(config, Path("nowhere"), probe=False)


def test_the_baseline_itself_is_no_candidate(family: Path, family_release: Any, tmp_path: Path) -> None:
    copied = shutil.copytree(family / "baseline", tmp_path / "copied")
    for variant in ({"model": str(family / "baseline")}, {"model": str(copied), "scheme": "W8A16"}):
        with pytest.raises(UsageError, match=r"is the baseline itself, number for number; .* leave 'model' out"):
            pipeline.run(family_release(variant))


def test_artifacts_and_models_are_told_apart(finished: Any, family: Path, family_release: Any, tmp_path: Path) -> None:
    out, _ = finished
    foreign = shutil.copytree(out / "artifacts" / "W8A16", tmp_path / "foreign")
    (foreign / "manifest.json").unlink()
    (tmp_path / "file.gguf").write_bytes(b"GGUF")
    for ref in (out / "artifacts" / "W8A16", foreign, tmp_path / "file.gguf"):
        config = family_release({"name": "x", "model": str(ref)})
        sentence = r"'x': .* is an artifact, and 'model' takes a model in full precision; .* under 'artifact'"
        with pytest.raises(UsageError, match=sentence):
            pipeline.run(config)
    with pytest.raises(ArtifactError, match="a model in full precision is named under 'model'"):
        pipeline.run(family_release({"name": "x", "artifact": str(family / "student")}))
    config = family_release("W4A16", {"model": str(family / "student"), "scheme": "W8A16", "name": "mine"})
    (Path(config.out) / "artifacts" / "mine").mkdir(parents=True)
    (Path(config.out) / "artifacts" / "mine" / "letters.txt").write_text("keep me")
    with pytest.raises(ArtifactError, match="mine: exists and is not an artifact; move it away"):
        pipeline.run(config)
    assert [one.name for one in (Path(config.out) / "artifacts").iterdir()] == ["mine"]
    with pytest.raises(ModelError, match="nowhere: no such folder"):
        pipeline.run(family_release({"model": "./nowhere"}))


def test_an_artifact_that_was_made_from_other_weights_says_so(
    finished: Any, family: Path, family_release: Any, tmp_path: Path
) -> None:
    artifact = finished[0] / "artifacts" / "spoiled-W8A16"
    report = pipeline.run(family_release({"artifact": str(artifact), "name": "theirs"}, "W8A16"))
    assert [one.relation for one in report.candidates] == ["other model", ""]
    assert "a model of its own (other model)" in next(
        one.sentence for one in report.decision.verdicts if one.variant == "theirs"
    )


def test_the_page_and_the_terminal_mark_models_of_their_own(finished: Any) -> None:
    out, report = finished
    console = Console(record=True, width=100, file=StringIO())
    show(report, console)
    text = " ".join(console.export_text().split())
    assert f"> {report.decision.chosen} (student)" in text
    assert "student, student-W8A16, small: a student: a smaller model of the same vocabulary; 1 block" in text
    assert text.count("other weights of the baseline's shape, as a fine-tune has") == 2
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<dt>model of its own</dt>") == 6
    assert "made in one pass" not in page and "a model of its own (student)</span>" in page


def test_a_third_partys_model_has_another_tokenizer(tmp_path: Path, release: Any) -> None:
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES} is not here")
    config = load_config(release(model="quantgate/reference", variants=[{"model": str(STORIES)}]))
    with pytest.raises(ComparabilityError, match=r"'stories260K': .*: template: .*; tokenizer: .*; make them agree"):
        pipeline.run(config)


def test_one_model_is_opened_once_and_its_variants_are_named_after_it(family: Path, family_release: Any) -> None:
    config = family_release(*every(family))
    found = variants_of(config.variants)
    assert [one.name for one in found] == [
        "W8A16", "student", "student-W8A16", "small", "empty", "tuned", "spoiled-W8A16",
    ]  # fmt: skip
    assert isinstance(found[0], Recipe)
    assert [one.made for one in found if isinstance(one, Student)] == [False, True, True, False, False, True]
    assert set(engines_of(config.variants)) == {one.name for one in found}
    students = open_students(config, open_model(config.model), Path("nowhere"))
    assert students.models["student"] is students.models["student-W8A16"] is students.models["small"]
    assert [one.name for one in students.recipes] == ["student-W8A16", "small", "spoiled-W8A16"]
    with pytest.raises(UsageError, match="two are called 'student'"):
        variants_of((VariantConfig(model="a/student"), VariantConfig(model="b/student/")))
    with pytest.raises(UsageError, match="number 1: 'my student' cannot name a variant"):
        variants_of((VariantConfig(model="my student"),))


def test_quantize_and_repair_send_a_student_where_it_belongs(finished: Any, family: Path, family_release: Any) -> None:
    with pytest.raises(UsageError, match="'x' is a model of its own; quantize it by itself, as quantgate quantize s"):
        quantize(str(family / "baseline"), [{"model": "s", "name": "x"}])
    config = family_release(*every(family), drift_cases=0)
    with pytest.raises(UsageError, match="'spoiled-W8A16' is a model of its own, and no layer of the baseline fits it"):
        repair(config, "spoiled-W8A16", out=finished[0])


def test_a_plan_for_targets_holds_students_too(family: Path, family_release: Any, tmp_path: Path) -> None:
    """Their own shapes count, and a configuration without weights will do."""
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(family / "empty" / "config.json", bare)
    variants = ["W8A16", {"model": str(family / "student")}, {"model": str(bare), "scheme": "W8A16"}]
    config = family_release(*variants, targets={"fleet": {"hardware": "h100-sxm", "runtime": "vllm"}})
    found = plan_release(config)
    assert [one.variant for one in found.rows] == ["BF16", "W8A16", "student", "bare-W8A16"]
    assert found.rows[2].stored_bytes == open_model(family / "student").weights_bytes
    assert found.rows[3].stored_bytes < found.rows[1].stored_bytes
    assert [one.partition(":")[0] for one in found.others] == ["student", "bare-W8A16"]
    assert "1 block (baseline: 2)" in found.others[0]


@pytest.mark.parametrize(("block", "verdict"), [(4, "fail"), (5, "pass")])
def test_a_block_of_the_reference_model_is_missed_where_it_does_something(
    release: Any, tmp_path: Path, block: int, verdict: str
) -> None:
    """Depth pruning without training again, judged on real questions: its last block never learned anything."""
    keep = [at for at in range(6) if at != block]
    student = cut(REFERENCE_FOLDER, tmp_path / "pruned", keep)
    config = load_config(
        release(
            model="quantgate/reference",
            variants=[{"model": str(student)}],
            capabilities={"math": {"cases": 100, "margin": "10%"}},
            drift_cases=8,
            judge={"noise": 0},
        )
    )
    report = pipeline.run(config)
    (found,), (evidence,) = report.decision.verdicts, report.evidence
    assert found.verdict == verdict
    assert report.decision.chosen == ("pruned" if verdict == "pass" else None)
    assert evidence.drift is not None
    assert (evidence.drift.kl_mean > 0.01) == (verdict == "fail")
    kin = report.variants[0].kin
    assert kin is not None and (kin.blocks, kin.own_parameters) == (5, 0)
    page = (Path(config.out) / "report.html").read_text("utf-8")
    assert kin.sentence.replace("'", "&#39;") in page


def test_a_student_may_be_served_and_what_ends_its_answers_is_then_the_servers_word(
    place: Path, family: Path, family_release: Any, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (place / "echo.jsonl").read_text().splitlines()]
    answers = {row["prompt"]: row["reference"] for row in rows}
    endless = derive(family / "student", tmp_path / "endless", eos_token_id=255)
    with ScriptedServer(lambda body: answers.get(last(body), "?"), models=("right",)) as server:
        served = {"model": str(endless), "engine": "openai", "endpoint": {"url": server.url, "revision": "today"}}
        echo = {"echo": {"suite": str(place / "echo.jsonl"), "margin": "20%"}}
        report = pipeline.run(family_release(served, capabilities=echo, allow=["template", "tokenizer"]))
    (verdict,), (evidence,) = report.decision.verdicts, report.evidence
    assert verdict.verdict == "pass" and evidence.declared
    assert "a model of its own (student), no artifact of the baseline; that the server ran" in verdict.sentence
    students = open_students(
        family_release({"model": str(family / "student")}), open_model(family / "baseline"), tmp_path
    )
    (artifact,) = students.as_they_are().values()
    what = Served.artifact(artifact, students.models["student"])
    assert (what.path, what.weights) == (str(family / "student"), students.kin["student"].weights)


def spoken_otherwise(source: Path, out: Path) -> Path:
    """The same model under a chat template that says a word more."""
    derive(source, out)
    file = out / "tokenizer_config.json"
    told = json.loads(file.read_bytes())
    file.write_text(json.dumps(told | {"chat_template": "so: " + told["chat_template"]}))
    return out
