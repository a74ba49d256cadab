"""What inspect tells about a model follows from its weights, its activations and its variants."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from quantgate.cli import app
from quantgate.errors import UnknownName, UsageError
from quantgate.models import open_model
from quantgate.pipeline.inspection import inspect
from quantgate.quantize import load_dequantized, open_artifact
from quantgate.quantize.depth import walk
from quantgate.quantize.statistics import batches
from quantgate.report.inspections import Inspection, inspection_page, name_of

VARIANTS = ["W8A16", "W3A16-g32", "W8A8"]


@pytest.fixture(scope="module")
def inspected(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inspection]:
    out = tmp_path_factory.mktemp("inspected")
    suites = [str(place / f"{name}.jsonl") for name in ("echo", "count")]
    found = inspect(
        str(place / "model"),
        VARIANTS,
        out=out,
        capabilities=suites,
        traffic=place / "traffic.jsonl",
        samples=12,
        max_tokens=32,
    )
    return out, found


def test_fewer_bits_lose_more_everywhere(inspected: tuple[Path, Inspection]) -> None:
    _, found = inspected
    assert found.variants == tuple(VARIANTS)
    for view in found.layers:
        assert set(view.drift["W8A16"]) == {"echo", "count"}
        for capability in ("echo", "count"):
            assert view.drift["W3A16-g32"][capability] > view.drift["W8A16"][capability] >= 0
        assert (view.error["W3A16-g32"] or 0) > (view.error["W8A8"] or 0) > 0
    ends = {one.variant: one.error[-1] for one in found.growth}
    assert ends["W3A16-g32"] > ends["W8A8"] > ends["W8A16"] > 0


def test_the_last_blocks_error_is_that_of_the_whole_model(inspected: tuple[Path, Inspection], place: Path) -> None:
    """Run both models through transformers and compare their hidden states behind the last block."""
    out, _ = inspected
    model = open_model(place / "model")
    samples = [[3, 17, 200, 45, 9, 77], [130, 21, 64, 5, 33, 101, 250, 12]]
    for name in VARIANTS:
        artifact = open_artifact(out / "artifacts" / name)
        _, (growth,) = walk(model, [artifact], batches(samples, 256, model.context, 4096))
        wrong = size = 0.0
        for sample in samples:
            ids = torch.tensor([sample])
            with torch.inference_mode():
                seen = []
                for one in (load_dequantized(artifact, torch.float32), _full(model)):
                    kept: list[torch.Tensor] = []
                    hook = one.model.layers[-1].register_forward_hook(
                        lambda _m, _a, given, into=kept: into.append(given[0] if isinstance(given, tuple) else given)
                    )
                    one(ids)
                    hook.remove()
                    seen.append(kept[0].double())
            wrong += float((seen[0] - seen[1]).square().sum())
            size += float(seen[1].square().sum())
        assert growth.error[-1] == pytest.approx(wrong / size, rel=1e-3)


def _full(model):
    from quantgate.quantize import baseline

    return load_dequantized(baseline(model), torch.float32)


def test_an_outlier_channel_is_found(place: Path, tmp_path: Path) -> None:
    """Channel 5 of what q, k and v are given is made fifty times as large by its norm."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(place / "model", tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["model.layers.0.input_layernorm.weight"][5] *= 50
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    samples = batches([[3, 17, 200, 45, 9, 77, 130, 21, 64, 5]], 256, 64, 4096)
    (plain, *_), _ = walk(open_model(place / "model"), [], samples)
    (odd, *rest), _ = walk(open_model(tmp_path / "model"), [], samples)
    assert odd.layers[0].endswith("q_proj")
    assert odd.largest == 5
    assert odd.max_over_median > 10 * plain.max_over_median / 3
    assert odd.kurtosis > 3 * plain.kurtosis
    assert all(one.max_over_median < odd.max_over_median for one in rest)


def test_the_record_the_page_and_the_table_say_the_same(inspected: tuple[Path, Inspection], place: Path) -> None:
    out, found = inspected
    assert Inspection.load(out / "inspection.json") == found
    page = (out / "inspection.html").read_text()
    assert page == inspection_page(found)
    assert "http" not in page.replace("http://www.w3.org", "")
    for view in found.layers:
        assert name_of(view.shape.layers) in page
        assert f"{1000 * view.drift['W3A16-g32']['echo']:.2g}" in page
    heats = [float(one) for one in re.findall(r"--heat: ([\d.]+)", page)]
    assert max(heats) == 1.0
    assert min(heats) < 1.0
    arguments = ["inspect", str(place / "model"), "-v", "W8A16", "-v", "W3A16-g32", "-v", "W8A8", "--out", str(out)]
    arguments += ["-c", str(place / "echo.jsonl"), "-c", str(place / "count.jsonl"), "--samples", "12"]
    arguments += ["--max-tokens", "32", "--traffic", str(place / "traffic.jsonl"), "--quiet"]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert "all groups of layers that read one input, under W3A16-g32" in " ".join(told.output.split())
    order = [line for line in told.output.splitlines() if line.strip().startswith("0.")]
    assert len(order) == 2 * len(found.layers)  # what it is given, and what it does to each capability
    assert all(len(line) <= 80 for line in told.output.splitlines())


def test_growth_is_plotted_for_every_variant(inspected: tuple[Path, Inspection]) -> None:
    page = inspection_page(inspected[1])
    assert page.count("<polyline") == len(VARIANTS)
    labels = [float(one) for one in re.findall(r'y="([\d.]+)" class="label"', page)]
    assert all(abs(one - two) >= 12 for one, two in pairwise(sorted(labels)))


def test_a_suite_named_twice_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'math' is named twice"):
        inspect(str(place / "model"), ["W8A16"], out=tmp_path, capabilities=["math", "math"])


def test_folded_channel_scales_have_errors_and_no_foreseen_drift(place: Path, tmp_path: Path) -> None:
    found = inspect(
        str(place / "model"),
        ["W8A16", "W8A8:smoothquant"],
        out=tmp_path,
        capabilities=[str(place / "echo.jsonl")],
        traffic=place / "traffic.jsonl",
        samples=8,
        max_tokens=32,
    )
    assert all(set(view.drift) == {"W8A16"} for view in found.layers)
    assert all(view.error["W8A8-smoothquant"] is not None for view in found.layers)
    assert "no drift is foreseen" in inspection_page(found)


def test_an_unknown_capability_is_refused_before_anything_slow(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="maths"):
        inspect(str(place / "model"), ["W8A16"], out=tmp_path / "out", capabilities=["maths"])
    assert not (tmp_path / "out" / "artifacts").exists()
