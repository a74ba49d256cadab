"""Two models on the same cases, without a release."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from quantgate import pipeline
from quantgate.errors import DataError, ModelError, Stopped, UsageError
from quantgate.pipeline import CompareResult, compare_models
from quantgate.quantize import Recipe
from quantgate.records import canonical


@pytest.fixture(scope="module")
def broken(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An artifact of the small model that answers differently."""
    from quantgate.models import open_model
    from quantgate.quantize.sweep import sweep

    out = tmp_path_factory.mktemp("artifacts")
    (artifact,) = sweep(open_model(place / "model"), None, [Recipe(scheme="W2A16", group_size=32, method="rtn")], out)
    return artifact.path


def suites(place: Path, *names: Any) -> Any:
    return [str(place / f"{name}.jsonl") for name in names]


def test_a_copy_of_the_model_passes(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "copy")
    result = compare_models(
        str(place / "model"), str(tmp_path / "copy"), suites(place, "echo", "count"), margin="10%", out=tmp_path / "out"
    )
    assert [(one.capability, one.verdict) for one in result.verdicts] == [("echo", "pass"), ("count", "pass")]
    assert CompareResult.load(tmp_path / "out" / "compare.json") == result
    assert len(list((tmp_path / "out" / "answers").iterdir())) == 2  # the same bytes are the same model, asked again


def test_an_artifact_is_compared_with_the_model_it_was_made_from(place: Path, broken: Path, tmp_path: Path) -> None:
    result = compare_models(str(place / "model"), str(broken), suites(place, "echo"), margin=0.2, out=tmp_path)
    assert result.verdicts[0].verdict == "fail"
    assert result.comparisons[0].gate.pass_alpha == 0.05


def test_stopped_comparison_goes_on_to_the_same_result(place: Path, broken: Path, tmp_path: Path) -> None:
    wanted = str(place / "model"), str(broken), suites(place, "echo", "count")

    def ctrl_c(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match=r"the answers so far are kept in .*, and the same command goes on from there"):
        compare_models(*wanted, margin=0.2, out=tmp_path / "stopped", progress=ctrl_c)
    assert not (tmp_path / "stopped" / "compare.json").exists()
    resumed = compare_models(*wanted, margin=0.2, out=tmp_path / "stopped")
    whole = compare_models(*wanted, margin=0.2, out=tmp_path / "whole")
    assert resumed.pace is not None and whole.pace is not None
    same = [one.model_copy(update={"pace": None}).body() for one in (resumed, whole)]  # clocks never agree
    assert canonical(same[0]) == canonical(same[1])


def test_comparison_that_cannot_pass_is_refused_before_a_model_is_opened(place: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"echo: a margin of 1 % at alpha 5 % needs at least 457 cases, 60 are available;"
    ):
        compare_models("./missing", "./missing", suites(place, "echo"), margin="1%", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_suites_of_one_name_are_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "echo.jsonl").write_bytes((place / "echo.jsonl").read_bytes())
    for second in (str(tmp_path / "echo.jsonl"), suites(place, "echo")[0]):
        with pytest.raises(UsageError, match="a suite called 'echo' is named already; keep one, or rename the file"):
            compare_models("a", "b", [*suites(place, "echo"), second])


def test_missing_things_are_told(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        compare_models(str(place / "model"), "b", [str(tmp_path / "none.jsonl")])
    with pytest.raises(ModelError, match="missing: no such folder"):
        compare_models(str(place / "model"), "./missing", suites(place, "echo"), margin=0.2, out=tmp_path)
    with pytest.raises(UsageError, match=r"compare: 'capabilities': is empty"):
        compare_models("a", "b", [])


def test_an_artifact_with_another_chat_template_is_refused(place: Path, broken: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    settings["chat_template"] = settings["chat_template"].replace("<|user|>", "") + " "
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError, match="whose tokenizer or chat template differs from that of"):
        compare_models(str(tmp_path / "model"), str(broken), suites(place, "echo"), margin=0.2, out=tmp_path / "out")


def test_python_api_is_the_same_function() -> None:
    import quantgate

    assert quantgate.compare is compare_models
    assert quantgate.run is pipeline.run
