"""A budget of bits becomes a mixture within it, better than any of its ingredients of that size."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from tests.pipeline.conftest import Release

from quantgate import pipeline
from quantgate.errors import DataError, UsageError
from quantgate.models import open_model
from quantgate.pipeline import auto, quantize_only
from quantgate.pipeline.auto import Frontier
from quantgate.pipeline.budgets import Budgets, Tables
from quantgate.pipeline.probing import Moves
from quantgate.pipeline.variants import Mixture, variants_of
from quantgate.quantize import open_artifact
from quantgate.quantize.mix import cost, linears
from quantgate.release_config import load_config
from quantgate.target_config import AUTO_VARIANTS

BITS = (4.6, 6.0)


def suites(place: Path) -> dict[str, object]:
    return {name: {"suite": str(place / f"{name}.jsonl"), "margin": "20%", "cases": 50} for name in ("echo", "count")}


def test_a_mixture_keeps_its_budget_and_drifts_less_than_what_it_is_made_of(release: Release, place: Path) -> None:
    variants = ["W8A16", *({"scheme": "auto", "bits": bits} for bits in BITS)]
    config = release(capabilities=suites(place), variants=variants)
    report = pipeline.run(config)
    run = Path(json.loads(config.read_text())["out"])
    assert [one.name for one in report.variants] == ["W8A16", "auto-4.6", "auto-6"]
    assert len(report.decision.verdicts) == len(report.evidence) == 3
    assert report.gates[0].pass_alpha == pytest.approx(0.05 / 3)

    model = open_model(place / "model")
    every = [layer for group in linears(model) for layer in group]
    weights = sum(model.files.entry(f"{layer}.weight").weights for layer in every)
    (file,) = (run / "sensitivity").iterdir()
    known = Moves.load(file)
    assert set(known.sources) == {"W3A16-g64", "W4A16-g64", "W4A16-g32", "W8A16"}
    for bits in BITS:
        made = open_artifact(run / "artifacts" / f"auto-{bits:g}")
        stored = sum(fate.bytes for fate in made.manifest.fates if fate.name in every)
        assert 0.9 * bits < 8 * stored / weights <= bits
        schemes = {made.scheme_of(layer).label for layer in made.quantized}
        assert len(schemes) > (bits == 6.0)  # a budget between two sizes takes from both
    curve = Frontier.load(run / "frontier.json").points
    assert len(curve) > 3
    assert all(one.bytes < two.bytes for one, two in pairwise(curve))
    assert all(max(one.drift.values()) > min(two.drift.values()) for one, two in pairwise(curve))
    before = file.stat().st_mtime_ns
    assert pipeline.run(config).decision == report.decision
    assert file.stat().st_mtime_ns == before  # probed once


def test_auto_alone_stands_for_a_choice(release: Release, place: Path) -> None:
    config = load_config(release(variants="auto"))
    assert [one.bits for one in config.variants if one.scheme == "auto"] == [4.5, 3.75]
    assert len(config.variants) == len(AUTO_VARIANTS)


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ({"scheme": "auto"}, "both or neither, such as"),
        ({"scheme": "W4A16", "bits": 4}, "both or neither, such as"),
        ({"scheme": "auto", "bits": 4, "method": "rtn"}, "chooses by itself; leave 'method' out"),
        (
            {"scheme": "auto", "bits": 4, "container": "gptq"},
            "scheme auto mixes layers in compressed_tensors and in gguf",
        ),
        ({"scheme": "auto", "bits": 20}, "20"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(release: Release, variant: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_config(release(variants=[variant]))


def test_budgets_of_bytes_and_latency_are_kept_together(release: Release, place: Path) -> None:
    roomy = {"scheme": "auto", "bits": 8, "bytes": "1 GB", "latency": "1 s", "name": "roomy"}
    config = release(
        capabilities=suites(place), variants=[{"scheme": "auto", "bytes": 104_000, "name": "small"}, roomy]
    )
    report = pipeline.run(config)
    run = Path(json.loads(config.read_text())["out"])
    made = open_artifact(run / "artifacts" / "small")
    assert made.manifest.total_bytes <= 104_000
    assert made.manifest.total_bytes > 99_000
    told = {one.name: {row.what: row for row in one.budgets} for one in Budgets.load(run / "budgets.json").mixtures}
    assert told["small"]["bytes"].most == 104_000
    assert made.manifest.total_bytes <= told["small"]["bytes"].used <= 104_000
    assert set(told["roomy"]) == {"bits", "bytes", "latency"}
    assert told["roomy"]["bits"].bound and not told["roomy"]["bytes"].bound and not told["roomy"]["latency"].bound
    model = open_model(place / "model")
    timings = Budgets.load(run / "budgets.json").timings
    shapes = {tuple(model.files.entry(f"{layer}.weight").shape) for group in linears(model) for layer in group}
    assert {one.shape for one in timings} == shapes
    assert {one.source for one in timings} == {"W3A16-g64", "W4A16-g64", "W4A16-g32", "W8A16", "BF16"}
    assert all(one.microseconds > 0 for one in timings)
    notes = {one.name: one.notes for one in report.variants}
    assert "which bound the choice" in notes["roomy"][0] and "which did not bind" in notes["roomy"][2]


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({"bits": 2}, r"2 bits are fewer than the smallest mixture has; give at least 3\.\d\d$"),
        ({"bytes": "1 KB"}, r"1,000 bytes are less than the smallest mixture takes; give at least [\d,]+ bytes$"),
        ({"bytes": "1 GB", "latency": "10 s"}, r"the model itself keeps the budget, so nothing would be quantized"),
        ({"latency": "0.0001 us"}, r"ms are less than the fastest mixture takes; give at least [\d.]+ ms$"),
    ],
)
def test_a_budget_that_makes_no_mixture_is_told_before_the_sweep(
    release: Release, place: Path, budget: dict[str, object], sentence: str
) -> None:
    config = release(capabilities=suites(place), variants=[{"scheme": "auto", "name": "tight"} | budget])
    with pytest.raises(UsageError, match=sentence):
        pipeline.run(config)
    assert not (Path(json.loads(config.read_text())["out"]) / "artifacts").exists()


def test_what_is_counted_before_the_sweep_is_what_it_makes(release: Release, place: Path) -> None:
    keep = ["down_proj"]
    config = release(capabilities=suites(place), variants=[{"scheme": "auto", "bits": 9, "keep": keep}])
    pipeline.run(config)
    run = Path(json.loads(config.read_text())["out"])
    model = open_model(place / "model")
    (mixture,) = variants_of(load_config(config).variants)
    assert isinstance(mixture, Mixture)
    lending = auto.ingredients(model, [mixture], [])
    tables = Tables(model, lending, [mixture])
    made = [open_artifact(run / "artifacts" / one.name) for one in lending]
    found = [[sum(cost(model, one, layer) for layer in group) for one in [*made, None]] for group in tables.groups]
    assert tables.sizes.tolist() == found


def test_too_small_a_budget_and_different_keeps_are_told(release: Release, place: Path) -> None:
    with pytest.raises(UsageError, match=r"auto-2: 2 bits are fewer than the smallest mixture has; give at least 3"):
        pipeline.run(release(capabilities=suites(place), variants=[{"scheme": "auto", "bits": 2}]))
    two = [{"scheme": "auto", "bits": 4}, {"scheme": "auto", "bits": 5, "keep": ["o_proj"]}]
    with pytest.raises(UsageError, match="two of scheme auto keep different layers"):
        pipeline.run(release(capabilities=suites(place), variants=two))


def test_quantizing_alone_does_not_know_what_to_keep(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="scheme auto needs to know what must be kept"):
        quantize_only.quantize(str(place / "model"), [{"scheme": "auto", "bits": 4.5}], out=tmp_path)


def test_a_variant_of_an_ingredients_name_but_not_its_content_is_no_ingredient(release: Release, place: Path) -> None:
    variants = [{"scheme": "W8A16", "keep": ["down_proj"]}, {"scheme": "auto", "bits": 6.0}]
    config = release(capabilities=suites(place), variants=variants)
    report = pipeline.run(config)
    run = Path(json.loads(config.read_text())["out"])
    made = open_artifact(run / "artifacts" / "auto-6")
    parts = made.manifest.recipe.options["parts"]
    assert isinstance(parts, dict)
    assert parts
    assert "W8A16" not in parts
    assert [one.name for one in report.variants] == ["W8A16", "auto-6"]
    with pytest.raises(UsageError, match="a mixture cannot be called 'W4A16-g32'"):
        pipeline.run(release(capabilities=suites(place), variants=[{"scheme": "auto", "bits": 6, "name": "W4A16-g32"}]))


def test_a_suite_with_no_case_to_choose_by_is_refused_before_anything_slow(release: Release, place: Path) -> None:
    every = {"echo": {"suite": str(place / "echo.jsonl"), "margin": "20%", "cases": 60}}
    config = release(capabilities=every, variants=[{"scheme": "auto", "bits": 5}])
    with pytest.raises(DataError, match="its first 60 cases are the gate's, and none is left to choose layers by"):
        pipeline.run(config)
    assert not (Path(json.loads(config.read_text())["out"]) / "artifacts").exists()
