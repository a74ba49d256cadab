"""validation_failure and guard_failure: what the guard refused counts, also where the client got a good answer."""

from __future__ import annotations

from typing import Any

import pytest
from tests.watch.signals.made import read

MENDED: list[dict[str, Any]] = [
    {"step": "repaired", "faults": ("not_json",), "repairs": ("fence",)},
    {"step": "corrected", "faults": ("schema",)},
    {"step": "escalated", "faults": ("schema", "schema"), "answered_by": "BF16"},
    {"step": "failed", "faults": ("schema",), "status": 422, "error": "invalid_answer"},
    {"step": "", "faults": ("prefix",), "disconnected": True},
]


@pytest.mark.parametrize("changed", MENDED)
def test_a_refused_answer_counts_whatever_became_of_it(changed: dict[str, object]) -> None:
    assert read("validation_failure", **changed) == 1.0
    assert read("guard_failure", **changed) is None
    assert read("guard_failure", structured=False, **changed) == 1.0
    assert read("validation_failure", structured=False, **changed) is None


def test_an_answer_that_passed_is_good_and_one_that_never_came_is_neither() -> None:
    assert (read("validation_failure"), read("guard_failure", structured=False)) == (0.0, 0.0)
    gone: dict[str, Any] = {"step": "", "status": 502, "error": "upstream_cut", "answered_by": ""}
    assert read("validation_failure", **gone) is None and read("guard_failure", structured=False, **gone) is None


def test_repair_counts_repairs_alone() -> None:
    assert [read("repair", **changed) for changed in MENDED] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert read("repair") == 0.0 and read("repair", structured=False, repairs=("fence",)) is None
