"""error and disconnect: whose doing it was that no answer came."""

from __future__ import annotations

from typing import Any

import pytest
from tests.watch.signals.made import read


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ({}, 0.0),
        ({"status": 502, "error": "upstream_unreachable", "step": "", "answered_by": ""}, 1.0),
        ({"status": 504, "error": "stage_timeout", "step": ""}, 1.0),
        ({"status": 503, "error": "overloaded", "step": ""}, 1.0),
        ({"status": 200, "error": "upstream_cut", "step": ""}, 1.0),  # in mid-stream
        ({"answered_by": "BF16"}, 1.0),  # the baseline stepped in, and the client saw nothing of it
        ({"answered_by": "BF16", "step": "escalated", "faults": ("schema",)}, 0.0),  # it answered, badly
        ({"status": 422, "error": "invalid_answer", "step": "failed", "faults": ("schema",)}, 0.0),
        ({"status": 200, "error": "invalid_answer", "step": "failed", "faults": ("prefix",)}, 0.0),  # in mid-stream
        ({"status": 400, "error": "invalid_value", "step": ""}, 0.0),  # the other side would have said the same
        ({"status": 400, "error": "context_length_exceeded", "step": ""}, 1.0),
        ({"status": 404, "error": "model_not_found", "step": ""}, 1.0),
        ({"status": 429, "error": "budget_exceeded", "step": ""}, None),
        ({"status": 0, "disconnected": True, "step": ""}, None),
        ({"status": 200, "disconnected": True, "error": "upstream_cut"}, 1.0),
    ],
)
def test_what_counts_as_the_variants_error(changed: dict[str, Any], value: float | None) -> None:
    assert read("error", **changed) == value


def test_a_client_that_leaves_counts_alone() -> None:
    assert (read("disconnect"), read("disconnect", disconnected=True)) == (0.0, 1.0)
