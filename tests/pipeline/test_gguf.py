"""A GGUF file in a release: in torch like any artifact, in llama.cpp after its proof; the command that writes one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quantgate import pipeline
from quantgate.cli import app
from quantgate.engines import KernelPath
from quantgate.errors import EngineError, UsageError
from quantgate.evaluate.proof import Proof
from quantgate.models import open_model
from quantgate.pipeline import compare_models
from quantgate.pipeline.variants import sentences_of
from quantgate.quantize import open_artifact
from quantgate.quantize.gguf import make_gguf, open_gguf
from quantgate.quantize.mix import linears
from quantgate.release_config import load_config

pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")
llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed (quantgate[gguf])"
)


@pytest.fixture(scope="module")
def file(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(open_model(place / "model"), tmp_path_factory.mktemp("gguf") / "small-Q8_0.gguf", "Q8_0").path


def loose(place: Path) -> dict[str, Any]:
    """Half may be lost: a random model's close calls turn over at the least rounding."""
    return {"echo": {"suite": str(place / "echo.jsonl"), "margin": "50%"}}


def test_a_gguf_file_is_judged_in_torch(release: Any, place: Path, file: Path) -> None:
    report = pipeline.run(load_config(release(variants=[{"artifact": str(file)}], capabilities=loose(place))))
    assert [one.verdict for one in report.decision.verdicts] == ["pass"]
    summary = report.variants[0]
    assert (summary.name, summary.scheme, summary.bits_per_weight) == ("small-Q8_0", "Q8_0", 8.5)
    assert report.evidence[0].kernels[0].endswith("dequantized matmul")


@llama_cpp
def test_llama_cpp_answers_once_it_is_proven(release: Any, place: Path, file: Path) -> None:
    variants = [{"artifact": str(file), "engine": "llamacpp", "name": "there"}]
    path = release(variants=variants, capabilities=loose(place))
    report = pipeline.run(load_config(path))
    assert [one.verdict for one in report.decision.verdicts] == ["pass"]
    told = report.evidence[0].kernels
    assert told[0].endswith("llama.cpp Q8_0 x Q8_0") and told[-1].startswith(
        "the runtime computes what the artifact says"
    )
    (proof,) = (Path(load_config(path).out) / "proofs").iterdir()
    assert Proof.load(proof).passed


@llama_cpp
def test_a_release_makes_files_and_asks_llama_cpp(release: Any, place: Path) -> None:
    """Beside a variant of another container, in one sweep."""
    variants = [{"scheme": "Q8_0", "engine": "llamacpp"}, "Q4_K_M", "W8A16"]
    path = release(variants=variants, capabilities=loose(place))
    report = pipeline.run(load_config(path))
    assert [one.name for one in report.variants] == ["Q8_0", "Q4_K_M", "W8A16"]
    kernels = [one.kernels for one in report.evidence]
    assert kernels[0][0].endswith("llama.cpp Q8_0 x Q8_0") and kernels[0][-1].startswith("the runtime computes")
    assert kernels[1][0].endswith("dequantized matmul")
    assert report.decision.verdicts[0].verdict == "pass"
    assert (Path(load_config(path).out) / "artifacts" / "Q8_0" / "Q8_0.gguf").is_file()


def test_a_mixture_of_blocks_keeps_its_budget(release: Any, place: Path) -> None:
    variants = [
        {"scheme": "auto", "container": "gguf", "bits": 5.2},
        {"scheme": "auto", "container": "gguf", "bytes": 58000},
    ]
    few = {name: {"suite": str(place / f"{name}.jsonl"), "margin": "50%", "cases": 50} for name in ("echo", "count")}
    path = release(variants=variants, capabilities=few)
    report = pipeline.run(load_config(path))
    out = Path(load_config(path).out) / "artifacts"
    bits, size = (open_artifact(out / one.name) for one in report.variants)
    every = {layer for group in linears(open_model(place / "model")) for layer in group}
    coded = [fate for fate in bits.manifest.fates if fate.name in every]
    assert 4.5 < 8 * sum(fate.bytes for fate in coded) / sum(fate.weights for fate in coded) <= 5.2
    assert 54_000 < size.manifest.total_bytes <= 58_000
    assert bits.name == "auto-5.2-gguf" and open_gguf(out / bits.name / f"{bits.name}.gguf").tensors


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        (
            {"scheme": "auto", "container": "gguf", "latency": 3},
            "latency is measured on kernels that read no GGUF blocks",
        ),
        (
            {"scheme": "auto", "container": "awq", "bits": 5},
            "scheme auto mixes layers in compressed_tensors and in gguf",
        ),
    ],
)
def test_budgets_that_no_file_keeps_are_refused(release: Any, variant: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_config(release(variants=[variant]))


@llama_cpp
def test_a_proof_that_failed_stops_the_run(release: Any, file: Path) -> None:
    path = release(variants=[{"artifact": str(file), "engine": "llamacpp"}])
    pipeline.run(load_config(path))
    (kept,) = (Path(load_config(path).out) / "proofs").iterdir()
    proof = Proof.load(kept)
    wrong = proof.checks[-1].model_copy(update={"passed": False, "got": "mean KL 2.0e+00 nats"})
    proof.model_copy(update={"checks": (*proof.checks[:-1], wrong)}).save(kept)
    with pytest.raises(EngineError, match=r"the runtime does not compute what the artifact says: logits: mean KL"):
        pipeline.run(load_config(path))


@llama_cpp
def test_compare_takes_a_gguf_file_in_llama_cpp(place: Path, file: Path, tmp_path: Path) -> None:
    suite = [str(place / "echo.jsonl")]
    result = compare_models(str(place / "model"), str(file), suite, margin=0.2, engine="llamacpp", out=tmp_path / "out")
    assert result.verdicts[0].verdict == "pass"


def test_engines_and_artifacts_must_fit(release: Any, place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"engine llamacpp runs GGUF files; name a scheme such as Q4_K_M"):
        load_config(release(variants=[{"scheme": "W8A16", "engine": "llamacpp"}]))
    with pytest.raises(UsageError, match=r"is none; leave 'engine' out"):
        compare_models(str(place / "model"), str(place / "model"), [str(place / "echo.jsonl")], margin=0.2,
                       engine="llamacpp", out=tmp_path / "o")  # fmt: skip
    with pytest.raises(UsageError, match=r"unknown engine 'lamacpp'; did you mean 'llamacpp'"):
        compare_models(str(place / "model"), str(place / "model"), [str(place / "echo.jsonl")], margin=0.2,
                       engine="lamacpp", out=tmp_path / "o")  # fmt: skip


def test_layers_of_one_shape_that_run_alike_are_told_together() -> None:
    def path(scheme: str, linears: int, got: str = "dequantized matmul", because: str = "") -> KernelPath:
        return KernelPath(scheme=scheme, shape=(8, 4), asked="int4", got=got, because=because, linears=linears)

    paths = [path("Q4_K", 3), path("Q6_K", 2), path("Q6_K", 1, "matmul", "no such group")]
    assert sentences_of(paths) == (
        "5 linears of 8 x 4: dequantized matmul",
        "1 linears of 8 x 4: matmul instead of int4 (no such group)",
    )


def test_export_writes_a_whole_file_and_tells_its_types(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    done = CliRunner().invoke(app, ["export", str(place / "model"), "--type", "Q8_0", "--out", str(out), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "Q8_0" in done.output and "8.5" in done.output and open_gguf(out).text("general.architecture") == "llama"
