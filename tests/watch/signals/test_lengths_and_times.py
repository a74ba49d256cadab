"""output_length, ttft, per_token, end_to_end: known numbers, and none where it would be of something else."""

from __future__ import annotations

import pytest
from tests.watch.signals.made import exchange, read, signal


def test_known_numbers() -> None:
    assert read("output_length") == 101.0
    assert read("ttft") == 0.2
    assert read("per_token") == pytest.approx(0.02)  # two seconds over the hundred tokens behind the first
    assert read("end_to_end") == 2.3


def test_lengths_and_paces_are_of_one_answer_of_the_variants_own() -> None:
    for other in ({"step": "corrected"}, {"step": "escalated", "answered_by": "BF16"}, {"answered_by": "BF16"}):
        assert read("output_length", **other) is None and read("per_token", **other) is None
    assert read("output_length", step="repaired") == 101.0
    assert read("output_length", answer_tokens=None) is None
    assert read("per_token", answer_tokens=7) is None and read("per_token", stages={}) is None


def test_a_whole_time_holds_all_that_the_variant_cost() -> None:
    assert read("end_to_end", step="escalated", answered_by="BF16", total_s=9.0) == 9.0
    assert read("end_to_end", disconnected=True) is None and read("end_to_end", status=502) is None


def test_a_first_token_is_of_a_stream() -> None:
    assert read("ttft", stream=False) is None and read("ttft", ttft_s=None) is None
    assert read("ttft", disconnected=True) == 0.2


@pytest.mark.parametrize("name", ["ttft", "per_token", "end_to_end"])
@pytest.mark.parametrize("told", [-1.0, float("nan"), float("inf"), 1e9])
def test_a_time_that_is_none_is_not_read(name: str, told: float) -> None:
    broken = exchange().model_copy(update={"ttft_s": told, "total_s": told, "stages": {"decode": told}})
    assert signal(name).read(broken, []) is None


def test_strata_are_few_and_by_length() -> None:
    def stratum(name: str, **changed: object) -> str:
        return signal(name).stratum(exchange(**changed))

    assert stratum("ttft") == stratum("ttft", answer_tokens=9000) == "128"
    assert stratum("end_to_end", prompt_tokens=600, answer_tokens=9000) == "2048/more"
    assert stratum("per_token", prompt_tokens=None) == "untold/128"
    assert stratum("output_length") == "structured 128"
    assert stratum("output_length", structured=False, prompt_tokens=513) == "text 2048"
