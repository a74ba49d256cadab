"""quantgate quantize: artifacts without a verdict, and what they will take before they are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from quantgate.cli import app
from quantgate.errors import UnknownName, UsageError
from quantgate.models.random import save_random
from quantgate.pipeline.quantize_only import predict, quantize, short_variant
from quantgate.quantize import open_artifact

VARIANTS = [
    "W4A16-g64",
    "W3A16-g32:rtn",
    "W8A8:smoothquant",
    "W4A16-g32:awq+awq",
    "W4A16-g32:gptq+gptq_v2",
    "W1A16-g32",
    "FP8",
    "NVFP4",
    "W4A8-g32",
    "W3A16-g32~hadamard",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=1024)


@pytest.fixture
def run() -> CliRunner:
    return CliRunner(env={"COLUMNS": "100"})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("W4A16", {"scheme": "W4A16"}),
        ("W4A16-g64:awq", {"scheme": "W4A16-g64", "method": "awq"}),
        ("W4A16+gptq", {"scheme": "W4A16", "container": "gptq"}),
        (
            "W3A16-g64:gptq~hadamard@fp8+awq",
            {
                "scheme": "W3A16-g64",
                "method": "gptq",
                "rotation": "hadamard",
                "kv_cache": "fp8",
                "container": "awq",
            },
        ),
        ("W4A8~hadamard", {"scheme": "W4A8", "rotation": "hadamard"}),
        ("W3A16-channel-asym:hqq+gptq_v2", {"scheme": "W3A16-channel-asym", "method": "hqq", "container": "gptq_v2"}),
    ],
)
def test_short_forms(text: str, meant: dict[str, str]) -> None:
    assert short_variant(text) == meant


@pytest.mark.parametrize("text", ["", "W4A16:", "W4A16:awq:gptq", "W4A16 awq", "+awq", "W4A16~", "W4A16@fp8~hadamard"])
def test_short_forms_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected SCHEME\[:method\]\[~rotation\]\[@kv_cache\]\[\+container\]"):
        short_variant(text)


def test_what_is_predicted_is_what_is_written(folder: Path, tmp_path: Path) -> None:
    told = predict(str(folder), VARIANTS)
    made = quantize(str(folder), VARIANTS, out=tmp_path, samples=16, max_tokens=64)
    assert [one.name for one in told] == [artifact.name for artifact in made]
    for one, artifact in zip(told, made, strict=True):
        manifest = artifact.manifest
        assert (one.tensor_bytes, one.bits_per_weight) == (manifest.tensor_bytes, manifest.bits_per_weight)
        assert one.layers == len(artifact.quantized) and one.method == manifest.method


def test_the_command_writes_artifacts_and_says_where(folder: Path, tmp_path: Path, run: CliRunner) -> None:
    options = ["--samples", "8", "--max-tokens", "64", "--quiet", "--out", str(tmp_path / "out")]
    result = run.invoke(app, ["quantize", str(folder), "-v", "W4A16-g64", "-v", "W8A8", *options])
    assert result.exit_code == 0, result.output
    for name in ("W4A16-g64", "W8A8"):
        assert open_artifact(tmp_path / "out" / name).name == name
        assert str(tmp_path / "out" / name) in result.output.replace("\n", "")
    assert "error: mean share of a layer's output energy lost" in result.output


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path, run: CliRunner) -> None:
    out = tmp_path / "out"
    result = run.invoke(app, ["quantize", str(folder), "-v", "W4A16-g64:awq+awq", "--dry-run", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "int4 g64, by awq" in result.output and "nothing was written" in result.output
    assert not out.exists()


def test_no_variant_and_unknown_ones_are_refused(folder: Path, run: CliRunner) -> None:
    assert run.invoke(app, ["quantize", str(folder)]).exit_code == 2
    result = run.invoke(app, ["quantize", str(folder), "-v", "W5A16", "--dry-run"])
    assert isinstance(result.exception, UnknownName) and "W5A16" in str(result.exception)


def test_a_file_in_the_place_of_the_folder_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UsageError, match=r"taken: cannot be a folder.*name another"):
        quantize(str(folder), ["W8A8"], out=tmp_path / "taken", samples=4, max_tokens=64)
    assert (tmp_path / "taken").read_text() == "mine"


def test_layers_can_be_left_alone(folder: Path) -> None:
    plain, kept = (predict(str(folder), ["W4A16-g64"], keep=keep)[0] for keep in ((), ("down_proj",)))
    assert (plain.kept, kept.kept) == (0, 2) and kept.tensor_bytes > plain.tensor_bytes


def test_the_output_layer_and_the_embeddings_are_asked_for_by_name(
    folder: Path, tmp_path: Path, run: CliRunner
) -> None:
    call = ["quantize", str(folder), "-v", "W4A16-g32", "--dry-run", "--out", str(tmp_path / "out")]
    kept = run.invoke(app, call)
    assert "W4A16-g32: model.embed_tokens: kept as bf16 by the rule 'embeddings: keep', also read as" in kept.output
    asked = run.invoke(app, [*call, "--lm-head", "w8a16", "--untie"])
    assert asked.exit_code == 0, asked.output
    assert "W4A16-g32-head-W8A16-untied: lm_head: int8 per channel by the rule 'lm_head: W8A16', stored" in asked.output
    refused = run.invoke(app, [*call, "--lm-head", "W8A16"])
    assert isinstance(refused.exception, UsageError) and "is tied: it reads one table" in str(refused.exception)


def test_scheme_auto_takes_no_word_about_the_ends(folder: Path) -> None:
    with pytest.raises(UsageError, match="scheme auto chooses by itself; leave 'lm_head' out"):
        predict(str(folder), [{"scheme": "auto", "bits": 4.5, "lm_head": "W8A16"}])
