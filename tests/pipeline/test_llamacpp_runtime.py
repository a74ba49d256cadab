"""llama.cpp as it is served: a rounded KV cache and a draft in a release and in ``compare``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.models.cutting import with_idle_block
from typer.testing import CliRunner

from quantgate import pipeline
from quantgate.cli import app
from quantgate.errors import ArtifactError, UsageError
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.pipeline import compare_models
from quantgate.quantize.gguf import make_gguf
from quantgate.release_config import load_config
from quantgate.variant_config import RuntimeConfig

pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")
llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed (quantgate[gguf])"
)


@pytest.fixture(scope="module")
def files(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, model = tmp_path_factory.mktemp("runtime"), open_model(place / "model")
    other = open_model(save_random(folder / "other", vocabulary=310))
    return {
        "file": make_gguf(model, folder / "small-Q8_0.gguf", "Q8_0").path,
        "draft": make_gguf(model, folder / "draft-Q4_0.gguf", "Q4_0").path,
        "other": make_gguf(other, folder / "other-Q8_0.gguf", "Q8_0").path,
    }


@llama_cpp
def test_evidence_is_taken_as_it_is_served(release: Any, place: Path, files: dict[str, Path]) -> None:
    runtime = {"kv_cache": "q8_0", "draft": str(files["draft"]), "draft_tokens": 3}
    variants = [
        {"scheme": "Q8_0", "engine": "llamacpp", "name": "plain"},
        {"scheme": "Q8_0", "engine": "llamacpp", "name": "served", "runtime": runtime},
    ]
    capabilities = {"echo": {"suite": str(place / "echo.jsonl"), "margin": "50%"}}
    path = release(variants=variants, capabilities=capabilities)
    report = pipeline.run(load_config(path))
    plain, served = report.evidence
    assert plain.engine != served.engine and len(list((Path(load_config(path).out) / "proofs").iterdir())) == 2
    assert "kept as Q8_0 as they should be" in served.kernels[-1]
    assert served.kernels[-1].endswith(f"; 3 tokens at a time drafted by {files['draft']}")
    assert "kept as F16 as they should be" in plain.kernels[-1] and "drafted" not in plain.kernels[-1]


@llama_cpp
def test_a_student_is_made_into_a_file_of_its_own_and_drafts_are_held_to_it(
    release: Any, place: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    base = with_idle_block(place / "model", tmp_path / "baseline")
    student = {"model": str(place / "model"), "scheme": "Q8_0", "engine": "llamacpp"}
    capabilities = {"echo": {"suite": str(place / "echo.jsonl"), "margin": "50%"}}
    report = pipeline.run(load_config(release(model=str(base), variants=[student], capabilities=capabilities)))
    (found,), (verdict,) = report.candidates, report.decision.verdicts
    assert (found.name, found.relation, verdict.verdict) == ("model-Q8_0", "student", "pass")
    assert "logits" in report.evidence[0].kernels[-1]
    other = student | {"runtime": {"draft": str(files["other"])}}
    with pytest.raises(ArtifactError, match=r"other-Q8_0.gguf: has 310 tokens, .* has 300"):
        pipeline.run(load_config(release(model=str(base), variants=[other], capabilities=capabilities)))


def test_a_draft_of_another_tokenizer_is_refused_before_anything_is_made(release: Any, files: dict[str, Path]) -> None:
    runtime = {"draft": str(files["other"])}
    config = load_config(release(variants=[{"scheme": "Q8_0", "engine": "llamacpp", "runtime": runtime}]))
    with pytest.raises(
        ArtifactError, match=r"other-Q8_0.gguf: has 310 tokens, .* has 300; draft with a model of the same"
    ):
        pipeline.run(config)
    assert not (Path(config.out) / "artifacts").exists()


def test_settings_of_llama_cpp_need_it(place: Path, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a setting of engine llamacpp; choose it"):
        compare_models(str(place / "model"), str(files["file"]), [str(place / "echo.jsonl")], margin=0.2,
                       runtime=RuntimeConfig(kv_cache="q8_0"), out=tmp_path / "o")  # fmt: skip


@llama_cpp
def test_compare_takes_a_draft_and_a_cache(place: Path, files: dict[str, Path], tmp_path: Path) -> None:
    asked = ["compare", str(place / "model"), str(files["file"]), "--suite", str(place / "echo.jsonl"),
             "--margin", "50%", "--engine", "llamacpp", "--kv-cache", "q4_0",
             "--draft", str(files["draft"]), "--out", str(tmp_path / "o"), "--quiet"]  # fmt: skip
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(app, [*asked[:10], "q9", *asked[11:]])
    assert isinstance(wrong.exception, UsageError) and "'kv_cache'" in str(wrong.exception)
