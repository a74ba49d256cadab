"""Sizes, times, rates and prices with their units, and one sentence for what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import UsageError
from quantgate.hardware.quantities import BYTES, seconds, size
from quantgate.hardware.targets import Place
from quantgate.records import parse

GOOD = {"hardware": "h100-sxm", "runtime": "vllm"}


def test_a_target_reads_units() -> None:
    told = {"memory": "8GiB", "price": "$2.50/h", "ttft_p95": "300ms", "tpot_p95": "0.03 s", "rate": "480/min"}
    found = parse(Place, GOOD | told, where="target")
    assert (found.memory, found.price, found.ttft_p95, found.tpot_p95, found.rate) == (8 << 30, 2.5, 0.3, 0.03, 8.0)
    assert Place.model_validate(found.body()) == found  # a record writes the units again


def test_names_become_the_names_of_the_matrix() -> None:
    found = parse(Place, {"hardware": "NVIDIA H100", "runtime": "trt-llm"}, where="target")
    assert (found.hardware, found.runtime) == ("h100-sxm", "tensorrt-llm")


def test_the_cache_has_room_for_prompt_and_answer_unless_more_is_asked() -> None:
    assert parse(Place, GOOD | {"prompt": 1000, "answer": 24}, where="").tokens == 1024
    assert parse(Place, GOOD | {"context": 8192}, where="").tokens == 8192


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "price without a unit": ({"price": 2.5}, "found 2.5"),
    "price with another unit": ({"price": "2.50/token"}, "expected a price such as 2.50/h with its unit"),
    "negative price": ({"price": "-1/h"}, "more than nothing, found '-1/h'"),
    "time without a unit": ({"ttft_p95": 300}, "expected a time such as 300ms with its unit"),
    "negative objective": ({"tpot_p95": "-30ms"}, "more than nothing"),
    "no time at all": ({"tpot_p95": "0ms"}, "more than nothing"),
    "absurd objective": ({"ttft_p95": "9000s"}, "is more than 1 h"),
    "absurd rate": ({"rate": "1e9/s"}, "more than a million requests a second"),
    "memory of nothing": ({"memory": 0}, "greater than 0"),
    "memory that is a word": ({"memory": "plenty"}, "expected a size such as 8GiB"),
    "concurrency of nothing": ({"concurrency": 0}, "greater than or equal to 1"),
    "unknown hardware": ({"hardware": "h100-sx"}, "unknown hardware 'h100-sx'; did you mean 'h100-sxm'?"),
    "unknown runtime": ({"runtime": "vlm"}, "unknown runtime 'vlm'; did you mean 'vllm'?"),
    "unknown key": ({"ttft": "300ms"}, "unknown key 'ttft'; did you mean 'ttft_p"),
    "unknown cache": ({"kv_cache": "fp4"}, "'fp4'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str) -> None:
    told, sentence = BAD[case]
    with pytest.raises(UsageError) as refused:
        parse(Place, GOOD | told, where="release.yaml")
    assert str(refused.value).startswith("release.yaml: ") and "\n" not in str(refused.value)
    assert sentence in str(refused.value)


@given(number=st.integers(1, 10**6), unit=st.sampled_from(sorted(BYTES)))
def test_sizes_are_exact(number: int, unit: str) -> None:
    assert size(f"{number} {unit}") == number * BYTES[unit]


@given(st.floats(1e-3, 3000, allow_nan=False))
def test_times_survive_writing(number: float) -> None:
    assert seconds(f"{number!r}s") == pytest.approx(number)


@pytest.mark.parametrize("value", [True, None, [], "", "ms", "1e999s"])
def test_nonsense_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a time|more than"):
        seconds(value)
