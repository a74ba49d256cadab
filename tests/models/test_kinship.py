"""What another model is beside the baseline, by cutting and moving one whose answer is then known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.models.cutting import cut, derive, renumbered, tuned

from quantgate.models import open_model
from quantgate.models.kinship import Kinship, is_same, kinship
from quantgate.models.random import save_random

BLOCKS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kin") / "model"
    return save_random(folder, hidden=32, feed_forward=48, layers=BLOCKS, heads=2, kv_heads=1)


def beside(model: Path, other: Path) -> Kinship:
    return kinship(open_model(model), open_model(other))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.sets(st.integers(0, BLOCKS - 1), min_size=1, max_size=BLOCKS - 1))
def test_a_cut_model_is_a_student_all_of_whose_weights_are_the_baselines(
    model: Path, tmp_path_factory: pytest.TempPathFactory, keep: set[int]
) -> None:
    other = cut(model, tmp_path_factory.mktemp("cut") / "student", sorted(keep))
    found, whole = beside(model, other), open_model(model)
    block = sum(entry.weights for name, entry in whole.files.entries.items() if ".layers.0." in name)
    assert (found.relation, found.blocks, found.baseline_blocks) == ("student", len(keep), BLOCKS)
    assert found.parameters == whole.parameters - (BLOCKS - len(keep)) * block
    assert (found.own_parameters, found.bytes) == (0, 2 * found.parameters)
    assert found.sentence.endswith(f"(baseline: {whole.parameters:,}), all of them the baseline's, byte for byte")


def test_weights_that_moved_are_counted_as_the_models_own(model: Path, tmp_path: Path) -> None:
    found = beside(model, tuned(model, tmp_path / "tuned", 0.1, part="q_proj"))
    assert found.relation == "fine-tune"
    assert found.own_parameters == BLOCKS * 32 * 32
    assert f"{BLOCKS * 32 * 32:,} of them its own and the others the baseline's" in found.sentence
    assert "other weights of the baseline's shape, as a fine-tune has; 4 blocks (baseline: 4)" in found.sentence


def test_a_model_without_a_common_tensor_owns_all_of_it(model: Path, tmp_path: Path) -> None:
    other = save_random(tmp_path / "big", hidden=64, feed_forward=48, layers=BLOCKS, heads=2, kv_heads=1, seed=7)
    found = beside(model, other)
    assert (found.relation, found.own_parameters) == ("other model", found.parameters)
    assert found.sentence.startswith("another model; ")


def test_a_smaller_model_of_another_vocabulary_is_no_student(model: Path, tmp_path: Path) -> None:
    other = renumbered(cut(model, tmp_path / "cut", [0]), tmp_path / "swapped", {"a": "b"})
    found = beside(model, other)
    assert (found.relation, found.same_vocabulary) == ("other model", False)
    assert found.sentence.endswith("; its vocabulary is another")


def copied(model: Path, out: Path) -> Path:
    return derive(model, out)


def renamed(model: Path, out: Path) -> Path:
    return derive(model, out, _name_or_path="elsewhere", transformers_version="4.0.0")


def widened(model: Path, out: Path) -> Path:
    return derive(model, out, lambda weights: {name: one.float() for name, one in weights.items()}, dtype="float32")


@pytest.mark.parametrize("make", [copied, renamed, widened])
def test_a_copy_is_the_baseline_itself_whatever_it_is_called_and_stored_in(
    model: Path, tmp_path: Path, make: Any
) -> None:
    assert is_same(open_model(model), open_model(make(model, tmp_path / "copy")))


def test_one_number_or_one_setting_makes_another_model(model: Path, tmp_path: Path) -> None:
    def moved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {name: one.float() for name, one in weights.items()}
        found["model.norm.weight"][0] += 1e-6
        return found

    base = open_model(model)
    assert not is_same(base, open_model(derive(model, tmp_path / "moved", moved, dtype="float32")))
    raw = json.loads((model / "config.json").read_bytes())
    rope = raw["rope_parameters"] | {"rope_theta": 5e5}
    stretched = open_model(derive(model, tmp_path / "stretched", rope_parameters=rope))
    assert base.weights_digest == stretched.weights_digest
    assert not is_same(base, stretched)
    assert kinship(base, stretched).relation == "other model"
    assert not is_same(base, open_model(cut(model, tmp_path / "cut", [0, 1])))
