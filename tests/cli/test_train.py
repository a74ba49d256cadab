"""``quantgate train qat`` and ``distill`` as they are typed: what lands, what is said, what is refused before work."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quantgate.cli.completions import training_option
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import open_artifact
from quantgate.report.training import TrainingReport

Command = Callable[..., tuple[int, str, str]]
SOURCE = Path(__file__).resolve().parents[2] / "src"
QUICK = (
    *("-o", "documents=60", "-o", "tune=8", "-o", "batch_tokens=512", "-o", "evaluate_every=1", "-o", "max_tokens=200"),
    *("--samples", "4", "--suite", "math", "--device", "cpu"),
)
ROUND = ("--scheme", "W2A16-g32", "--method-start", "rtn", "-o", "reconstruct=1", "--steps", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("model") / "tiny", hidden=64, feed_forward=64, layers=2)


def test_qat_leaves_an_artifact_a_record_a_page_and_what_to_do_next(
    command: Command, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "qat"
    code, printed, told = command("train", "qat", model, *ROUND, *QUICK, "--out", out)
    assert code == 0, told
    artifact = open_artifact(out / "W2A16-g32-qat")
    training = artifact.manifest.training
    assert training is not None and training.after is not None and training.before is not None
    assert training.after <= training.before
    report = TrainingReport.load(out / "W2A16-g32-qat.json")
    assert [row.step for row in report.curve] == [0, 1, 2]
    assert report.digest_made == artifact.manifest.digest and report.training == training
    assert (out / "W2A16-g32-qat.html").is_file()
    assert f"next: quantgate compare {model} {out}/W2A16-g32-qat --suite math" in printed
    assert "math" in printed and "held against 400 cases of the gates" in printed
    assert "training the whole model" in told and "asking the teacher" in told

    # the same command takes what is there, and its page keeps the curve
    code, printed, told = command("train", "qat", model, *ROUND, *QUICK, "--out", out, "--json")
    again = json.loads(printed)
    assert code == 0 and not told
    assert again["digest_made"] == report.digest_made
    assert [row["step"] for row in again["curve"]] == [0, 1, 2]
    assert again["reused"] == ["the finished result of the same inputs: nothing was trained anew"]

    # begun anew, it says what it throws away, and comes to the same bytes
    code, _, told = command("train", "qat", model, *ROUND, *QUICK, "--out", out, "--fresh")
    assert code == 0 and f"throwing away {out / 'W2A16-g32-qat'}" in told
    assert open_artifact(out / "W2A16-g32-qat").manifest.digest == report.digest_made


def test_distill_leaves_a_model_that_opens_and_says_what_was_cut(command: Command, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "distill"
    code, printed, told = command("train", "distill", model, "--layers", 1, "--steps", 2, *QUICK, "--out", out)
    assert code == 0, told
    student = open_model(out / "student-l1")
    assert student.depth == 1
    report = TrainingReport.load(out / "student-l1.json")
    assert report.method == "distill" and [row.step for row in report.curve] == [0, 1, 2]
    assert any(one.startswith("block ") for one in report.said)
    assert "1 of 2 blocks" in report.start
    assert f"next: quantgate quantize {out}/student-l1 -v W8A8" in printed


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("qat", "MODEL", "--scheme", "W3A61"), 2, "unknown scheme 'W3A61'; did you mean 'W3A16'"),
        (
            ("qat", "MODEL", "--scheme", "W4A16", "-o", "learnin_rate=1"),
            2,
            "'learnin_rate'; did you mean 'learning_rate'",
        ),
        (("qat", "MODEL", "--scheme", "W4A16", "-o", "steps"), 2, "--option: expected key=value"),
        (("qat", "MODEL", "--scheme", "W4A16", "--steps", "5", "-o", "steps=6"), 2, "'steps' is given twice"),
        (("qat", "MODEL", "--scheme", "W4A16", "-o", "learning_rate=-1"), 2, "learning_rate"),
        (("qat", "MODEL", "--scheme", "W4A16-g48"), 4, "48"),
        (("qat", "MODEL", "--scheme", "W4A16-g32", "--method-start", "gtpq"), 2, "did you mean 'gptq'"),
        (("qat", "MODEL", "--scheme", "W4A16-g32", "--suite", "mat"), 2, "did you mean 'math'"),
        (("qat", "MODEL", "--scheme", "W4A16-g32", "--traffic", "nowhere.jsonl"), 4, "no such file"),
        (
            ("qat", "MODEL", "--scheme", "W4A16-g32", "--teacher", "quantgate/reference"),
            4,
            "has another tokenizer than",
        ),
        (("distill", "MODEL"), 2, "a student has a shape"),
        (("distill", "MODEL", "--layers", "9"), 2, "layers"),
        (("distill", "MODEL", "--layers", "1", "--teacher", "quantgate/reference"), 4, "has another tokenizer than"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_and_leaves_nothing(
    command: Command, model: Path, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    out = tmp_path / "out"
    typed = [str(model) if word == "MODEL" else word for word in words]
    found, printed, told = command("train", *typed, "--out", out)
    assert (found, printed) == (code, ""), told
    assert sentence in told and "Traceback" not in told
    assert not out.exists()


def test_traffic_that_is_a_gates_case_is_refused_before_training(command: Command, model: Path, tmp_path: Path) -> None:
    from quantgate.evaluate import suites

    case = suites.cases("math", "gate", 1)[0]
    asked = [{"role": one.role, "content": one.content} for one in case.messages]
    rows = [{"messages": [*asked, {"role": "assistant", "content": case.answer}]}]
    rows += [
        {"messages": [{"role": "user", "content": f"What happened on day {at} of the voyage?"}]} for at in range(20)
    ]
    traffic = tmp_path / "traffic.jsonl"
    traffic.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, told = command(
        "train", "qat", model, *ROUND, *QUICK, "--traffic", traffic, "--samples", 21, "--out", tmp_path / "o"
    )
    assert code == 4 and "training data overlaps with the gate" in told and "math-" in told
    assert not (tmp_path / "o" / "W2A16-g32-qat").exists()


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["train", "qat", str(model), *ROUND[:-1], "400", *QUICK, "-o", "patience=400", "--out", str(out)]
    program = [sys.executable, "-c", "from quantgate.cli import main; main()", *words]
    where = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(program, env=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not list(out.glob(".train-*/loop/state.json")):
        assert child.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=120)
    assert child.returncode == 130, told
    assert "the same command goes on" in told and "Traceback" not in told
    assert list(out.glob(".train-*/loop/*.safetensors"))


def test_settings_of_training_are_completed() -> None:
    assert "learning_rate=" in training_option("learn")
    assert training_option("layers") == []


@pytest.mark.parametrize(
    ("verb", "more", "made"), [("qat", ROUND, "W2A16-g32-qat"), ("distill", ("--layers", "1"), "")]
)
def test_two_processes_of_a_launcher_make_one_result(
    verb: str, more: tuple[str, ...], made: str, model: Path, tmp_path: Path
) -> None:
    """As docs/training.md says: the first writes and speaks, the other works along."""
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out"
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    typed = [
        "-m",
        "quantgate",
        "train",
        verb,
        str(model),
        *more,
        *QUICK,
        "--steps",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launch, *typed], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("curve: ") == 1
    reports = [TrainingReport.load(file) for file in out.glob("*.json") if file.name != "overlap.json"]
    assert [row.step for row in reports[0].curve] == [0, 1, 2]
    if made:
        assert open_artifact(out / made).manifest.digest == reports[0].digest_made
    else:
        assert open_model(out / reports[0].name).depth == 1


def test_several_processes_do_not_begin_anew(model: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "WORLD_SIZE": "2", "RANK": "0"}
    typed = ["train", "qat", str(model), *ROUND, *QUICK, "--fresh", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "quantgate", *typed], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--fresh: one process cannot throw away what another reads" in " ".join(done.stderr.split())
