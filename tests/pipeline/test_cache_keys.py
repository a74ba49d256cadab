"""Nothing stale is ever replayed: whatever an answer depends on is in the key that it is kept under."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantgate import pipeline
from quantgate.engines.torch import open_engine
from quantgate.errors import ArtifactError, ModelError
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.suites import Case, Message
from quantgate.models import open_model
from quantgate.quantize import Recipe, baseline, open_artifact
from quantgate.quantize.sweep import sweep
from quantgate.release_config import load_config

CASES = [
    Case(suite="s", id=str(at), messages=(Message(role="user", content=f"say {at}"),), scorer="exact", reference="",
         max_tokens=3)
    for at in range(4)
]  # fmt: skip


def edit(file: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        told = json.loads((folder / file).read_bytes()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps(told | changes))

    return change


def other_weights(folder: Path) -> None:
    """One number of one tensor; the file keeps its name, its length and its header."""
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def other_tokenizer(folder: Path) -> None:
    """The same vocabulary in other words: one merge or addition is enough to make other ids of a text."""
    told = json.loads((folder / "tokenizer.json").read_bytes())
    told["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(told))


def other_template(folder: Path) -> None:
    told = json.loads((folder / "tokenizer_config.json").read_bytes())
    if "chat_template" in told:
        edit("tokenizer_config.json", chat_template=told["chat_template"] + " ")(folder)
    else:
        file = folder / "chat_template.jinja"
        file.write_text(file.read_text() + " ")


def other_rope(folder: Path) -> None:
    told = json.loads((folder / "config.json").read_bytes())
    told["rms_norm_eps"] = 0.1
    (folder / "config.json").write_text(json.dumps(told))


CHANGES: dict[str, Callable[[Path], None]] = {
    "weights": other_weights,
    "tokenizer": other_tokenizer,
    "template": other_template,
    "config": other_rope,
    "generation_config": edit("generation_config.json", eos_token_id=[7, 9]),
}


def asked_again(out: Path, folder: Path, **settings: Any) -> int:
    """How many of CASES reach the engine on the model in ``folder``, with the journals of ``out``."""
    model = open_model(folder)
    engine = open_engine(model, baseline(model), **settings)
    journal = Answers(out, engine.identity)
    journal.of(engine, CASES)
    return journal.asked


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "model", tmp_path / "model"))


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_changed_in_place_replays_nothing(folder: Path, tmp_path: Path, change: str) -> None:
    assert asked_again(tmp_path / "answers", folder) == len(CASES)
    assert asked_again(tmp_path / "answers", folder) == 0
    CHANGES[change](folder)
    assert asked_again(tmp_path / "answers", folder) == len(CASES)


@pytest.mark.parametrize("settings", [{"dtype": "float32"}, {"kernels": "dequantize"}])
def test_another_setting_of_the_engine_replays_nothing(folder: Path, tmp_path: Path, settings: Any) -> None:
    assert asked_again(tmp_path / "answers", folder) == len(CASES)
    assert asked_again(tmp_path / "answers", folder, **settings) == len(CASES)


def test_another_number_of_threads_replays_nothing(folder: Path, tmp_path: Path) -> None:
    had = torch.get_num_threads()
    assert asked_again(tmp_path / "answers", folder) == len(CASES)
    try:
        torch.set_num_threads(had + 1)
        assert asked_again(tmp_path / "answers", folder) == len(CASES)
    finally:
        torch.set_num_threads(had)


def test_a_run_with_a_swapped_baseline_asks_it_and_its_variants_anew(release: Any, folder: Path) -> None:
    config = load_config(release(model=str(folder), variants=["W8A16"], drift_cases=0))
    first = pipeline.run(config)
    other_weights(folder)
    second = pipeline.run(config)
    assert first.baseline != second.baseline
    for name in ("artifact", "engine", "baseline_engine"):
        assert getattr(first.evidence[0], name) != getattr(second.evidence[0], name), name
    journals = {file.stem for file in (Path(config.out) / "answers").iterdir()}
    keys = {one.evidence[0].engine for one in (first, second)} | {
        one.evidence[0].baseline_engine for one in (first, second)
    }
    assert journals >= {key[7:39] for key in keys} and len(keys) == 4


def test_drift_is_kept_under_both_sides_weights(release: Any, folder: Path) -> None:
    capabilities = {"math": {"margin": "50%", "cases": 60}}
    config = load_config(release(model=str(folder), capabilities=capabilities, variants=["W8A16"], drift_cases=8))
    found = []
    for change in (lambda _: None, other_weights, CHANGES["config"]):
        change(folder)
        pipeline.run(config)
        found.append({file.name for file in (Path(config.out) / "drift").iterdir()})
    assert [len(one) for one in found] == [1, 2, 3]


def test_an_artifact_made_anew_in_its_folder_is_asked_anew(folder: Path, tmp_path: Path) -> None:
    model, journal = open_model(folder), tmp_path / "answers"
    for group in (32, 16):
        (artifact,) = sweep(model, None, [Recipe(scheme="W4A16", group_size=group, method="rtn", label="v")], tmp_path)
        engine = open_engine(model, open_artifact(tmp_path / "v"))
        answers = Answers(journal, engine.identity)
        answers.of(engine, CASES)
        assert (answers.asked, artifact.path) == (len(CASES), tmp_path / "v")


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_changed_while_it_is_open_is_refused(folder: Path, change: str) -> None:
    model = open_model(folder)
    _ = model.weights_digest, model.tokenizer_digest, model.template_digest  # of what was there before
    CHANGES[change](folder)
    with pytest.raises(ModelError, match=r"was changed while the model was in use; let it be finished, then run again"):
        open_engine(model, baseline(model))


def test_an_artifact_changed_while_it_is_open_is_refused(folder: Path, tmp_path: Path) -> None:
    model = open_model(folder)
    for group in (32, 16):
        made = sweep(model, None, [Recipe(scheme="W4A16", group_size=group, method="rtn", label="v")], tmp_path)
        if group == 32:
            (old,) = made
    with pytest.raises(ArtifactError, match=r"was changed while the artifact was in use"):
        open_engine(model, old)
