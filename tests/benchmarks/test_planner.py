"""The planner's benchmark: what a row says of what was measured."""

from __future__ import annotations

import pytest

from benchmarks import _planned, planner
from quantgate.hardware import profile
from quantgate.models import REFERENCE, REFERENCE_FOLDER


@pytest.mark.skipif(not (REFERENCE_FOLDER / "config.json").is_file(), reason="the built-in model is not installed")
def test_a_row_holds_foretold_against_measured() -> None:
    device = profile("cpu-avx512")
    near = planner._row(
        "built-in", REFERENCE, "torch", "W8A8", {"memory": 420e6, "context": 304, "decode": 1.0}, device
    )
    assert len(near) == len(planner.COLUMNS)
    foretold = float(near[8])
    exact = planner._row(
        "built-in", REFERENCE, "torch", "W8A8", {"memory": 1e9, "context": 304, "decode": foretold}, device
    )
    assert (near[7], near[13]) == ("met", "missed") and (exact[7], exact[13]) == ("missed", "met")


def test_the_baseline_of_the_torch_engine_needs_no_artifact(tmp_path) -> None:
    asked = {"ref": "x", "cache": str(tmp_path), "engine": "torch"}
    assert _planned.made(asked | {"scheme": "BF16"}) and not _planned.made(asked | {"scheme": "W8A8"})
    assert not _planned.made(asked | {"scheme": "BF16", "engine": "llama.cpp"})


def test_this_process_holds_memory() -> None:
    assert _planned._resident() > 10e6
